"""One run of a request in this engine, from its arrival to the moment its blocks are free."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from engines.model import Cause, End, Event, Work
from engines.service.served import Steps
from engines.service.wakeups import Wakeups


class Run:
    """Takes what the step thread hands out, keeps it for the one reader, and learns of the end even if nobody reads.

    Belongs to the event loop, but for `sink`. What a reader has not taken yet is kept, so a reader that stalls costs at
    most the ids and the text of `max_tokens` tokens; once it has left, nothing is kept.
    """

    def __init__(
        self, key: str, request_id: str, attempt: int, wakeups: Wakeups, on_end: Callable[[Run, End | None], None]
    ) -> None:
        self.key = key
        self.request_id = request_id
        self.attempt = attempt
        self.prompt_token_count = 0
        self.before_submit_s = 0.0  # from arrival to submission, in which the prompt is tokenized
        self.cancel_lead_s = 0.0  # from a cancel that came before submission to submission
        self.has_reader = True
        self._loop = asyncio.get_running_loop()
        self._arrival_s = self._loop.time()
        self.ended: asyncio.Future[End | None] = self._loop.create_future()  # None: it never started
        self._wakeups = wakeups
        self._on_end = on_end
        self._lock = threading.Lock()
        self._handed_out: list[Event] = []  # by the step thread; guarded by the lock
        self._to_read: list[Event] = []
        self._readable = asyncio.Event()
        self._steps: Steps | None = None
        self._early_cause: Cause | None = None
        self._early_cancel_s = 0.0
        self._timers: list[asyncio.TimerHandle] = []

    def start(self, steps: Steps, work: Work) -> None:
        """Submits the sequence; a cancel that came before is applied at once. Raises what `submit` raises."""
        self.prompt_token_count = len(work.prompt)
        self.before_submit_s = self.age_s()
        steps.submit(work, self.sink)
        self._steps = steps
        if self._early_cause is not None:
            self.cancel_lead_s = self.age_s() - self._early_cancel_s
            steps.cancel(self.key, self._early_cause)

    def refuse(self) -> None:
        """Ends a run that never started."""
        self._end(None)

    def cancel(self, cause: Cause) -> None:
        """Has the sequence leave the batch. The first cancel counts; after the end it is nothing."""
        if self._steps is not None:
            self._steps.cancel(self.key, cause)
        elif self._early_cause is None:
            self._early_cause, self._early_cancel_s = cause, self.age_s()

    def cancel_in(self, delay_s: float, cause: Cause) -> None:
        """Cancels after a time, unless it has ended by then."""
        if not self.ended.done():
            self._timers.append(self._loop.call_later(delay_s, self.cancel, cause))

    def age_s(self) -> float:
        """Returns the time since the request arrived."""
        return self._loop.time() - self._arrival_s

    def sink(self, event: Event) -> None:
        """Takes an event over. Called on the step thread."""
        with self._lock:
            self._handed_out.append(event)
            if len(self._handed_out) > 1:
                return  # the reader is behind; the wake-up under way takes this one along
        self._wakeups.ring(self._receive)

    async def take(self) -> list[Event]:
        """Waits until there is something, and returns all there is, in order."""
        await self._readable.wait()
        self._readable.clear()
        taken, self._to_read = self._to_read, []
        return taken

    def leave(self) -> None:
        """Says that nobody reads any more."""
        self.has_reader = False
        self._to_read.clear()

    def _receive(self) -> None:
        with self._lock:
            events, self._handed_out = self._handed_out, []
        last = events[-1]
        if isinstance(last, End):
            self._end(last)
        if self.has_reader:
            self._to_read.extend(events)
            self._readable.set()

    def _end(self, end: End | None) -> None:
        for timer in self._timers:
            timer.cancel()
        self._on_end(self, end)
        self.ended.set_result(end)
