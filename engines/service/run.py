"""One run of a request in this engine, from its arrival to the moment the blocks of all its choices are free."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from engines.model import Cause, End, Event, FinishReason, Progress, Release, Work
from engines.service.outcome import Outcome
from engines.service.output import Output
from engines.service.served import Steps
from engines.service.wakeups import Wakeups
from roundhouse.v1 import generation_pb2

T = TypeVar("T")


class Run:
    """Takes what the step loop hands out, keeps it for the one reader, and learns of the end even if nobody reads.

    Belongs to the event loop, but for `sink`. What a reader has not taken yet is kept, see `Output`; once it has left,
    nothing is.
    """

    def __init__(
        self,
        key: str,
        request_id: str,
        attempt: int,
        wakeups: Wakeups,
        on_end: Callable[[Run, Outcome | None], None],
        *,
        choice_count: int = 1,
    ) -> None:
        self.key = key
        self.request_id = request_id
        self.attempt = attempt
        self.choice_count = choice_count
        self.prompt_token_count = 0
        self.before_submit_s = 0.0  # from arrival to submission, in which the prompt is tokenized
        self.cancel_lead_s = 0.0  # from a cancel that came before submission to submission
        self._loop = asyncio.get_running_loop()
        self.arrival_s = self._loop.time()  # on the clock of the step loop
        self.ended: asyncio.Future[Outcome | None] = self._loop.create_future()  # None: it never started
        self._wakeups = wakeups
        self._on_end = on_end
        self._lock = threading.Lock()
        self._handed_out: list[Event] = []  # by the text threads; guarded by the lock
        self._ends: list[End] = []
        self._fault: Exception | None = None  # what went wrong with telling
        self._output: Output | None = None
        self._readable = asyncio.Event()
        self._steps: Steps | None = None
        self._early_cause: Cause | None = None  # of a cancel that came before the choices were submitted
        self._early_cancel_s = 0.0
        self._is_cancelled_early = asyncio.Event()
        self._timers: list[asyncio.TimerHandle] = []

    @property
    def has_reader(self) -> bool:
        """Tells whether somebody reads."""
        return self._output is not None

    def start(self, steps: Steps, works: Sequence[Work], output: Output) -> None:
        """Submits the choices, unless a cancel came before: then they have ended. Raises what `submit` raises."""
        assert len(works) == self.choice_count
        self.prompt_token_count = len(works[0].prompt)
        self.before_submit_s = self.age_s()
        self._output = output
        if self._early_cause is None:
            steps.submit(works, self.sink)
            self._steps = steps
        else:
            self.cancel_lead_s = self.age_s() - self._early_cancel_s
            self._end_unsubmitted(works, steps.progress(), self._early_cause)

    def refuse(self) -> None:
        """Ends a run that never started."""
        self._end(None)

    def cancel(self, cause: Cause) -> None:
        """Has all choices leave the batch. The first cancel counts; after the end it is nothing."""
        if self._steps is not None:
            self._steps.cancel(self.key, cause)
        elif self._early_cause is None:
            self._early_cause, self._early_cancel_s = cause, self.age_s()
            self._is_cancelled_early.set()

    async def unless_cancelled(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Returns what `work` returns, before the start; None, and `work` is cancelled, if a cancel comes first."""
        working = asyncio.create_task(work, name="prepare")
        cancelled = asyncio.create_task(self._is_cancelled_early.wait(), name="cancelled")
        try:
            await asyncio.wait([working, cancelled], return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            working.cancel()
            cancelled.cancel()

    def cancel_in(self, delay_s: float, cause: Cause) -> None:
        """Cancels after a time, unless it has ended by then."""
        if not self.ended.done():
            self._timers.append(self._loop.call_later(delay_s, self.cancel, cause))

    def age_s(self) -> float:
        """Returns the time since the request arrived."""
        return self._loop.time() - self.arrival_s

    def sink(self, event: Event) -> None:
        """Takes an event over. Called on the text threads."""
        with self._lock:
            self._handed_out.append(event)
            if len(self._handed_out) > 1:
                return  # the event loop is behind; the wake-up under way takes this one along
        self._wakeups.ring(self._receive)

    async def read(self) -> list[generation_pb2.GenerationEvent]:
        """Waits for what comes next, as much as fits a message; nothing once all has been read."""
        while self._output is not None:
            events = self._output.take()
            if events or self.ended.done():
                return events
            self._readable.clear()
            await self._readable.wait()
        raise RuntimeError("the output cannot be told") from self._fault

    def leave(self) -> None:
        """Says that nobody reads any more."""
        self._output = None

    def _end_unsubmitted(self, works: Sequence[Work], progress: Progress, cause: Cause) -> None:
        """Ends choices that have held no block, so that none is freed."""
        free = progress.free_blocks
        release = Release(free, free, progress.total_blocks, steps_after=0, cancel_to_release_s=0.0)
        for work in works:
            self.sink(End(FinishReason.CANCELLED, len(work.output), release, cause=cause, choice=work.choice))

    def _receive(self) -> None:
        with self._lock:
            events, self._handed_out = self._handed_out, []
        for event in events:
            self._tell(event)
            if isinstance(event, End):
                self._ends.append(event)
                if event.reason is FinishReason.FAILED:
                    self.cancel(Cause.SIBLING)  # what the others give would be told to nobody
        if len(self._ends) == self.choice_count:
            self._end(Outcome(tuple(self._ends)))
        self._readable.set()

    def _tell(self, event: Event) -> None:
        if self._output is None:
            return
        try:
            self._output.put(event)
        except Exception as error:  # noqa: BLE001 - the reader is told, and the end must be seen
            self._fault, self._output = error, None
            self.cancel(Cause.SIBLING)

    def _end(self, outcome: Outcome | None) -> None:
        for timer in self._timers:
            timer.cancel()
        if outcome is not None and self._output is not None:
            self._output.finish(outcome, before_submit_s=self.before_submit_s, total_s=self.age_s())
        self._on_end(self, outcome)
        self.ended.set_result(outcome)
