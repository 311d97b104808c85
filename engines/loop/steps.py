"""The step loop: take in, apply cancels, schedule, compute, commit, hand out.

Knows no tensor and no wire. Whatever goes wrong with one request ends that request and no other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping

from engines.batching.batch import Batch, Draw
from engines.batching.scheduler import Scheduler
from engines.batching.sequence import Sequence
from engines.loop.inbox import Arrival, Cancel, Inbox
from engines.loop.interfaces import Runner, Transcript
from engines.loop.live import Ending, Live
from engines.loop.meter import Meter
from engines.model import Cause, FinishReason, Progress, Sink, Work
from roundhouse.kit.clock import Clock, SystemClock


def _ignore(_: BaseException) -> None:
    """Tells nobody."""


class StepLoop:
    """Runs requests on a thread of its own, and hands their events to their sinks there.

    A cancel is honoured before the next step is scheduled: the sequence leaves the batch, its blocks are free, and then
    its `End` is handed out. One that comes while a step runs wins over the token that this step gives.
    """

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        transcript: Callable[[tuple[str, ...]], Transcript],
        *,
        batch_interval_s: float = 0.0,
        max_waiting: int = 1024,
        clock: Clock | None = None,
        on_fault: Callable[[BaseException], None] = _ignore,
    ) -> None:
        """`transcript` opens one for the given stop texts.

        batch_interval_s: how long an idle loop gathers requests before its first step.
        max_waiting: the most requests that wait to join; one more is refused.
        on_fault: told, on the step thread, of an error that no request can be told of: a sink that raised at an end, or
        what ended the loop (then `fault` is set, and the process should exit).
        """
        self._runner = runner
        self._scheduler = scheduler
        self._transcript = transcript
        self._batch_interval_s = batch_interval_s
        self._clock = clock or SystemClock()
        self._on_fault = on_fault
        self._inbox = Inbox(max_waiting)
        self._meter = Meter()
        self._live: dict[str, Live] = {}
        self._fault: BaseException | None = None
        # A daemon, because a forward that hangs must not keep the process from exiting.
        self._thread = threading.Thread(target=self._run, name="steps", daemon=True)

    @property
    def fault(self) -> BaseException | None:
        """What ended the loop, always an error of ours; None while all is well."""
        return self._fault

    def start(self) -> None:
        """Starts the step thread."""
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> bool:
        """Ends what lives, as cancelled (DELETED), after the step that runs. Returns whether the thread has ended."""
        self._inbox.close()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def submit(self, work: Work, sink: Sink) -> None:
        """Takes a request from any thread; its events go to `sink`, `End` last. Raises QueueFull, Stopped."""
        sequence = Sequence(work)
        assert self._scheduler.can_hold(sequence), f'"{work.key}" is longer than the cache'
        self._inbox.put(Arrival(sequence, sink, self._clock.monotonic()))

    def cancel(self, key: str, cause: Cause) -> None:
        """Ends a request from any thread. The first cause counts; an unknown or ended key is nothing."""
        self._inbox.cancel(key, Cancel(cause, self._clock.monotonic()))

    def progress(self) -> Progress:
        """Returns what the loop is doing. From any thread; never waits for a step."""
        now_s = self._clock.monotonic()
        return Progress(
            running_count=self._scheduler.running_count,
            waiting_count=self._inbox.waiting_count,
            free_blocks=self._scheduler.pool.free_count,
            total_blocks=self._scheduler.pool.total,
            step_count=self._meter.step_count,
            last_step_age_s=self._meter.last_step_age_s(now_s),
            busy_fraction=self._meter.busy_fraction(now_s),
            output_token_count=self._meter.token_count,
        )

    # All that follows runs on the step thread.

    def _run(self) -> None:
        try:
            while not self._inbox.is_closed:
                if not self._scheduler.has_work:
                    self._inbox.wait(gather_s=self._batch_interval_s, enough=self._scheduler.max_running)
                self._turn()
        except BaseException as error:  # noqa: BLE001 - everybody is told
            self._fault = error
            self._on_fault(error)
        self._inbox.close()
        self._end_all()

    def _turn(self) -> None:
        arrivals, cancels = self._inbox.take()
        for arrival in arrivals:
            self._take_in(arrival)
        self._apply(cancels)
        batch = self._scheduler.next_batch()
        self._inbox.settle(self._scheduler.waiting_count)
        if batch.rows:
            self._step(batch)

    def _take_in(self, arrival: Arrival) -> None:
        live = self._live[arrival.key] = Live(arrival)
        self._scheduler.add(live.sequence)
        try:
            live.transcript = self._transcript(arrival.sequence.work.stop)
        except Exception as error:  # noqa: BLE001 - the request is told
            self._end(live, Ending(FinishReason.FAILED, error=error))

    def _apply(self, cancels: Mapping[str, Cancel], computed: Collection[str] = ()) -> None:
        for key, cancel in cancels.items():
            if key in self._live:  # else it failed when it was taken in
                self._end(self._live[key], Ending(FinishReason.CANCELLED, cancel, steps_after=int(key in computed)))

    def _step(self, batch: Batch) -> None:
        lives = [self._live[row.sequence.work.key] for row in batch.rows]
        begin_s = self._clock.monotonic()
        for live in lives:
            live.joined_s = begin_s if live.joined_s is None else live.joined_s
        self._meter.begin(begin_s)
        try:
            outcomes = self._compute(batch)
        except Exception as error:  # noqa: BLE001 - the requests are told
            outcomes = [error] * len(lives)
        finally:
            self._meter.end(self._clock.monotonic())
        self._apply(self._inbox.take_cancels(), computed={live.key for live in lives})
        for live, row, outcome in zip(lives, batch.rows, outcomes, strict=True):
            if live.key in self._live:  # else it was cancelled just now, and what this step gave for it is dropped
                self._commit(live, len(row.ids), outcome)

    def _compute(self, batch: Batch) -> list[int | Exception | None]:
        """Returns for each row its token, what went wrong with it, or None if more of its prompt is to come."""
        logits = self._runner.forward(batch)
        sampled = [row.sequence for row in batch.rows if row.needs_logits]
        draws = [Draw(sequence.work.sampling, sequence.output_count) for sequence in sampled]
        tokens = self._runner.sample(logits, draws) if draws else ()
        outcomes = dict(zip(sampled, tokens, strict=True))
        return [outcomes.get(row.sequence) for row in batch.rows]

    def _commit(self, live: Live, computed_count: int, outcome: int | Exception | None) -> None:
        if isinstance(outcome, Exception):
            self._end(live, Ending(FinishReason.FAILED, error=outcome))
            return
        live.sequence.advance(computed_count)
        if outcome is None:
            return
        try:
            tokens, ending = live.accept(outcome, self._clock.monotonic())
            self._meter.count_tokens(1)
            live.sink(tokens)
        except Exception as error:  # noqa: BLE001 - the request is told
            ending = Ending(FinishReason.FAILED, error=error)
        if ending is not None:
            self._end(live, ending)

    def _end(self, live: Live, ending: Ending) -> None:
        freed = self._scheduler.remove(live.sequence)
        end = live.end(ending, freed, self._scheduler.pool.total, self._clock.monotonic())
        del self._live[live.key]
        self._inbox.forget(live.key)
        try:
            live.sink(end)
        except Exception as error:  # noqa: BLE001 - somebody is told
            self._on_fault(error)

    def _end_all(self) -> None:
        arrivals, cancels = self._inbox.take()
        for arrival in arrivals:
            self._take_in(arrival)
        self._apply(cancels)
        stopped = Cancel(Cause.DELETED, self._clock.monotonic())
        for live in list(self._live.values()):
            if self._fault is None:
                self._end(live, Ending(FinishReason.CANCELLED, stopped))
            else:
                self._end(live, Ending(FinishReason.FAILED, error=self._fault))
        self._inbox.settle(0)
