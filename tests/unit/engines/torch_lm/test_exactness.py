"""What a model gives through the step loop is what transformers gives, whoever else is in the batch."""

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from engines.backends.torch_lm.load import Loaded
from engines.model import FinishReason, Sampling, Work
from tests.support.outputs import GREEDY, Bench, bench, work

Load = Callable[[str], Loaded]
FAMILIES = pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2", "mistral", "gemma2", "gpt_oss"])
THREE = pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2"])
MAX_TOKENS = 24


def prompts(count: int, seed: int) -> list[list[int]]:
    chance = random.Random(seed)
    return [[chance.randrange(2, 320) for _ in range(chance.randint(1, 60))] for _ in range(count)]


def stock(directory: Path, prompt: list[int]) -> list[int]:
    """Returns what transformers' own greedy generate gives."""
    # Eager, because the default leaves out the soft caps of gemma2.
    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    ids = torch.tensor([prompt])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=MAX_TOKENS, eos_token_id=-1
    )
    return list(output[0, len(prompt) :].tolist())


@contextlib.contextmanager
def bench_of(model: Loaded, *, batch_size: int = 8, max_batched_tokens: int = 32) -> Iterator[Bench]:
    with bench(
        model.runner,
        blocks=model.total_blocks,
        block_size=model.block_size,
        batch_size=batch_size,
        max_batched_tokens=max_batched_tokens,
        transcript=model.tokenizer.transcript,
    ) as it:
        yield it


def alone(model: Loaded, request: Work) -> list[int]:
    with bench_of(model) as it:
        return it.run(request).ids


@FAMILIES
def test_greedy_is_what_transformers_gives(family: str, loaded: Load, model_directory: Callable[[str], Path]) -> None:
    expected = [stock(model_directory(family), prompt) for prompt in prompts(4, seed=1)]
    assert len(set(map(tuple, expected))) == 4
    assert [alone(loaded(family), work("a", prompt, MAX_TOKENS)) for prompt in prompts(4, seed=1)] == expected
    with bench_of(loaded(family)) as it:
        outputs = [it.submit(work(str(index), each, MAX_TOKENS)) for index, each in enumerate(prompts(4, seed=1))]
        for output in outputs:
            output.end()
    assert [output.ids for output in outputs] == expected


@THREE
def test_requests_that_join_leave_and_are_cancelled_change_no_other(family: str, loaded: Load) -> None:
    chance = random.Random(family)
    model = loaded(family)
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
            output.has(chance.randint(0, request.max_tokens))
            it.cancel(request)
        ends = [output.end() for output in outputs]
    for output, end, ids in zip(outputs, ends, expected, strict=True):
        assert output.ids == ids[: end.output_token_count]
        assert end.reason in (FinishReason.LENGTH, FinishReason.CANCELLED)
    assert [output.ids for output in outputs[1::2]] == expected[1::2]


@FAMILIES
def test_short_and_long_sequences_side_by_side_give_what_each_gives_alone(family: str, loaded: Load) -> None:
    chance = random.Random(5)
    lengths = (3, 200, 60, 131, 220, 7)
    requests = [work(str(length), [chance.randrange(2, 320) for _ in range(length)], MAX_TOKENS) for length in lengths]
    expected = [alone(loaded(family), request) for request in requests]
    with bench_of(loaded(family), max_batched_tokens=512) as it:
        outputs = [it.submit(request) for request in requests]
        for output in outputs:
            output.end()
    assert [output.ids for output in outputs] == expected


@THREE
def test_the_size_of_chunks_changes_nothing(family: str, loaded: Load) -> None:
    request = work("a", prompts(1, seed=3)[0] * 3, MAX_TOKENS)
    given = []
    for tokens in (1, 7, 64, 512):
        with bench_of(loaded(family), max_batched_tokens=tokens) as it:
            given.append(it.run(request).ids)
    assert given == [given[0]] * 4


def test_another_seed_gives_another_output_and_the_same_seed_the_same(loaded: Load) -> None:
    model = loaded("qwen3")
    hot = [Sampling(temperature=1.5, top_p=1.0, top_k=0, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (alone(model, work("a", [5, 6, 7], MAX_TOKENS, sampling)) for sampling in hot)
    assert first == again != other


def test_after_64_requests_with_cancels_every_block_is_free(loaded: Load) -> None:
    chance = random.Random(4)
    model = loaded("qwen3")
    requests = [work(str(index), prompt, max_tokens=20) for index, prompt in enumerate(prompts(64, seed=4))]
    with bench_of(model, batch_size=16, max_batched_tokens=128) as it:
        outputs = [it.submit(request) for request in requests]
        for request, output in chance.sample(list(zip(requests, outputs, strict=True)), 40):
            output.has(chance.randint(0, 3))
            it.cancel(request)
        ends = [output.end() for output in outputs]
        assert it.pool.free_count == it.pool.total
    assert {end.reason for end in ends} == {FinishReason.LENGTH, FinishReason.CANCELLED}
