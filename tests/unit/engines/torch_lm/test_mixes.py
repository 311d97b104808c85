"""Random mixes of requests on real models: joins, leaves, cancels, preemptions and prefix hits change no output."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from engines.model import FinishReason, Sampling, Work
from tests.support.model_bench import alone, bench_of, needs_the_same_bits
from tests.support.outputs import work
from tests.unit.engines.torch_lm.conftest import Load

CASES = [
    ("qwen3", {}, 0),
    ("qwen3", {"dtype": "bfloat16"}, 1),
    ("llama", {}, 1),
    ("llama", {"dtype": "float16"}, 0),
    ("mistral", {}, 0),
    ("gemma3_text", {}, 1),
    ("gpt2", {}, 0),
    ("gpt_oss", {"dtype": "bfloat16"}, 0),
    ("qwen3_moe", {}, 1),
    ("mixtral", {"dtype": "bfloat16"}, 0),
    ("demo", {}, 0),
]
SETTINGS: list[Mapping[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 1.0, "top_p": 0.9, "top_k": 50},
    {"temperature": 1.0, "repetition_penalty": 1.2, "presence_penalty": 0.3, "frequency_penalty": 0.2},
    {"temperature": 1.3, "min_p": 0.02},
]
REQUESTS, LONGEST_PROMPT, MOST_TOKENS = 24, 60, 24


def requests(chance: random.Random) -> list[Work]:
    """Returns requests of which many begin alike, and some were begun elsewhere."""
    stems = [[chance.randrange(3, 320) for _ in range(chance.randint(8, 40))] for _ in range(3)]
    made = []
    for index in range(REQUESTS):
        stem = chance.choice(stems) if chance.random() < 0.7 else []
        own = [chance.randrange(3, 320) for _ in range(chance.randint(1, LONGEST_PROMPT - len(stem)))]
        settings = {"top_p": 1.0, "top_k": 0, **chance.choice(SETTINGS)}
        sampling = Sampling(seed=chance.randrange(1 << 30), **settings)
        made.append(work(str(index), [*stem, *own], chance.randint(1, MOST_TOKENS), sampling, priority=index % 3))
    return made


@pytest.mark.parametrize(("family", "options", "depth"), CASES)
def test_in_any_mix_each_output_is_what_it_is_alone(
    family: str, options: Mapping[str, str], depth: int, loaded: Load
) -> None:
    model = loaded(family, **options)
    if options:  # half a precision, in which two tokens are often as likely
        needs_the_same_bits(model)
    chance = random.Random(f"{family} {options}")
    whole = requests(chance)
    expected = alone(model, *whole)
    # What was begun elsewhere goes on here.
    given = [chance.randint(0, each.max_tokens - 1) if chance.random() < 0.3 else 0 for each in whole]
    begun = [replace(each, output=tuple(ids[:count])) for each, ids, count in zip(whole, expected, given, strict=True)]
    # So few blocks that some give theirs back, if they meet.
    with bench_of(model, batch_size=6, max_batched_tokens=40, blocks=18, depth=depth) as it:
        outputs = []
        for index, request in enumerate(begun):
            outputs.append(it.submit(request))
            if index % 5 == 4:
                outputs[chance.randrange(index)].has_or_ended(chance.randint(1, 4))
            if chance.random() < 0.2:
                it.cancel(begun[chance.randrange(index + 1)])
        ends = [output.end() for output in outputs]
    for output, end, ids, count in zip(outputs, ends, expected, given, strict=True):
        if end.reason is FinishReason.LENGTH:
            assert output.ids == ids[count:]
        else:
            assert end.reason is FinishReason.CANCELLED
            assert output.ids == ids[count:][: len(output.ids)]
    assert sum(end.reason is FinishReason.LENGTH for end in ends) > REQUESTS // 2
    assert sum(end.cached_token_count for end in ends) > 0


@pytest.mark.parametrize(("family", "options", "depth"), CASES)
def test_whoever_loses_its_blocks_and_is_computed_again_says_what_it_would_have_said(
    family: str, options: Mapping[str, str], depth: int, loaded: Load
) -> None:
    model = loaded(family, **options)
    if options:
        needs_the_same_bits(model)
    chance = random.Random(f"again {family} {options}")
    whole = [
        work(
            str(index),
            [chance.randrange(3, 320) for _ in range(20)],
            24,
            Sampling(seed=index, **{"top_p": 1.0, "top_k": 0, **chance.choice(SETTINGS)}),
        )
        for index in range(6)
    ]
    expected = alone(model, *whole)
    # All six join in the first step, with 3 of the 18 blocks each; in the end each would have 6.
    with bench_of(model, batch_size=6, max_batched_tokens=160, blocks=18, depth=depth, batch_interval_s=60.0) as it:
        outputs = [it.submit(request) for request in whole]
        for output in outputs:
            output.end()
        assert it.loop.progress().preemption_count > 0
    assert [output.ids for output in outputs] == expected
