"""A sequence's logits are the same bits alone and in any mix, in any pieces, with one thread and with two."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engines.backends.torch_lm import adopt as adoption
from engines.backends.torch_lm.adopt import Adopted, Means, adopt
from engines.backends.torch_lm.cache import KvCache
from engines.backends.torch_lm.forward import Compute
from engines.backends.torch_lm.invariance import is_batch_invariant
from engines.backends.torch_lm.kernels.choose import available, choose
from engines.backends.torch_lm.place import linears_for
from engines.backends.torch_lm.step import Step
from engines.backends.torch_lm.trial import Trial
from engines.backends.torch_lm.weights import read_config, read_model
from tests.support.tiny_models import CONTEXT
from tests.unit.engines.torch_lm.conftest import Load

Directory = Callable[[str], Path]
CPU = torch.device("cpu")
FAMILIES = ["qwen3", "gemma2", "gpt2", "gpt_oss", "qwen3_moe", "phi3"]
CASES = [
    *product(FAMILIES, [torch.float32, torch.bfloat16], [1]),
    *product(["qwen3", "gpt2"], [torch.float16], [1]),
    *product(["qwen3", "qwen3_moe"], [torch.float32, torch.bfloat16], [2]),
    ("gpt2", torch.float32, 2),
]
IN_C = pytest.mark.skipif(not available(), reason="there are no kernels in C: torch's own are not invariant")
LENGTH, BLOCKS_EACH = 45, 12


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def adopted(directory: Path, dtype: torch.dtype, threads: int) -> tuple[Adopted, Means]:
    torch.set_num_threads(threads)
    kernels = choose("auto", CPU, threads)
    means = Means(kernels, linears_for(kernels, CPU))
    return adopt(lambda: read_model(directory, read_config(directory), dtype, CPU), CPU, means, CONTEXT), means


def in_a_mix(model: Adopted, means: Means, ids: list[int], chance: random.Random) -> Tensor:
    """Returns the logits behind each id, in random pieces and with random neighbours."""
    trial = Trial(model.forward, model.layers, blocks=200, dtype=model.dtype, device=CPU, kernels=means.kernels)
    free = list(range(200))
    chance.shuffle(free)

    def blocks() -> list[int]:
        return [free.pop() for _ in range(BLOCKS_EACH)]

    sequence, left, given = trial.sequence(ids, blocks()), len(ids), []
    unread = {trial.sequence([chance.randrange(320) for _ in range(90)], blocks()): 90 for _ in range(12)}
    while left:
        count = chance.choice([1, 1, chance.randint(1, left)])
        parts = [(sequence, count)]
        for other in chance.sample(list(unread), chance.randint(0, len(unread))):
            more = min(unread[other], chance.choice([1, 1, 2, 13, 70]))
            if more:
                unread[other] -= more
                parts.append((other, more))
        parts.sort(key=lambda part: part[1] > 1)
        results = trial.step(*parts)
        given.append(next(result for part, result in zip(parts, results, strict=True) if part[0] is sequence))
        left -= count
    return torch.cat(given)


@IN_C
@pytest.mark.parametrize(("family", "dtype", "threads"), CASES)
def test_in_any_mix_the_logits_are_the_same_bits(
    family: str, dtype: torch.dtype, threads: int, model_directory: Directory
) -> None:
    model, means = adopted(model_directory(family), dtype, threads)
    assert model.is_batch_invariant
    chance = random.Random(family)
    ids = [chance.randrange(320) for _ in range(LENGTH)]
    trial = Trial(model.forward, model.layers, blocks=6, dtype=model.dtype, device=CPU, kernels=means.kernels)
    [alone] = trial.step((trial.sequence(ids, range(6)), LENGTH))
    for _ in range(5 if threads == 1 else 1):  # a second thread may wait long for a core that others use
        assert torch.equal(in_a_mix(model, means, ids, chance), alone)


@IN_C
def test_the_count_of_threads_changes_nothing(model_directory: Directory) -> None:
    ids, given = [random.Random(1).randrange(320) for _ in range(LENGTH)], []
    for threads in (1, 2):
        model, means = adopted(model_directory("llama"), torch.bfloat16, threads)
        given.append(in_a_mix(model, means, ids, random.Random(2)))
    assert torch.equal(*given)


class Uneven:
    """Gives logits that depend, in a few last bits, on how many tokens there are in a step."""

    def __init__(self, adopted: Adopted) -> None:
        self._adopted = adopted

    def bind(self, cache: KvCache) -> Compute:
        compute = self._adopted.forward.bind(cache)

        def uneven(step: Step) -> Tensor:
            return compute(step) * (1 + 1e-6 * (step.ids.shape[1] % 7))

        return uneven


@IN_C
def test_a_model_that_is_not_invariant_is_found_out(model_directory: Directory) -> None:
    model, means = adopted(model_directory("llama"), torch.float32, 1)
    found = [
        is_batch_invariant(forward, model.layers, 320, dtype=torch.float32, device=CPU, kernels=means.kernels)
        for forward in (model.forward, Uneven(model))
    ]
    assert found == [True, False]


@IN_C
def test_modules_of_transformers_are_invariant_as_well(
    model_directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "parts_of", lambda *_: None)
    for family in ("llama", "gemma3_text", "mixtral"):
        model, _ = adopted(model_directory(family), torch.float32, 1)
        assert (model.way, model.is_batch_invariant) == ("modules", True)


@IN_C
def test_what_is_loaded_says_whether_it_is_invariant_and_how_it_computes(loaded: Load) -> None:
    model = loaded("llama")
    assert model.is_batch_invariant
    assert model.numerics.startswith("fused, attention by ")
