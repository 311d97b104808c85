"""Who lives, and how they come and go."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from engines.batching.scheduler import Freed, Scheduler
from engines.batching.sequence import Sequence
from engines.loop.crew import Crew, Line, Task
from engines.loop.endings import Ending
from engines.loop.inbox import Inbox
from engines.loop.live import Live
from engines.loop.masks import Masks
from engines.model import FinishReason
from roundhouse.kit.clock import Clock


class Lives:
    """Belongs to the step thread."""

    def __init__(
        self,
        scheduler: Scheduler,
        inbox: Inbox,
        texts: Crew,
        masks: Masks,
        clock: Clock,
        forget: Callable[[Live], None],
    ) -> None:
        """`forget` is called for each that ends."""
        self.of: dict[Sequence, Live] = {}
        self.joined: set[str] = set()  # keys of requests of which a sequence has been in the batch; read by others
        self.ended_count = 0
        self._scheduler = scheduler
        self._inbox = inbox
        self._texts = texts
        self._masks = masks
        self._clock = clock
        self._forget = forget
        self._requests: dict[str, list[Live]] = {}  # those of its choices that live
        self._told: list[Line] = []
        self._rereading_count = 0

    @property
    def are_none(self) -> bool:
        """Tells whether nobody lives."""
        return not self.of

    @property
    def waiting_count(self) -> int:
        """Sequences that have not joined the batch."""
        return self._scheduler.waiting_count + self._rereading_count

    def take_in(self) -> None:
        """Lets the requests that came since the last time live."""
        arrivals, reread = self._inbox.take()
        for lives in arrivals:
            self._requests[lives[0].key] = list(lives)
            for live in lives:
                self._begin(live)
        for live in reread:
            if not live.is_over:
                self._rereading_count -= 1
                self._queue(live)

    def apply_cancels(self) -> None:
        """Ends all that is to end. From here on no step computes it, and its blocks are free."""
        leaving = self._inbox.take_leaving()
        for live, ending in leaving.found:  # first: what a text ended was complete before its cancel came
            self.end(live, ending)
        for key, cancel in leaving.cancels.items():
            for live in tuple(self._requests.get(key, ())):  # none if it failed when it was taken in
                self.end(live, Ending(FinishReason.CANCELLED, cancel))

    def end(self, live: Live, ending: Ending) -> None:
        """Ends one. Its blocks are free before anybody is told."""
        if live.is_over:
            return
        live.is_over = True
        self.ended_count += 1
        sequence = live.sequence
        steps_after = sequence.in_flight_count - live.is_late
        free_count = self._scheduler.pool.free_count
        freed = self._scheduler.remove(sequence) if live.is_queued else Freed(free_count, free_count)
        self._rereading_count -= live.is_rereading
        self._forget(live)
        del self.of[sequence]
        choices = self._requests[live.key]
        choices.remove(live)
        if not choices:
            del self._requests[live.key]
            self.joined.discard(live.key)
            self._inbox.forget(live.key)
        end = live.end(ending, freed, self._scheduler.pool.total, steps_after, self._clock.monotonic())
        self.tell(live, partial(live.scribe.end, end))
        del live.scribe  # it knows the sequence: without this, both would stay until the garbage collector comes

    def tell(self, live: Live, task: Task) -> None:
        """Has the text thread do something for one, after all that it was told before."""
        live.text.add(task)
        self._told.append(live.text)

    def hand_out(self) -> None:
        """Lets the text thread begin with what it was told since the last time."""
        if self._told:
            self._texts.hand_over(self._told)
            self._told = []
        self._texts.nudge()

    def now_ms(self) -> int:
        """Returns the time as the scheduler has it."""
        return int(self._clock.monotonic() * 1000)

    def end_all(self, ending: Ending) -> None:
        """Ends whoever lives."""
        for live in tuple(self.of.values()):
            self.end(live, ending)

    def _begin(self, live: Live) -> None:
        self.of[live.sequence] = live
        ending = live.given_ending()
        may_have_stopped = bool(live.work.output and live.work.stop)
        if may_have_stopped and (ending is None or ending.reason is FinishReason.LENGTH):
            self.tell(live, live.scribe.reread)
        if ending is not None:
            self.end(live, ending)
        elif may_have_stopped:
            live.is_rereading = True
            self._rereading_count += 1
        else:
            self._queue(live)

    def _queue(self, live: Live) -> None:
        live.is_queued, live.is_rereading = True, False
        self._scheduler.add(live.sequence, self.now_ms())
        if live.constraint is not None:
            self._masks.ask(live, live.work.output)
