"""Why an output ends."""

from __future__ import annotations

from dataclasses import dataclass

from engines.model import Cause, FinishReason


@dataclass(frozen=True, slots=True)
class Cancel:
    """A cancel as it came."""

    cause: Cause
    time_s: float


@dataclass(frozen=True, slots=True)
class Ending:
    """Why an output ends, before anything is known of what its end showed."""

    reason: FinishReason
    cancel: Cancel | None = None
    error: BaseException | None = None


def failed(error: BaseException) -> Ending:
    """Returns the ending of an output in whose own processing something went wrong."""
    return Ending(FinishReason.FAILED, error=error)
