"""Measures what is off by default: int8 weights, and guessing tokens ahead by n-grams or by a draft model.

`python -m benchmarks.options`. Each is compared with the same engine without it, in turn, in one process. Guessing is
measured on what the demo model really answers: what it saves depends on how often it is right. There is no smaller
model of the same vocabulary, so the draft model is the demo model itself, which is the best guesser and the slowest.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.support import machine
from benchmarks.support.child import Clock
from benchmarks.support.engine import Engine
from benchmarks.support.loads import Closed, closed_requests
from benchmarks.support.metrics import percentile
from benchmarks.support.models import CONTEXT, MODELS, made
from benchmarks.support.paths import MODELS_DIRECTORY, RESULTS_DIRECTORY, ROOT, result_path
from benchmarks.support.records import Records
from benchmarks.support.threads import begin_with_threads
from benchmarks.support.wire import Request, Setup
from engines.backends.torch_lm.load import Loaded
from engines.backends.torch_lm.speculation import make_proposer
from engines.config import BLOCK_SIZE, GUESSES, MAX_BATCHED_TOKENS, MAX_WAITING, Builtin, Options, Speculation
from engines.demo_model import MODEL_DIR
from engines.loading import to_nobody
from engines.loop import Proposer

BATCH_SIZE = 32
KV_CACHE_BYTES = 256 << 20
OUTPUT_COUNT = 96
ROUNDS, QUICK_ROUNDS = 5, 2
QUESTIONS = (
    "Repeat after me: the quick brown fox jumps over the lazy dog and the lazy dog jumps over the quick brown fox",
    "Tell me a story about a fox named Ruby.",
    "Mia is 31. Give me name and age as JSON.",
    "Count from 3 to 12.",
)


Requests = Callable[[Engine, int, str], Sequence[Request]]  # (engine, how many, seed)


@dataclass(frozen=True, slots=True)
class Comparison:
    """An engine without an option and with it, with so many requests at a time."""

    name: str
    model: str  # empty: the demo model, which ends its answers by itself
    dtype: str
    count: int
    requests: Requests
    options: Mapping[str, str] = field(default_factory=dict)
    speculation: Speculation | None = None

    def guess(self, loaded: Loaded) -> Proposer | None:
        """Returns what guesses for a model, made as an engine makes it."""
        draft_model = None if self.speculation is None or self.speculation.draft_model is None else MODEL_DIR
        return make_proposer(_options(self.dtype, self.speculation), draft_model, loaded, to_nobody)


def _options(dtype: str, speculation: Speculation | None) -> Options:
    return Options(
        batch_size=BATCH_SIZE,
        batch_interval_s=0.0,
        max_batched_tokens=MAX_BATCHED_TOKENS["cpu"],
        block_size=BLOCK_SIZE,
        dtype=dtype,
        max_waiting=MAX_WAITING,
        kv_cache_bytes=KV_CACHE_BYTES,
        max_model_len=None,
        shares_prefixes=True,
        attention="auto",
        is_compiled=False,
        quantization="none",
        speculation=speculation,
    )


def ids(engine: Engine, count: int, seed: str) -> Sequence[Request]:
    """Returns requests of random ids."""
    return closed_requests(Closed("ids", count, 64, OUTPUT_COUNT), engine.loaded.vocabulary_size, seed)


def questions(engine: Engine, count: int, _: str) -> Sequence[Request]:
    """Returns requests of questions that the demo model knows."""
    prompts = [tuple(engine.loaded.tokenizer.render_chat([("user", text)])) for text in QUESTIONS]
    return [Request(prompts[number % len(prompts)], OUTPUT_COUNT, 0.0) for number in range(count)]


NGRAM, DRAFT = Speculation(GUESSES), Speculation(GUESSES, Builtin("demo"))
COMPARISONS = (
    *(
        Comparison("int8", "llama-25m-bfloat16", dtype, count, ids, options={"quantization": "int8"})
        for dtype in ("bfloat16", "float32")
        for count in (1, 8, 32)
    ),
    *(
        Comparison(name, "", "bfloat16", count, questions, speculation=speculation)
        for name, speculation in (("n-grams", NGRAM), ("draft model", DRAFT))
        for count in (1, 8)
    ),
)


def compare(comparison: Comparison, rounds: int) -> tuple[Sequence[float], Sequence[float], float]:
    """Returns tokens per second without and with the option, in turn, and the share of guesses that were right."""
    known = MODELS.get(comparison.model)
    directory = MODEL_DIR if known is None else made(known, MODELS_DIRECTORY, MODEL_DIR)
    setup = Setup(
        str(directory), comparison.dtype, 1, sorted(os.sched_getaffinity(0)), KV_CACHE_BYTES, BATCH_SIZE, CONTEXT // 2
    )
    engines = Engine(setup), Engine(replace(setup, options=comparison.options), guess=comparison.guess)
    rates: tuple[list[float], list[float]] = [], []
    for number in range(rounds + 1):  # the first one finds all there is to be found out
        for engine, found in zip(engines, rates, strict=True):
            clock = Clock()
            begin_s = clock.now_s()
            times = engine.run(comparison.requests(engine, comparison.count, str(number)), clock)
            found.append(sum(map(len, times)) / (clock.now_s() - begin_s))
    progress = engines[1].steps.progress()
    for engine in engines:
        engine.steps.stop()
    right = progress.accepted_token_count / progress.drafted_token_count if progress.drafted_token_count else 0.0
    return rates[0][1:], rates[1][1:], right


def main(arguments: list[str] | None = None) -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.options", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--results", type=Path, default=RESULTS_DIRECTORY, help="directory of the results")
    asked = parser.parse_args(arguments)
    begin_with_threads(1)
    records = Records(result_path(asked.results, "options"))
    records.add("run", **machine.described(ROOT, sorted(os.sched_getaffinity(0))), batch_size=BATCH_SIZE, threads=1)
    for comparison in COMPARISONS:
        without, with_it, right = compare(comparison, QUICK_ROUNDS if asked.quick else ROUNDS)
        model = comparison.model or "demo"
        ratio = percentile([new / old for old, new in zip(without, with_it, strict=True)], 50)
        records.add(
            "option",
            name=comparison.name,
            model=model,
            dtype=comparison.dtype,
            requests=comparison.count,
            without=without,
            with_it=with_it,
            ratio=ratio,
            right_fraction=right,
        )
        print(f"{comparison.name}, {model} in {comparison.dtype}, {comparison.count} at a time: {ratio:.2f}×")
    print(f"raw results: {records.path}")


if __name__ == "__main__":
    main()
