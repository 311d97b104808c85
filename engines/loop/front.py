"""The step loop as other threads see it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

from engines.batching.scheduler import Scheduler
from engines.loop.crew import Crew
from engines.loop.drafts import Drafts
from engines.loop.endings import Cancel, Ending, failed
from engines.loop.inbox import Inbox
from engines.loop.interfaces import Proposer, Runner, Transcript
from engines.loop.live import Live
from engines.loop.meter import Meter
from engines.loop.scribe import Desk, Scribe
from engines.loop.steps import Steps
from engines.model import Cause, FinishReason, Progress, Sink, Work
from roundhouse.kit.clock import Clock, SystemClock

_TEXT_THREADS = 4  # one writes; the others are there for when it is held up
DRAFT_COUNT = 4  # tokens; more are wrong too often to be worth their place in a step


def _ignore(_: BaseException) -> None:
    """Tells nobody."""


class StepLoop:
    """Runs requests on a thread of its own, and hands their events to their sinks on another one.

    A cancel is honoured before the next step is scheduled: the sequence leaves the batch, its blocks are free, and then
    its `End` is handed out. One that comes while a step runs wins over what this step gives.
    """

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        transcript: Callable[[tuple[str, ...]], Transcript],
        *,
        batch_interval_s: float = 0.0,
        max_waiting: int = 1024,
        proposer: Proposer | None = None,
        draft_count: int = DRAFT_COUNT,
        clock: Clock | None = None,
        on_fault: Callable[[BaseException], None] = _ignore,
    ) -> None:
        """`transcript` opens one for the given stop texts.

        batch_interval_s: how long an idle loop gathers requests before its first step.
        max_waiting: the most sequences that wait to join; what would come to more is refused.
        proposer: guesses up to `draft_count` tokens ahead; for runners of depth 0.
        on_fault: told, on a thread of the loop, of an error that no request can be told of: a sink that raised at an
        end, a proposer that failed, or what ended the loop (then `fault` is set, and the process should exit).
        """
        assert proposer is None or runner.depth == 0, "guesses and overlapping steps exclude each other"
        self._scheduler = scheduler
        self._transcript = transcript
        self._batch_interval_s = batch_interval_s
        self._clock = clock or SystemClock()
        self._on_fault = on_fault
        self._inbox = Inbox(max_waiting)
        self._meter = Meter()
        self._texts = Crew("text", _TEXT_THREADS)
        drafts = Drafts(proposer, draft_count, on_fault)
        self._steps = Steps(runner, scheduler, self._inbox, self._texts, self._meter, drafts, self._clock)
        self._fault: BaseException | None = None
        # A daemon, because a forward that hangs must not keep the process from exiting.
        self._thread = threading.Thread(target=self._run, name="steps", daemon=True)

    @property
    def fault(self) -> BaseException | None:
        """What ended the loop, always an error of ours; None while all is well."""
        return self._fault

    def start(self) -> None:
        """Starts the threads."""
        self._texts.start()
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> bool:
        """Ends what lives, as cancelled (DELETED), after the step that runs. Returns whether the threads have ended."""
        self._inbox.close()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def submit(self, works: Sequence[Work], sink: Sink) -> None:
        """Takes a request from any thread: sequences of one key that differ in their choice.

        Their events go to `sink`, those of each choice in order, its `End` last. Raises QueueFull, Stopped.
        """
        assert len({(work.key, work.choice) for work in works}) == len(works)
        assert len({work.key for work in works}) == 1
        now_s = self._clock.monotonic()
        lives = [self._live(work, sink, now_s) for work in works]
        for live in lives:
            assert self._scheduler.can_hold(live.sequence), f'"{live.key}" is longer than the cache'
        self._inbox.put(lives)

    def cancel(self, key: str, cause: Cause) -> None:
        """Ends all choices of a request from any thread. The first cause counts; an unknown or ended key is nothing."""
        self._inbox.cancel(key, Cancel(cause, self._clock.monotonic()))

    def has_joined(self, key: str) -> bool:
        """Tells whether a sequence of this key lives that has been in the batch. From any thread."""
        return self._steps.has_joined(key)

    def progress(self) -> Progress:
        """Returns what the loop is doing. From any thread; never waits for a step."""
        now_s, meter = self._clock.monotonic(), self._meter
        return Progress(
            running_count=self._scheduler.running_count,
            waiting_count=self._inbox.waiting_count,
            free_blocks=self._scheduler.pool.free_count,
            total_blocks=self._scheduler.pool.total,
            step_count=meter.step_count,
            last_step_age_s=meter.last_step_age_s(now_s),
            busy_fraction=meter.busy_fraction(now_s),
            output_token_count=meter.token_count,
            preemption_count=self._scheduler.preemption_count,
            out_of_memory_count=self._steps.shrink_count,
            prompt_token_count=meter.prompt_token_count,
            cached_token_count=meter.cached_token_count,
            drafted_token_count=meter.drafted_count,
            accepted_token_count=meter.accepted_count,
            max_running_count=self._scheduler.max_running,
        )

    def _live(self, work: Work, sink: Sink, now_s: float) -> Live:
        live = Live(work, now_s)
        desk = Desk(
            self._transcript,
            on_end=partial(self._inbox.found, live),
            on_reread=partial(self._inbox.opened, live),
            on_fault=self._on_fault,
        )
        live.scribe = Scribe(work, sink, desk)
        return live

    def _run(self) -> None:
        try:
            while not self._inbox.is_closed:
                self._steps.rest(self._batch_interval_s)
                self._steps.turn()
        except BaseException as error:  # noqa: BLE001 - everybody is told
            self._fault = error
        self._inbox.close()
        try:
            if self._fault is not None:
                self._on_fault(self._fault)
        finally:
            self._end()

    def _end(self) -> None:
        try:
            self._steps.end_all(self._last_ending())
        finally:
            self._texts.close()
            self._texts.join()

    def _last_ending(self) -> Ending:
        if self._fault is not None:
            return failed(self._fault)
        return Ending(FinishReason.CANCELLED, Cancel(Cause.DELETED, self._clock.monotonic()))
