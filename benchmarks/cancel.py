"""Measures how long a cancel takes until the blocks are free, in steps, under load.

`python -m benchmarks.cancel`. Keeps as many requests running as fit in a batch; cancels one of them after the other, at
no special time of a step, and puts another one in its place. Aim: 99 of 100 are free within one step.
"""

from __future__ import annotations

import argparse
import os
import queue
import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.support import machine
from benchmarks.support.engine import GREEDY, Engine
from benchmarks.support.metrics import percentile
from benchmarks.support.models import CONTEXT, MODELS, made
from benchmarks.support.paths import MODELS_DIRECTORY, RESULTS_DIRECTORY, ROOT, result_path
from benchmarks.support.records import Records
from benchmarks.support.threads import begin_with_threads
from benchmarks.support.timing import TimedRunner
from benchmarks.support.wire import Setup
from engines.demo_model import MODEL_DIR
from engines.loop import Runner
from engines.model import Cause, End, Event, Tokens, Work

BATCH_SIZE = 32
PROMPT_COUNT = 64
CANCELS, QUICK_CANCELS = 500, 100
KV_CACHE_BYTES = 1280 << 20
LONGEST_S = 60.0  # without what must come


@dataclass(frozen=True, slots=True)
class Cancelled:
    """One cancel."""

    until_end_s: float  # from the call to the `End`, which comes when the blocks are free
    until_free_s: float  # as the `End` says
    steps_after: int  # that still computed it


class Load:
    """Requests that go on until they are cancelled."""

    def __init__(self, engine: Engine, source: random.Random) -> None:
        self._engine = engine
        self._source = source
        self._count = 0
        self._running: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ends: queue.SimpleQueue[tuple[float, End]] = queue.SimpleQueue()

    def add(self) -> None:
        """Adds a request, and waits for its first token."""
        self._count += 1
        name = str(self._count)
        prompt = tuple(self._source.randrange(self._engine.loaded.vocabulary_size) for _ in range(PROMPT_COUNT))
        started = threading.Event()

        def sink(event: Event) -> None:
            if isinstance(event, Tokens):
                started.set()
            elif isinstance(event, End):
                self._ends.put((time.perf_counter(), event))

        self._engine.steps.submit([Work(name, prompt, CONTEXT - PROMPT_COUNT, GREEDY)], sink)
        assert started.wait(LONGEST_S), "no token came"
        self._running.put(name)

    def cancel(self) -> Cancelled:
        """Cancels the oldest request."""
        name, begin_s = self._running.get_nowait(), time.perf_counter()
        self._engine.steps.cancel(name, Cause.CLIENT)
        end_s, end = self._ends.get(timeout=LONGEST_S)
        release = end.release
        return Cancelled(end_s - begin_s, release.cancel_to_release_s, release.steps_after)


def measure(setup: Setup, cancels: int, seed: int) -> tuple[list[Cancelled], float, int]:
    """Returns what cancels took, what a step took in the middle, and how many blocks were not free at the end."""
    timed: list[TimedRunner] = []

    def wrap(runner: Runner) -> Runner:
        timed.append(TimedRunner(runner))
        return timed[0]

    engine = Engine(setup, wrap)
    load = Load(engine, random.Random(seed))
    for _ in range(BATCH_SIZE):
        load.add()
    first, found = len(timed[0].steps), []
    for number in range(cancels):
        threading.Event().wait(_pause_s(number, seed))
        found.append(load.cancel())
        load.add()
    step_s = percentile([step.wall_s for step in timed[0].steps[first:]], 50)
    engine.steps.stop()
    return found, step_s, engine.pool.total - engine.pool.free_count


def _pause_s(number: int, seed: int) -> float:
    """Returns how long to wait before a cancel, so that it comes at no special time of a step."""
    return random.Random(f"{seed} {number}").uniform(0.0, 0.02)


def main(arguments: list[str] | None = None) -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cancel", description=__doc__)
    parser.add_argument("--models", default="demo,llama-25m-bfloat16", metavar="A,B", help=", ".join(MODELS))
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_CANCELS} cancels for each model")
    parser.add_argument("--cancels", type=int, default=0, help=f"for each model; {CANCELS} if 0")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS_DIRECTORY, help="directory of the results")
    asked = parser.parse_args(arguments)
    cancels = asked.cancels or (QUICK_CANCELS if asked.quick else CANCELS)
    cores = sorted(os.sched_getaffinity(0))
    begin_with_threads(len(cores))
    records = Records(result_path(asked.results, "cancel"))
    records.add("run", **machine.described(ROOT, cores), seed=asked.seed)
    for name in asked.models.split(","):
        model = MODELS[name]
        directory = made(model, MODELS_DIRECTORY, MODEL_DIR)
        setup = Setup(str(directory), model.dtype, len(cores), cores, KV_CACHE_BYTES, BATCH_SIZE, CONTEXT)
        found, step_s, leaked = measure(setup, cancels, asked.seed)
        until_s = sorted(one.until_free_s for one in found)
        shares = {f"p{percent}_steps": percentile(until_s, percent) / step_s for percent in (50, 99, 100)}
        after = max(one.steps_after for one in found)
        records.add(
            "cancel",
            model=name,
            step_s=step_s,
            **shares,
            most_steps_after=after,
            blocks_not_free=leaked,
            cancels=[[one.until_end_s, one.until_free_s, one.steps_after] for one in found],
        )
        p50, p99 = shares["p50_steps"], shares["p99_steps"]
        print(f"{name}: a step takes {step_s * 1e3:.2f} ms; from cancel to free blocks {p50:.2f} steps, p99 {p99:.2f}")
        print(f"  steps that still computed it: at most {after}; blocks that are not free at the end: {leaked}")
    print(f"raw results: {records.path}")


if __name__ == "__main__":
    main()
