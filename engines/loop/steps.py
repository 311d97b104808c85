"""One step after the other: take in, apply cancels, schedule, compute, sample, commit, hand out.

Knows no tensor and no wire. Whatever goes wrong with one request ends that request and no other.
"""

from __future__ import annotations

from collections.abc import Sequence

from engines.batching.scheduler import Scheduler
from engines.loop.answers import Answer
from engines.loop.commits import Commits
from engines.loop.compute import Computer, Step
from engines.loop.crew import Crew
from engines.loop.drafts import Drafts
from engines.loop.endings import Ending
from engines.loop.inbox import Inbox
from engines.loop.interfaces import Runner
from engines.loop.live import Live
from engines.loop.lives import Lives
from engines.loop.masks import Masks
from engines.loop.meter import Meter
from engines.loop.probe import Probe
from engines.loop.recovery import Recovery
from roundhouse.kit.clock import Clock

_NUDGE_S = 0.02  # how long a thread without steps leaves an output behind another one that holds up its crew


class Steps:
    """Belongs to the step thread."""

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        inbox: Inbox,
        texts: Crew,
        meter: Meter,
        drafts: Drafts,
        clock: Clock,
    ) -> None:
        self._overlaps = runner.depth > 0
        self._scheduler = scheduler
        self._inbox = inbox
        self._texts = texts
        self._meter = meter
        self._drafts = drafts
        self._clock = clock
        self._masks = Masks(on_mask=inbox.wake)
        self._lives = Lives(scheduler, inbox, texts, self._masks, clock, forget=drafts.forget)
        self._computer = Computer(runner, self._lives, self._masks, meter, clock)
        self._commits = Commits(scheduler, self._lives, self._masks, meter, clock)
        probe = Probe(runner, scheduler.pool, meter, clock)
        self._recovery = Recovery(self._computer, scheduler, self._lives, self._commits, probe)
        self._under_way = Step()  # the step before, where steps overlap
        self._is_stuck = False  # all that lived when the last step was scheduled wait for something else than a step
        self._ended_count = 0  # then

    @property
    def shrink_count(self) -> int:
        """Steps that found too little memory."""
        return self._recovery.budget.shrink_count

    def has_joined(self, key: str) -> bool:
        """Tells whether a sequence of this key lives that has been in the batch. From any thread."""
        return key in self._lives.joined

    def turn(self) -> None:
        """Goes once around.

        A cancel takes effect where `apply_cancels` stands: here, before the step is scheduled, and in `_commit`, before
        what the step gave is. Then the sequence has left the batch, its blocks are free, and no more of it is told.
        """
        self._lives.take_in()
        self._lives.apply_cancels()
        step, before = self._schedule(), self._under_way
        self._lives.hand_out()  # whoever was cancelled need not wait for this step
        self._computer.forward(step)
        if self._overlaps:
            self._commit(before, behind=step)  # while this step is computed
            self._sample(step)
            self._under_way = step
        else:
            self._sample(step)
            self._commit(step)
        self._inbox.settle(self._lives.waiting_count)  # before anybody is told of an end, and asks for more
        self._lives.hand_out()

    def rest(self, gather_s: float) -> None:
        """Waits until there is something to do. If nobody lives, gathers requests for so long."""
        is_behind = self._texts.is_behind or self._masks.is_behind
        timeout_s = _NUDGE_S if is_behind else None
        if self._lives.are_none and self._under_way.is_empty:
            self._inbox.wait(timeout_s=timeout_s, gather_s=gather_s, enough=self._scheduler.max_running)
        elif self._is_stuck and self._lives.ended_count == self._ended_count:
            self._inbox.wait(timeout_s=timeout_s)

    def end_all(self, ending: Ending) -> None:
        """Ends whoever lives, and tells them."""
        self._lives.take_in()
        self._lives.apply_cancels()
        self._lives.end_all(ending)
        self._lives.hand_out()
        self._inbox.settle(0)
        self._masks.close()

    def _schedule(self) -> Step:
        if self._recovery.budget.is_full:
            self._drafts.propose(self._commits.speakers)
        batch = self._scheduler.next_batch(self._lives.now_ms())
        self._inbox.settle(self._lives.waiting_count)
        self._masks.hand_out()
        self._is_stuck, self._ended_count = not batch.rows and self._under_way.is_empty, self._lives.ended_count
        lives = [self._lives.of[row.sequence] for row in batch.rows]
        for live in lives:
            if live.joined_s is None:
                self._join(live)
        return Step(batch.rows, lives)

    def _join(self, live: Live) -> None:
        live.joined_s = self._clock.monotonic()
        self._lives.joined.add(live.key)
        self._meter.prompt_token_count += live.prompt_count
        self._meter.cached_token_count += live.sequence.cached_token_count

    def _sample(self, step: Step) -> None:
        self._computer.sample_late(step)
        if step.late:
            self._is_stuck = False
        try:
            self._computer.sample(step)
        except Exception as error:  # noqa: BLE001 - the requests are told, in the end
            self._recovery.recover(step, error)

    def _commit(self, step: Step, behind: Step | None = None) -> None:
        late = self._computer.wait_late(step)
        answers: Sequence[Answer] | Exception
        try:
            answers = self._computer.wait(step)
        except Exception as error:  # noqa: BLE001 - the requests are told, in the end
            answers = error
        self._lives.apply_cancels()
        self._commits.take_late(late)
        if isinstance(answers, Exception):
            self._recovery.recover(step, answers, behind)
        else:
            self._commits.take(step, answers)
            self._recovery.has_passed(step)
