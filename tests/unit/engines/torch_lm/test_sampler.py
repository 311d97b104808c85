import math
from collections import Counter
from typing import Any

import pytest
import torch

from engines.backends.torch_lm.sampler import sample, uniform
from engines.batching.batch import Draw
from engines.model import Sampling


def draw(position: int = 0, *, temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0, seed: int = 0) -> Draw:
    return Draw(Sampling(temperature, top_p, top_k, seed), position)


def chosen(logits: list[float], count: int = 400, **settings: Any) -> Counter[int]:
    """Draws at many positions."""
    draws = [draw(position, **settings) for position in range(count)]
    tokens = sample(torch.tensor([logits] * count), draws)
    assert all(isinstance(token, int) for token in tokens)
    return Counter(token for token in tokens if isinstance(token, int))


def test_temperature_0_takes_the_largest_logit_and_of_equals_the_lowest_id() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0, 3.0], [2.0, 2.0, 2.0, 2.0]])
    assert sample(logits, [draw(temperature=0.0), draw(temperature=0.0)]) == [1, 0]


def test_tokens_come_as_often_as_their_probability_says() -> None:
    weights = [0.5, 0.3, 0.15, 0.05]
    counts = chosen([math.log(weight) for weight in weights], count=4000)
    for token, weight in enumerate(weights):
        assert counts[token] / 4000 == pytest.approx(weight, abs=0.03)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 1}, {0}),
        ({"top_k": 100}, {0, 1, 2, 3}),
        ({"top_p": 0.5}, {0}),
        ({"top_p": 0.51}, {0, 1}),
        ({"top_p": 0.9}, {0, 1, 2}),
        ({"top_p": 1e-9}, {0}),
        ({"top_k": 2, "top_p": 0.6}, {0}),  # of what top_k keeps, 0 has 0.625
        ({"temperature": 0.01}, {0}),
        ({"temperature": 1e-300}, {0}),
    ],
)
def test_what_is_kept(settings: dict[str, Any], kept: set[int]) -> None:
    logits = [math.log(weight) for weight in (0.5, 0.3, 0.15, 0.05)]
    assert set(chosen(logits, **settings)) == kept


def test_of_equals_top_k_keeps_the_lowest_ids() -> None:
    assert set(chosen([1.0] * 8, top_k=3)) == {0, 1, 2}


def test_a_token_that_is_ruled_out_never_comes() -> None:
    assert set(chosen([-math.inf, 0.0, -math.inf, 0.0, -math.inf])) == {1, 3}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_without_a_finite_largest_logit_fails_alone(bad: float, temperature: float) -> None:
    logits = torch.tensor([[0.0, 5.0], [0.0, bad], [5.0, 0.0]])
    tokens = sample(logits, [draw(temperature=temperature / 100) for _ in range(3)])
    assert (tokens[0], tokens[2]) == (1, 0)
    assert isinstance(tokens[1], ValueError)


def test_a_row_without_any_token_fails() -> None:
    assert isinstance(sample(torch.full((1, 4), -math.inf), [draw()])[0], ValueError)


def test_a_row_gives_the_same_whoever_is_beside_it() -> None:
    torch.manual_seed(0)
    logits = torch.randn(32, 500)
    kinds: list[dict[str, Any]] = [
        {},
        {"temperature": 0.0},
        {"top_k": 20},
        {"top_p": 0.8},
        {"temperature": 2.0, "top_k": 50, "top_p": 0.9},
    ]
    draws = [draw(row, seed=row, **kinds[row % 5]) for row in range(32)]
    together = sample(logits, draws)
    assert together == [sample(logits[row : row + 1], [draws[row]])[0] for row in range(32)]
    assert together[::-1] == sample(logits.flip(0), draws[::-1])


def test_random_numbers_are_a_function_of_seed_choice_and_position() -> None:
    numbers = {uniform(seed, choice, position) for seed in (-1, 0, 1) for choice in (0, 1) for position in (0, 1)}
    assert len(numbers) == 12
    assert all(0 <= number < 1 for number in numbers)
    assert uniform(7, 0, 3) == 0.32541466495141846  # the same on every machine and in every version


def test_half_precision_is_sampled_as_well() -> None:
    logits = torch.tensor([[0.0, 4.0, 4.0]], dtype=torch.bfloat16)
    assert sample(logits, [draw(temperature=0.0)]) == [1]
    assert sample(logits, [draw(top_k=1)]) == [1]
