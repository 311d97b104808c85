"""Measures what is off by default: int8 weights, and guessing tokens ahead by n-grams or by a draft model.

`python -m benchmarks.options`. Each is compared with the same engine without it, in turn, in one process. Guessing is
measured on what the demo model really answers: what it saves depends on how often it is right. There is no smaller
model of the same vocabulary, so the draft model is the demo model itself, which is the best guesser and the slowest.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from engines.backends.torch_lm.drafting import DraftModel
from engines.backends.torch_lm.load import Loaded, load_model
from engines.batching.blocks import BlockPool
from engines.demo_model import MODEL_DIR
from engines.loop import Proposer
from engines.loop.ngram import NGrams

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


@dataclass(frozen=True, slots=True)
class Comparison:
    """An engine without an option and with it, at one load."""

    name: str
    model: str
    dtype: str
    load: str
    requests: Callable[[Engine, str], Sequence[Request]]
    options: Mapping[str, str]
    guess: Callable[[Loaded], Proposer | None] = lambda _: None


def ids(count: int) -> Callable[[Engine, str], Sequence[Request]]:
    """Returns what makes so many requests of random ids."""
    return lambda engine, seed: closed_requests(
        Closed("ids", count, 64, OUTPUT_COUNT), engine.loaded.vocabulary_size, seed
    )


def questions(count: int) -> Callable[[Engine, str], Sequence[Request]]:
    """Returns what makes so many requests of questions that the demo model knows."""

    def made_of(engine: Engine, _: str) -> Sequence[Request]:
        prompts = [tuple(engine.loaded.tokenizer.render_chat([("user", text)])) for text in QUESTIONS]
        return [Request(prompts[number % len(prompts)], OUTPUT_COUNT, 0.0) for number in range(count)]

    return made_of


def draft(loaded: Loaded) -> Proposer:
    """Returns the demo model as one that guesses for itself."""
    own = load_model(MODEL_DIR, device="cpu", dtype=loaded.dtype, kv_cache_bytes=KV_CACHE_BYTES)
    pool = BlockPool(own.total_blocks, own.block_size)
    return DraftModel(own.runner, pool, max_model_len=own.max_model_len, max_batched_tokens=512)


COMPARISONS = (
    *(
        Comparison(
            f"int8, batch {count}", "llama-25m-bfloat16", dtype, f"batch {count}", ids(count), {"quantization": "int8"}
        )
        for dtype in ("bfloat16", "float32")
        for count in (1, 8, 32)
    ),
    *(
        Comparison("n-grams", "", "bfloat16", f"batch {count}", questions(count), {}, lambda _: NGrams())
        for count in (1, 8)
    ),
    *(Comparison("draft model", "", "bfloat16", f"batch {count}", questions(count), {}, draft) for count in (1,)),
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
            times = engine.run(comparison.requests(engine, str(number)), clock)
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
        ratio = percentile([new / old for old, new in zip(without, with_it, strict=True)], 50)
        records.add(
            "option",
            name=comparison.name,
            model=comparison.model or "demo",
            dtype=comparison.dtype,
            load=comparison.load,
            without=without,
            with_it=with_it,
            ratio=ratio,
            right_fraction=right,
        )
        print(f"{comparison.name}, {comparison.model or 'demo'} in {comparison.dtype}, {comparison.load}: {ratio:.2f}×")
    print(f"raw results: {records.path}")


if __name__ == "__main__":
    main()
