"""One run of a request in this engine, from its arrival to the moment the blocks of all its choices are free."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from engines.model import Cause, End, Event, FinishReason, Progress, Release, Work
from engines.service.arrival import Arrival
from engines.service.followers import ORPHAN_S, Follower, Followers
from engines.service.log import Log
from engines.service.outcome import Outcome
from engines.service.reader import Reader
from engines.service.served import Steps
from engines.service.wakeups import Wakeups
from roundhouse.kit.errors import RoundhouseError
from roundhouse.v1 import generation_pb2

T = TypeVar("T")


class Run:
    """Takes what the step loop hands out, keeps it for whoever reads it, and learns of the end even if nobody does.

    Belongs to the event loop, but for `sink`. What is kept of it, and for how long, `Log` and `Requests` say.
    """

    def __init__(
        self,
        arrival: Arrival,
        wakeups: Wakeups,
        on_end: Callable[[Run, Outcome | None], None],
        *,
        orphan_s: float = ORPHAN_S,
    ) -> None:
        self.arrival = arrival
        self.started = generation_pb2.Started()  # what its streams begin with, once it has started
        self.first_fingerprint = ""  # that of the run which it goes on with; see `hop.proto`, `Kept`
        self.bound_s: float | None = None  # after what time it has to end; see `end_within`
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
        self._log: Log | None = None
        self._readable = asyncio.Event()
        self._steps: Steps | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._is_settled = asyncio.Event()  # it has started, or never will
        self._refusal: Exception | None = None
        self.is_unwanted = False  # its client has cancelled it, whatever ends it
        self._early_cause: Cause | None = None  # of a cancel that came before the choices were submitted
        self._early_cancel_s = 0.0
        self._is_cancelled_early = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None  # of the bound
        ttl_s = arrival.ttl_s if arrival.detaches else None
        self.followers = Followers(self._forsake, orphan_s=orphan_s, ttl_s=ttl_s, goes_on=arrival.attempt > 1)

    @property
    def key(self) -> str:
        """Names it within the engine."""
        return self.arrival.key

    @property
    def choice_count(self) -> int:
        """How many sequences it has."""
        return self.arrival.choice_count

    @property
    def log(self) -> Log | None:
        """What it has given; None until it starts."""
        return self._log

    @property
    def refusal(self) -> Exception | None:
        """Why it never started, if somebody can be told."""
        return self._refusal

    @property
    def has_joined(self) -> bool:
        """Tells whether one of its sequences is or was in the batch."""
        return bool(self._ends) or (self._steps is not None and self._steps.has_joined(self.key))

    def prepare(self, work: Callable[[], Awaitable[None]]) -> None:
        """Has `work` do what is to be done before the start, and start it; what it raises, the followers are told."""
        self._preparing = asyncio.create_task(self._prepare(work), name="prepare")

    def start(self, steps: Steps, works: Sequence[Work], log: Log) -> None:
        """Submits the choices, unless a cancel came before: then they have ended. Raises what `submit` raises."""
        assert len(works) == self.choice_count
        self.before_submit_s = self.age_s()
        self._log = log
        if self._early_cause is None:
            steps.submit(works, self.sink)
            self._steps = steps
        else:
            self.cancel_lead_s = self.age_s() - self._early_cancel_s
            self._end_unsubmitted(works, steps.progress(), self._early_cause)
        self._is_settled.set()

    def refuse(self, refusal: Exception | None = None) -> None:
        """Ends a run that never started."""
        self._log, self._refusal = None, refusal
        self._end(None)
        self._is_settled.set()

    def cancel(self, cause: Cause) -> None:
        """Has all choices leave the batch. The first cancel counts; after the end it is nothing."""
        if self.ended.done():
            return  # its key may be that of another attempt by now
        self.is_unwanted = self.is_unwanted or cause is Cause.CLIENT
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

    def end_within(self, bounds_s: Collection[float]) -> None:
        """Cancels when the least of these times from its arrival is over, unless it has ended by then."""
        if bounds_s:
            self.bound_s = min(bounds_s)
            self._timer = self._loop.call_later(self.bound_s - self.age_s(), self.cancel, Cause.DEADLINE)

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

    def leave(self, follower: Follower, *, is_overdue: bool = False, in_vain: bool = False) -> None:
        """Says that a call that followed it has ended; see `Followers`."""
        self.followers.leave(follower, is_overdue=is_overdue, in_vain=in_vain)
        if self.ended.done():
            self.followers.close()

    async def open(self, after: Mapping[int, int] | None, *, repeats: bool = False) -> Reader:
        """Waits for the start, and opens a reader, who must be closed.

        after: how much of each choice is not wanted; as the call that began it, if None. repeats: whether it is another
        call that asks for all of the request, its prompt as well. Raises why it was refused, TooLong if what is wanted
        is not kept any more, RuntimeError if it cannot be told.
        """
        await self._is_settled.wait()
        if self._refusal is not None:
            raise self._refusal
        log = self._readable_log()
        if after is None:
            return log.read(log.first_positions(), wants_prompt=True)
        positions = [after.get(number, 0) for number in range(len(log.first_positions()))]
        return log.read(positions, wants_prompt=repeats or len(after) < len(positions))

    def close(self, reader: Reader) -> None:
        """Says that a reader reads no more."""
        if self._log is not None:
            self._log.close(reader)

    async def read(self, reader: Reader) -> list[generation_pb2.GenerationEvent]:
        """Waits for what comes next, as much as fits a message; nothing once all has been read."""
        while True:
            events = self._take(reader)
            if events or self.ended.done():
                return events
            self._readable.clear()
            await self._readable.wait()

    async def reach(self, reader: Reader) -> None:
        """Waits until it has come to where a reader begins, or has ended."""
        while not self.ended.done() and reader.is_ahead:
            self._readable.clear()
            await self._readable.wait()

    def _take(self, reader: Reader) -> list[generation_pb2.GenerationEvent]:
        if self._fault is not None:
            self._readable_log()
        try:
            return reader.take()
        except RoundhouseError:
            raise
        except Exception as error:
            self.cancel(Cause.SIBLING)
            raise RuntimeError("the output cannot be told") from error

    def _readable_log(self) -> Log:
        if self._fault is not None or self._log is None:
            raise RuntimeError("the output cannot be told") from self._fault
        return self._log

    async def _prepare(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except BaseException as error:
            if not self.ended.done():
                self.refuse(error if isinstance(error, Exception) else RuntimeError("the preparation was interrupted"))
            if not isinstance(error, Exception):
                raise
        finally:
            self._preparing = None

    def _forsake(self, cause: Cause) -> None:
        """Ends it since nobody follows it; one whose client has left before it began leaves nothing behind."""
        has_client_left = cause in (Cause.DISCONNECT, Cause.DEADLINE) and not self.arrival.detaches
        if self._preparing is not None and has_client_left:
            self._preparing.cancel()
            self.refuse()
        else:
            self.cancel(cause)

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
        if self._log is None or self._fault is not None:
            return
        try:
            self._log.put(event)
        except Exception as error:  # noqa: BLE001 - the readers are told, and the end must be seen
            self._fault = error
            self.cancel(Cause.SIBLING)

    def _end(self, outcome: Outcome | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.followers.close()
        if outcome is not None and self._log is not None and self._fault is None:
            self._log.finish(outcome, before_submit_s=self.before_submit_s, total_s=self.age_s())
        self._on_end(self, outcome)
        self.ended.set_result(outcome)
