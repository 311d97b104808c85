"""What a model gives through the step loop is what transformers gives, whoever else is in the batch."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engines.backends.torch_lm.load import load_model
from engines.backends.torch_lm.trial import some_ids
from engines.model import FinishReason, Sampling
from tests.support import stock
from tests.support.model_bench import alone, bench_of, needs_the_same_bits
from tests.support.outputs import choices_of, work
from tests.unit.engines.torch_lm.conftest import KV_CACHE_BYTES, Load

Directory = Callable[[str], Path]
FAMILIES = pytest.mark.parametrize(
    "family",
    ["demo", "gemma2", "gemma3_text", "gpt2", "gpt_oss", "llama", "mistral", "mixtral", "phi3", "qwen3", "qwen3_moe"],
)
THREE = pytest.mark.parametrize("family", ["qwen3", "gpt2", "qwen3_moe"])
MAX_TOKENS = 24


def prompts(count: int, seed: int, longest: int = 60) -> list[list[int]]:
    chance = random.Random(seed)
    return [[chance.randrange(3, 320) for _ in range(chance.randint(1, longest))] for _ in range(count)]


@FAMILIES
def test_greedy_is_what_transformers_gives_alone_and_together(
    family: str, loaded: Load, model_directory: Directory
) -> None:
    model, given = loaded(family), prompts(4, seed=1)
    expected = [stock.generated(model_directory(family), prompt, MAX_TOKENS) for prompt in given]
    assert len(set(map(tuple, expected))) == 4
    requests = [work(str(index), prompt, MAX_TOKENS) for index, prompt in enumerate(given)]
    assert alone(model, *requests) == expected
    with bench_of(model) as it:
        outputs = [it.submit(request) for request in requests]
        for output in outputs:
            output.end()
    assert [output.ids for output in outputs] == expected


@FAMILIES
def test_logprobs_are_those_of_transformers(family: str, loaded: Load, model_directory: Directory) -> None:
    [prompt] = prompts(1, seed=2)
    prompt += [7, 8, 9]
    with bench_of(loaded(family)) as it:
        output = it.run(work("a", prompt, MAX_TOKENS, logprobs=3, prompt_logprobs=2))
    expected = stock.logprobs(model_directory(family), [*prompt, *output.ids])
    told = [*output.prompt_logprobs, *output.logprobs]
    assert len(told) == len(prompt) - 1 + MAX_TOKENS
    for place, logprobs in enumerate(told):
        for each in (logprobs.chosen, *logprobs.top):
            assert each.logprob == pytest.approx(float(expected[place, each.token]), abs=1e-4)
        values = [each.logprob for each in logprobs.top]
        assert values == pytest.approx(expected[place].topk(len(values)).values.tolist(), abs=1e-4)


@FAMILIES
def test_short_and_long_sequences_side_by_side_give_what_each_gives_alone(family: str, loaded: Load) -> None:
    chance = random.Random(5)
    lengths = (3, 200, 60, 131, 220, 7)
    requests = [work(str(length), [chance.randrange(3, 320) for _ in range(length)], MAX_TOKENS) for length in lengths]
    expected = alone(loaded(family), *requests)
    with bench_of(loaded(family), max_batched_tokens=512) as it:
        outputs = [it.submit(request) for request in requests]
        for output in outputs:
            output.end()
    assert [output.ids for output in outputs] == expected


@THREE
def test_the_size_of_chunks_changes_nothing(family: str, loaded: Load) -> None:
    needs_the_same_bits(loaded(family))
    request = work("a", prompts(1, seed=3)[0] * 3, MAX_TOKENS, logprobs=2)
    given = []
    for tokens in (1, 7, 64, 512):
        with bench_of(loaded(family), max_batched_tokens=tokens) as it:
            output = it.run(request)
            given.append((output.ids, output.logprobs))
    assert given == [given[0]] * 4  # bit by bit, logprobs among it


def test_another_seed_gives_another_output_and_the_same_seed_the_same(loaded: Load) -> None:
    hot = [Sampling(temperature=1.5, top_p=1.0, top_k=0, seed=seed) for seed in (1, 1, 2)]
    first, again, other = alone(loaded("qwen3"), *[work(str(n), [5, 6, 7], 24, each) for n, each in enumerate(hot)])
    assert first == again != other


@pytest.mark.parametrize("depth", [0, 1])
def test_each_choice_of_a_request_gives_what_it_gives_alone(depth: int, loaded: Load) -> None:
    request = work("a", prompts(1, seed=6)[0], MAX_TOKENS, Sampling(temperature=1.0, top_p=1.0, top_k=0, seed=3))
    choices = choices_of(request, 4)
    expected = alone(loaded("llama"), *choices)
    assert len(set(map(tuple, expected))) == 4
    with bench_of(loaded("llama"), depth=depth) as it:
        assert [output.ids for output in it.run_all(choices)] == expected


@pytest.mark.parametrize("depth", [0, 1])
def test_an_output_that_is_resumed_goes_on_as_it_would_have(depth: int, loaded: Load) -> None:
    sampling = Sampling(temperature=1.0, top_p=0.95, top_k=0, seed=9, frequency_penalty=0.5)
    prompt = prompts(1, seed=7)[0]
    [whole] = alone(loaded("llama"), work("a", prompt, MAX_TOKENS, sampling))
    with bench_of(loaded("llama"), depth=depth) as it:
        for count in (1, 8, 17, 23):
            given = tuple(whole[:count])
            assert it.run(work(str(count), prompt, MAX_TOKENS, sampling, output=given)).ids == whole[count:]


def test_logits_that_are_no_numbers_end_their_request_alone(
    loaded: Load, model_directory: Directory, tmp_path: Path
) -> None:
    tried = {token for seed in range(1, 8) for token in some_ids(32, 320, seed)}  # when the model is loaded
    poison = next(token for token in range(3, 320) if token not in tried)
    directory = tmp_path / "poisoned"
    shutil.copytree(model_directory("llama"), directory)
    tensors = load_file(directory / "model.safetensors")
    tensors["model.embed_tokens.weight"][poison] = torch.nan
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    model = load_model(directory, device="cpu", block_size=8, kv_cache_bytes=KV_CACHE_BYTES)
    request = work("a", [5, 6, 7], MAX_TOKENS)
    [expected] = alone(loaded("llama"), request)
    with bench_of(model) as it:
        outputs = [it.submit(request), it.submit(work("b", [5, poison, 7], MAX_TOKENS))]
        ends = [output.end() for output in outputs]
    assert [end.reason for end in ends] == [FinishReason.LENGTH, FinishReason.FAILED]
    assert outputs[0].ids == expected
