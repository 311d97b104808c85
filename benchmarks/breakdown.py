"""Shows where the time of a step goes.

`python -m benchmarks.breakdown --models A --concurrency 64`. Looks at the step thread every millisecond or so while all
sequences decode, and counts the lines on which it was. What runs in C is counted on the line that called it; where
Linux's `perf` is there, a second run says in which functions of C all threads were. `--prompt 1024 --outputs 16` shows
prompts instead.
"""

from __future__ import annotations

import argparse
import os
import sys
import sysconfig
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from benchmarks.support import machine
from benchmarks.support.child import Clock
from benchmarks.support.engine import Engine
from benchmarks.support.loads import Closed, closed_requests
from benchmarks.support.match import KV_CACHE_BYTES
from benchmarks.support.models import CONTEXT, MODELS, made
from benchmarks.support.native import watched
from benchmarks.support.paths import MODELS_DIRECTORY, RESULTS_DIRECTORY, ROOT, result_path
from benchmarks.support.records import Records
from benchmarks.support.threads import begin_with_threads
from benchmarks.support.wire import Setup
from engines.demo_model import MODEL_DIR

PERIOD_S = 0.001
SHOWN = 15
_OURS = str(ROOT / "engines")
_LIBRARY = f"{sysconfig.get_path('stdlib')}/"


class Watcher:
    """Counts where a thread is, until the block is left."""

    def __init__(self, thread_name: str) -> None:
        self.lines: Counter[str] = Counter()
        self.functions: Counter[str] = Counter()  # of ours, with all that they call
        [self._ident] = [thread.ident for thread in threading.enumerate() if thread.name == thread_name]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def __enter__(self) -> Watcher:
        self._interval_s = sys.getswitchinterval()
        sys.setswitchinterval(PERIOD_S / 10)  # else the thread is seen only where it lets others run
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        sys.setswitchinterval(self._interval_s)

    def _watch(self) -> None:
        while not self._done.wait(PERIOD_S):
            if self._ident is not None and (frame := sys._current_frames().get(self._ident)) is not None:
                frames = list(_outward(frame))
                self.lines[_line(frames[0])] += 1
                self.functions.update({_function(each) for each in frames if each.f_code.co_filename.startswith(_OURS)})


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _line(frame: FrameType) -> str:
    return f"{_short(frame.f_code.co_filename)}:{frame.f_lineno} {frame.f_code.co_name}"


def _function(frame: FrameType) -> str:
    return f"{_short(frame.f_code.co_filename)} {frame.f_code.co_qualname}"


def _short(path: str) -> str:
    return path.removeprefix(f"{ROOT}/").removeprefix(_LIBRARY).rpartition("site-packages/")[2]


def _shares(counts: Mapping[str, float], total: int) -> list[tuple[str, float]]:
    return sorted(((name, count / total) for name, count in counts.items()), key=lambda each: -each[1])[:SHOWN]


def main(arguments: list[str] | None = None) -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.breakdown", description=__doc__)
    parser.add_argument("--models", default="llama-25m-bfloat16", metavar="A,B", help=", ".join(MODELS))
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=16, help="tokens of each prompt (default: %(default)s)")
    parser.add_argument("--outputs", type=int, default=0, help="tokens of each sequence; 512, or 128 with --quick")
    parser.add_argument("--quick", action="store_true", help="shorter outputs")
    parser.add_argument("--results", type=Path, default=RESULTS_DIRECTORY, help="directory of the results")
    asked = parser.parse_args(arguments)
    output_count = asked.outputs or (128 if asked.quick else 512)
    cores = sorted(os.sched_getaffinity(0))
    begin_with_threads(len(cores))
    records = Records(result_path(asked.results, "breakdown"))
    records.add("run", **machine.described(ROOT, cores))
    for name in asked.models.split(","):
        model = MODELS[name]
        directory = made(model, MODELS_DIRECTORY, MODEL_DIR)
        engine = Engine(
            Setup(str(directory), model.dtype, len(cores), cores, KV_CACHE_BYTES, asked.concurrency, CONTEXT)
        )
        load = Closed("breakdown", asked.concurrency, asked.prompt, output_count)
        engine.run(closed_requests(load, engine.loaded.vocabulary_size, "warm-up"), Clock())
        with Watcher("steps") as watcher:
            engine.run(closed_requests(load, engine.loaded.vocabulary_size, "seen"), Clock())
        with watched() as native:
            engine.run(closed_requests(load, engine.loaded.vocabulary_size, "seen in C"), Clock())
        engine.steps.stop()
        total = max(1, watcher.lines.total())
        lines, functions = _shares(watcher.lines, total), _shares(watcher.functions, total)
        in_c = _shares(native, 1)  # which are shares already
        titled = {"lines, each alone": lines, "functions, with all they call": functions, "native, all threads": in_c}
        asked_for = {key: getattr(asked, key) for key in ("concurrency", "prompt")} | {"outputs": output_count}
        records.add("breakdown", model=name, looks=total, lines=lines, functions=functions, native=in_c, **asked_for)
        for title, shares in titled.items():
            print(f"{name}, {asked.concurrency} sequences, {total} looks: {title}")
            print("\n".join(f"  {share:6.1%}  {place}" for place, share in shares))
    print(f"raw results: {records.path}")


if __name__ == "__main__":
    main()
