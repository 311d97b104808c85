"""How far the load of a model has come: told by the thread that loads, read by others. No wire, no tensor."""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass
from typing import Protocol


class LoadStage(enum.Enum):
    """What a load is doing; named like the stages of the contract."""

    LOADING_WEIGHTS = enum.auto()
    WARMING_UP = enum.auto()
    HASHING_WEIGHTS = enum.auto()


class Count:
    """Bytes that are done, of all there are to do. Several threads may count."""

    def __init__(self, total_bytes: int = 0) -> None:
        self._guard = threading.Lock()
        self.done_bytes, self.total_bytes = 0, total_bytes

    def expect(self, byte_count: int) -> None:
        """Notes that there is more to do."""
        with self._guard:
            self.total_bytes += byte_count

    def add(self, byte_count: int) -> None:
        """Notes that more is done."""
        with self._guard:
            self.done_bytes += byte_count


@dataclass(frozen=True, slots=True)
class Loading:
    """A stage of a load, since when it goes on, and how far it is, if that is counted."""

    stage: LoadStage
    start_time_s: float  # since 1970
    count: Count | None = None


class OnStage(Protocol):
    """Takes what is being done, in words, and the stage, unless the one before goes on."""

    def __call__(self, message: str, stage: LoadStage | None = None, count: Count | None = None, /) -> None:
        """Notes it."""


def to_nobody(_message: str, _stage: LoadStage | None = None, _count: Count | None = None, /) -> None:
    """Tells nobody; an `OnStage`."""
