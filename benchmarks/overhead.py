"""Measures what of a step is scheduling and Python, at batch 64. Aim: less than 15 % of a step of 10 ms.

`python -m benchmarks.overhead`. Runs models that are hollow: as many layers as real ones have, but so small that to
compute them takes next to no time. What a step takes then is what it takes to decide, to call and to hand out, at most:
what C still does in hollow layers, which grows with their number, is counted in full. Times are CPU
time of the step thread, so that others on the machine count for little; torch has one thread.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.support import machine
from benchmarks.support.child import Clock
from benchmarks.support.engine import Engine
from benchmarks.support.loads import Closed, closed_requests
from benchmarks.support.metrics import percentile
from benchmarks.support.models import CONTEXT, Model, made
from benchmarks.support.paths import MODELS_DIRECTORY, RESULTS_DIRECTORY, ROOT, result_path
from benchmarks.support.records import Records
from benchmarks.support.threads import begin_with_threads
from benchmarks.support.timing import Step, TimedRunner
from benchmarks.support.wire import Setup
from engines.demo_model import MODEL_DIR
from engines.loop import Runner

BATCH_SIZE = 64
STEP_S = 0.010  # what a step takes that the aim is about
LOAD = Closed("hollow", BATCH_SIZE, 4, 92)  # short, so that attending takes no time either
_TINY: Mapping[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "tie_word_embeddings": True,
}
HOLLOW = tuple(
    Model(
        f"hollow-{family}-{layers}", "bfloat16", 1.0, 1.0, family=family, shape={**_TINY, "num_hidden_layers": layers}
    )
    for family, layers in (("llama", 1), ("llama", 6), ("qwen3", 18))
)


def measure(directory: Path, dtype: str) -> Sequence[Step]:
    """Returns the steps in which all sequences decode."""
    timed: list[TimedRunner] = []

    def wrap(runner: Runner) -> Runner:
        timed.append(TimedRunner(runner))
        return timed[0]

    cores = sorted(os.sched_getaffinity(0))
    engine = Engine(Setup(str(directory), dtype, 1, cores, 64 << 20, BATCH_SIZE, CONTEXT), wrap)
    for number in range(2):  # the first one finds all there is to be found out
        engine.run(closed_requests(LOAD, int(_TINY["vocab_size"]), str(number)), Clock())
    engine.steps.stop()
    whole = [step for step in timed[0].steps if step.row_count == BATCH_SIZE]
    return whole[len(whole) // 2 :]


def main(arguments: list[str] | None = None) -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the first model alone")
    parser.add_argument("--results", type=Path, default=RESULTS_DIRECTORY, help="directory of the results")
    asked = parser.parse_args(arguments)
    begin_with_threads(1)
    records = Records(result_path(asked.results, "overhead"))
    records.add("run", **machine.described(ROOT, sorted(os.sched_getaffinity(0))), batch_size=BATCH_SIZE)
    for model in HOLLOW[: 1 if asked.quick else None]:
        steps = measure(made(model, MODELS_DIRECTORY, MODEL_DIR), model.dtype)
        whole_s = percentile([step.cpu_s for step in steps], 50)
        loop_s = percentile([step.cpu_s - step.runner_cpu_s for step in steps], 50)
        wall_s = percentile([step.wall_s for step in steps], 50)
        share = whole_s / STEP_S
        records.add(
            "overhead",
            model=model.name,
            step_s=whole_s,
            wall_s=wall_s,
            loop_s=loop_s,
            runner_s=whole_s - loop_s,
            share=share,
        )
        print(
            f"{model.name}, batch {BATCH_SIZE}: {whole_s * 1e3:.2f} ms of a step are overhead, of them "
            f"{loop_s * 1e3:.2f} in the loop (by the wall clock {wall_s * 1e3:.2f}); that is {share:.0%} of a step of "
            f"{STEP_S * 1e3:.0f} ms"
        )
    print(f"raw results: {records.path}")


if __name__ == "__main__":
    main()
