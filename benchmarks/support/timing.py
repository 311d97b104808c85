"""A runner that notes what its steps take, put between the step loop and a real one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from engines.batching.batch import Ask, Batch
from engines.loop.interfaces import Answers, Runner
from engines.model import Logprobs, Sampled


@dataclass(frozen=True, slots=True)
class Step:
    """One step, from the begin of its forward pass to the begin of the next one's. Times are of the step thread."""

    row_count: int
    begin_s: float  # by `time.perf_counter`
    wall_s: float
    cpu_s: float  # of the thread: where it computes alone, what it waits for others is not in it
    runner_cpu_s: float  # of that, in the runner: the forward pass, and the sampling


class TimedRunner:
    """The step loop's `Runner`."""

    def __init__(self, runner: Runner) -> None:
        self.steps: list[Step] = []
        self._runner = runner
        self._row_count = 0
        self._begin = (0.0, 0.0)  # wall, thread
        self._runner_cpu_s = 0.0

    @property
    def depth(self) -> int:
        """See `Runner`."""
        return self._runner.depth

    def forward(self, batch: Batch) -> object:
        """See `Runner`."""
        now = (time.perf_counter(), time.thread_time())
        if self._row_count:
            wall_s, cpu_s = (later - earlier for earlier, later in zip(self._begin, now, strict=True))
            self.steps.append(Step(self._row_count, self._begin[0], wall_s, cpu_s, self._runner_cpu_s))
        self._row_count, self._begin, self._runner_cpu_s = len(batch.rows), now, 0.0
        logits = self._runner.forward(batch)
        self._note(now[1])
        return logits

    def pick(self, logits: object, places: Sequence[int]) -> object:
        """See `Runner`."""
        return self._runner.pick(logits, places)

    def sample(self, logits: object, asks: Sequence[Ask | None]) -> Answers:
        """See `Runner`."""
        begin_s = time.thread_time()
        answers = self._runner.sample(logits, asks)
        self._note(begin_s)
        return _TimedAnswers(answers, self)

    def waited(self, answers: Answers) -> Sequence[Sampled | Logprobs | Exception]:
        """Waits for answers, and notes how long."""
        begin_s = time.thread_time()
        found = answers.wait()
        self._note(begin_s)
        return found

    def _note(self, begin_s: float) -> None:
        self._runner_cpu_s += time.thread_time() - begin_s


class _TimedAnswers:
    """The `Answers` of a `TimedRunner`."""

    def __init__(self, answers: Answers, runner: TimedRunner) -> None:
        self._answers = answers
        self._runner = runner

    def wait(self) -> Sequence[Sampled | Logprobs | Exception]:
        """See `Answers`."""
        return self._runner.waited(self._answers)
