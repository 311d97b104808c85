"""The steps in which the streams of a run get their tokens: all at the same time, as from the batch of an engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

LEAST_STEP_S = 0.001  # at higher rates a step brings several tokens; timers are no finer


class Steps:
    """Begins when `stream_count` streams have joined."""

    def __init__(self, stream_count: int, tokens_per_s: float) -> None:
        self.stream_count = 0  # that are here now
        self.begin_s = 0.0
        self._awaited = stream_count
        self._step_s = max(LEAST_STEP_S, 1 / tokens_per_s)
        self._per_step = tokens_per_s * self._step_s
        self._loop = asyncio.get_running_loop()
        self._begun, self._stepped = asyncio.Event(), asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """A stream takes part for the block."""
        self.stream_count += 1
        self._awaited -= 1
        if self._awaited == 0:
            self.begin_s = self._loop.time()
            self._begun.set()
            self._step()
        try:
            yield
        finally:
            self.stream_count -= 1
            if not self.stream_count and self._timer is not None:
                self._timer.cancel()

    async def begun(self) -> None:
        """Waits for the others."""
        await self._begun.wait()

    def due(self) -> int:
        """Returns how many tokens each stream has by now."""
        return int((1 + int((self._loop.time() - self.begin_s) / self._step_s)) * self._per_step)

    async def newer(self) -> None:
        """Waits for the next step."""
        await self._stepped.wait()

    def _step(self) -> None:
        self._stepped.set()  # wakes those who wait, and nobody who comes later
        self._stepped.clear()
        past = int((self._loop.time() - self.begin_s) / self._step_s)
        self._timer = self._loop.call_at(self.begin_s + (past + 1) * self._step_s, self._step)
