"""The step loop one step ahead of a real model: joins, leaves, cancels and prefixes change no output."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import pytest

from engines.model import FinishReason, Sampling, Work
from tests.support.outputs import GREEDY, Bench, bench, choices_of, work
from tests.unit.engines.torch_lm.cuda.models import BLOCK_SIZE, BLOCKS, ROWS, TOKENS, Load, Model, greedy

FAMILIES = pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2", "mistral", "gemma2", "gpt_oss"])
MAX_TOKENS = 20


def prompts(count: int, seed: int) -> list[list[int]]:
    chance = random.Random(seed)
    return [[chance.randrange(2, 320) for _ in range(chance.randint(1, 60))] for _ in range(count)]


@contextlib.contextmanager
def bench_of(model: Model, *, blocks: int = BLOCKS, batch_size: int = ROWS) -> Iterator[Bench]:
    with bench(
        model.runner,
        blocks=blocks,
        block_size=BLOCK_SIZE,
        batch_size=batch_size,
        max_batched_tokens=TOKENS,
    ) as it:
        yield it


def alone(model: Model, request: Work) -> list[int]:
    with bench_of(model) as it:
        return it.run(request).ids


@FAMILIES
def test_greedy_is_what_transformers_gives(family: str, load: Load) -> None:
    model = load(family)
    asked = prompts(6, seed=1)
    with bench_of(model) as it:
        outputs = [it.submit(work(str(index), prompt, MAX_TOKENS)) for index, prompt in enumerate(asked)]
        for output in outputs:
            output.end()
    assert [output.ids for output in outputs] == [greedy(model, prompt, MAX_TOKENS) for prompt in asked]


def test_requests_that_join_leave_and_are_cancelled_change_no_other(load: Load) -> None:
    chance = random.Random(2)
    model = load("qwen3")
    requests = [
        work(
            str(index),
            prompt,
            max_tokens=chance.randint(1, MAX_TOKENS),
            sampling=Sampling(temperature=1.0, top_p=0.9, top_k=50, seed=index) if index % 3 == 0 else GREEDY,
        )
        for index, prompt in enumerate(prompts(18, seed=2))
    ]
    expected = [alone(model, request) for request in requests]
    with bench_of(model, batch_size=5) as it:
        outputs = [it.submit(request) for request in requests]
        for request, output in zip(requests[::2], outputs[::2], strict=True):
            output.has_or_ended(chance.randint(0, request.max_tokens))
            it.cancel(request)
        ends = [output.end() for output in outputs]
    for output, end, ids in zip(outputs, ends, expected, strict=True):
        assert output.ids == ids[: end.output_token_count]
        assert end.reason in (FinishReason.LENGTH, FinishReason.CANCELLED)
    assert [output.ids for output in outputs[1::2]] == expected[1::2]


def test_sequences_that_are_put_out_and_computed_again_give_the_same(load: Load) -> None:
    model = load("llama")
    requests = [work(str(index), prompt, 60) for index, prompt in enumerate(prompts(6, seed=3))]
    expected = [greedy(model, list(request.prompt), 60) for request in requests]
    with bench_of(model, blocks=24) as it:
        outputs = [it.submit(request) for request in requests]
        for output in outputs:
            output.end()
    assert [output.ids for output in outputs] == expected


def test_choices_share_a_prompt_and_differ_by_chance(load: Load) -> None:
    model = load("qwen3")
    hot = Sampling(temperature=1.5, top_p=1.0, top_k=0, seed=3)
    request = work("a", prompts(1, seed=4)[0] * 2, MAX_TOKENS, hot)
    with bench_of(model) as it:
        outputs = [output.ids for output in it.run_all(choices_of(request, 4))]
    assert len(set(map(tuple, outputs))) == 4
    with bench_of(model) as it:
        assert [output.ids for output in it.run_all(choices_of(request, 4))] == outputs


def test_an_output_may_end_anywhere_while_the_next_step_is_under_way(load: Load) -> None:
    model = load("llama")
    prompt = prompts(1, seed=5)[0]
    ids = greedy(model, prompt, MAX_TOKENS)
    for place in range(0, MAX_TOKENS, 3):
        first = ids.index(ids[place])
        with bench_of(model) as it:
            beside = it.submit(work("beside", prompt, MAX_TOKENS))
            output = it.run(work("a", prompt, MAX_TOKENS, stop_token_ids=frozenset({ids[place]})))
            assert output.end().reason is FinishReason.STOP_TOKEN
            assert output.ids == ids[: first + 1]
            beside.end()
            assert beside.ids == ids
