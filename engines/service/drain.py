"""Empties an engine: no new requests, time for those that run, and an end for those that need more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from engines.model import Cause, FinishReason
from engines.service.lifecycle import Lifecycle
from engines.service.requests import Requests
from engines.service.run import Run


@dataclass(frozen=True, slots=True)
class Drained:
    """What became of the requests that ran when the drain began."""

    finished_count: int
    cancelled_count: int
    handed_over_count: int = 0


class Drain:
    """The one drain in an engine's life. Going on with it does not depend on who waits for it."""

    def __init__(self, lifecycle: Lifecycle, requests: Requests) -> None:
        self._lifecycle = lifecycle
        self._requests = requests
        self._runs: Sequence[Run] | None = None
        self._cut: asyncio.TimerHandle | None = None
        self._hands_over = False

    async def drain(self, grace_s: float, *, hands_over: bool | None = None) -> Drained:
        """Begins to drain, or sets the grace anew, from now; returns when every request has ended.

        hands_over: whether what has a keeper then goes on elsewhere; as was said before, if None, and else it does not.
        """
        if hands_over is not None:
            self._hands_over = hands_over
        if self._runs is None:
            self._lifecycle.drain()
            self._runs = self._requests.live
        if self._cut is not None:
            self._cut.cancel()
        self._cut = asyncio.get_running_loop().call_later(grace_s, self._cancel_rest)
        return await self._outcome(self._runs)

    async def _outcome(self, runs: Sequence[Run]) -> Drained:
        if runs:
            await asyncio.wait([run.ended for run in runs])
        outcomes = [outcome for run in runs if (outcome := run.ended.result()) is not None]
        return Drained(
            finished_count=sum(each.reason is not FinishReason.CANCELLED for each in outcomes),
            cancelled_count=sum(each.cause is Cause.DELETED for each in outcomes),
            handed_over_count=sum(each.cause is Cause.HANDOVER for each in outcomes),
        )

    def _cancel_rest(self) -> None:
        for run in self._requests.live:
            is_handed_over = self._hands_over and run.followers.has_keeper
            run.cancel(Cause.HANDOVER if is_handed_over else Cause.DELETED)
