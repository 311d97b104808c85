"""Measures how long a cancel takes until the blocks are free, in steps, under load.

`python -m benchmarks.cancel`. Keeps as many requests running as fit in a batch; cancels one of them after the other, at
no special time of a step, and puts another one in its place. Aim: 99 of 100 are free within one step.
"""

from __future__ import annotations

import argparse
import bisect
import os
import random
from collections.abc import Sequence
from pathlib import Path

from benchmarks.support import machine
from benchmarks.support.churn import Cancelled, Churn
from benchmarks.support.engine import Engine
from benchmarks.support.metrics import percentile
from benchmarks.support.models import CONTEXT, MODELS, made
from benchmarks.support.paths import MODELS_DIRECTORY, RESULTS_DIRECTORY, ROOT, result_path
from benchmarks.support.records import Records
from benchmarks.support.threads import begin_with_threads
from benchmarks.support.timing import Step, TimedRunner
from benchmarks.support.wire import Setup
from engines.demo_model import MODEL_DIR
from engines.loop import Runner

BATCH_SIZE = 32
CANCELS, QUICK_CANCELS = 500, 100
KV_CACHE_BYTES = 1280 << 20


def measure(setup: Setup, cancels: int, seed: int) -> tuple[Sequence[Cancelled], Sequence[Step], int]:
    """Returns what cancels took, the steps meanwhile, and how many blocks were not free at the end."""
    timed: list[TimedRunner] = []

    def wrap(runner: Runner) -> Runner:
        timed.append(TimedRunner(runner))
        return timed[0]

    engine = Engine(setup, wrap)
    churn = Churn(engine, random.Random(seed))
    for _ in range(BATCH_SIZE):
        churn.add()
    first = len(timed[0].steps)
    found = churn.run(cancels)
    engine.steps.stop()
    return found, timed[0].steps[first:], engine.pool.total - engine.pool.free_count


def _own_step_s(cancelled: Cancelled, steps: Sequence[Step]) -> float:
    """Returns what the step took in which a cancel came: it cannot be free before that ends."""
    place = bisect.bisect_right(steps, cancelled.at_s, key=lambda step: step.begin_s) - 1
    return steps[max(0, place)].wall_s


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
        found, steps, leaked = measure(setup, cancels, asked.seed)
        step_s = percentile([step.wall_s for step in steps], 50)
        own_s = [_own_step_s(one, steps) for one in found]
        until_s = sorted(one.until_free_s for one in found)
        shares = {f"p{percent}_steps": percentile(until_s, percent) / step_s for percent in (50, 99, 100)}
        of_own = [one.until_free_s / own for one, own in zip(found, own_s, strict=True)]
        shares["p99_own_steps"] = percentile(of_own, 99)
        shares["own_p99_steps"] = percentile(own_s, 99) / step_s
        after = max(one.steps_after for one in found)
        records.add(
            "cancel",
            model=name,
            step_s=step_s,
            **shares,
            most_steps_after=after,
            blocks_not_free=leaked,
            cancels=[
                [one.until_end_s, one.until_free_s, one.steps_after, own] for one, own in zip(found, own_s, strict=True)
            ],
        )
        p50, p99 = shares["p50_steps"], shares["p99_steps"]
        print(f"{name}: a step takes {step_s * 1e3:.2f} ms; from cancel to free blocks {p50:.2f} steps, p99 {p99:.2f}")
        print(
            f"  of the step that it came in: p99 {shares['p99_own_steps']:.2f}; such a step takes up to (p99) "
            f"{shares['own_p99_steps']:.2f} of those in the middle"
        )
        print(f"  steps that still computed it: at most {after}; blocks that are not free at the end: {leaked}")
    print(f"raw results: {records.path}")


if __name__ == "__main__":
    main()
