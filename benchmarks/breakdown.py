"""Shows where the time of a step goes.

`python -m benchmarks.breakdown --models demo --loads prefill,shared-prefix,cancel`. Looks at the step thread every
millisecond or so while a load of `benchmarks.engine` is served (again and again, for long enough to see), or while
requests are cancelled one after the other, and counts the lines on which it was. What runs in C is counted on the line
that called it; where Linux's `perf` is there, a second run says in which functions of C all threads were.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.support import machine
from benchmarks.support.child import Clock
from benchmarks.support.churn import Churn
from benchmarks.support.engine import Engine
from benchmarks.support.loads import LOADS, Closed, closed_requests, mixed_requests, open_requests
from benchmarks.support.looks import Watcher
from benchmarks.support.match import KV_CACHE_BYTES
from benchmarks.support.models import CONTEXT, MODELS, made
from benchmarks.support.native import watched
from benchmarks.support.paths import MODELS_DIRECTORY, RESULTS_DIRECTORY, ROOT, result_path
from benchmarks.support.records import Records
from benchmarks.support.threads import begin_with_threads
from benchmarks.support.wire import Setup
from engines.demo_model import MODEL_DIR

SHOWN = 15
CANCEL = "cancel"
_USUAL = f"decode-64,prefill,shared-prefix,open-80,{CANCEL}"
SEEN_S, QUICK_S = 10.0, 2.0  # at least, of each load, and once more in C
BATCH_SIZE = 64
MIXED_COUNT = 128  # requests of all lengths, whose serving tells the capacity
OPEN_S = 4.0  # how long requests come in an open load
CANCELLED_AT_A_TIME = 32  # as many are running in `benchmarks.cancel`, too


def _shares(counts: Mapping[str, float], total: int) -> list[tuple[str, float]]:
    return sorted(((name, count / total) for name, count in counts.items()), key=lambda each: -each[1])[:SHOWN]


def _serving(engine: Engine, name: str) -> Callable[[], object]:
    """Returns what serves a load once, each time with requests that no cache knows."""
    if name == CANCEL:
        churn = Churn(engine, random.Random(CANCEL))
        for _ in range(CANCELLED_AT_A_TIME):
            churn.add()
        return lambda: churn.run(CANCELLED_AT_A_TIME)
    load, vocabulary, seeds = LOADS[name], engine.loaded.vocabulary_size, itertools.count()
    if isinstance(load, Closed):
        return lambda: engine.run(closed_requests(load, vocabulary, str(next(seeds))), Clock())
    mixed, clock = mixed_requests(MIXED_COUNT, vocabulary, name), Clock()
    engine.run(mixed, clock)
    rate = load.capacity_fraction * MIXED_COUNT / clock.now_s()
    return lambda: engine.run(open_requests(rate, OPEN_S, vocabulary, str(next(seeds))), Clock())


def _repeat(serve: Callable[[], object], seconds: float) -> int:
    """Serves until so much time is over; returns how often."""
    end_s, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < end_s:
        serve()
        count += 1
    return count


def _see(engine: Engine, name: str, seconds: float) -> dict[str, object]:
    """Returns what is seen while an engine serves a load."""
    serve = _serving(engine, name)
    serve()
    with Watcher("steps") as watcher:
        served = _repeat(serve, seconds)
    with watched() as native:
        _repeat(serve, seconds)
    looks = max(1, watcher.lines.total())
    return {
        "load": name,
        "served": served,
        "looks": looks,
        "lines": _shares(watcher.lines, looks),
        "functions": _shares(watcher.functions, looks),
        "native": _shares(native, 1),  # which are shares already
    }


def _show(model: str, seen: dict[str, Any]) -> None:
    titles = {
        "lines": "lines, each alone",
        "functions": "functions, with all they call",
        "native": "native, all threads",
    }
    for key, title in titles.items():
        print(f"{model}, {seen['load']}, {seen['looks']} looks: {title}")
        print("\n".join(f"  {share:6.1%}  {place}" for place, share in seen[key]))


def main(arguments: list[str] | None = None) -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.breakdown", description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS), metavar="A,B", help=", ".join(MODELS))
    parser.add_argument("--loads", default=_USUAL, metavar="A,B", help=f"{', '.join(LOADS)}, {CANCEL}; %(default)s")
    parser.add_argument("--seconds", type=float, default=0.0, help=f"to look at each load; {SEEN_S:g} if 0")
    parser.add_argument("--quick", action="store_true", help=f"one model, {QUICK_S:g} s")
    parser.add_argument("--results", type=Path, default=RESULTS_DIRECTORY, help="directory of the results")
    asked = parser.parse_args(arguments)
    seconds = asked.seconds or (QUICK_S if asked.quick else SEEN_S)
    cores = sorted(os.sched_getaffinity(0))
    begin_with_threads(len(cores))
    records = Records(result_path(asked.results, "breakdown"))
    records.add("run", **machine.described(ROOT, cores))
    for name in asked.models.split(",")[: 1 if asked.quick else None]:
        model = MODELS[name]
        directory = made(model, MODELS_DIRECTORY, MODEL_DIR)
        engine = Engine(Setup(str(directory), model.dtype, len(cores), cores, KV_CACHE_BYTES, BATCH_SIZE, CONTEXT))
        for load in sorted(asked.loads.split(","), key=CANCEL.__eq__):  # which leaves its requests running
            seen = _see(engine, load, seconds)
            records.add("breakdown", model=name, **seen)
            _show(name, seen)
        engine.steps.stop()
    print(f"raw results: {records.path}")


if __name__ == "__main__":
    main()
