import math
from typing import Any

import pytest
import torch

from engines.backends.torch_lm.sampling import device, host
from engines.backends.torch_lm.sampling.place import Place
from engines.backends.torch_lm.sampling.sampler import Sampler
from engines.backends.torch_lm.sampling.uniform import uniform
from engines.batching.batch import Score
from engines.model import NothingAllowed, Sampled
from tests.support.draws import KINDS, draw, mixed, tokens

PLACES = pytest.mark.parametrize("place", [host, device], ids=["host", "device"])
LOGITS = [math.log(weight) for weight in (0.5, 0.3, 0.15, 0.05)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("rows", "vocabulary"), [(31, 500), (33, 40_000)])
def test_a_row_gives_the_same_to_the_last_bit_whoever_is_beside_it(rows: int, vocabulary: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        logits = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(0)) * 2
        draws = mixed(rows)
        together = Sampler().sample(logits, draws).wait()
        assert together == [Sampler().sample(logits[row : row + 1], [draws[row]]).wait()[0] for row in range(rows)]
        assert together[::-1] == Sampler().sample(logits.flip(0), draws[::-1]).wait()
        assert together[5:17] == Sampler().sample(logits[5:17], draws[5:17]).wait()
    finally:
        torch.set_num_threads(before)


def test_a_sampler_that_has_served_others_gives_the_same() -> None:
    logits = torch.randn(20, 500, generator=torch.Generator().manual_seed(1))
    draws = mixed(20)
    sampler = Sampler()
    first = sampler.sample(logits, draws).wait()
    sampler.sample(torch.randn(64, 900), [draw(seed=row, repetition_penalty=1.5, ids=[row]) for row in range(64)])
    assert sampler.sample(logits, draws).wait() == first


@pytest.mark.parametrize("vocabulary", [300, 5_000, 40_000])
def test_host_and_device_give_the_same_over_large_vocabularies(vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    for spread in (0.5, 3.0):
        logits = (torch.randn(20, vocabulary, generator=generator) * spread).bfloat16()  # with many equals
        draws = mixed(20)
        assert tokens(logits, draws, host) == tokens(logits, draws, device)


@PLACES
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"temperature": 0.01}, {"top_p": 0.9}, {"top_k": 2}])
def test_a_row_without_a_finite_largest_logit_fails_alone(place: Place, bad: float, settings: Any) -> None:
    logits = torch.tensor([[0.0, 900.0], [0.0, bad], [900.0, 0.0]])
    one, wrong, other = Sampler(place).sample(logits, [draw(**settings) for _ in range(3)]).wait()
    assert (one, other) == (Sampled(1), Sampled(0))
    assert isinstance(wrong, ValueError)
    assert "finite" in str(wrong)


@PLACES
@pytest.mark.parametrize(
    "settings",
    [
        {"mask": b"\0"},
        {"logit_bias": tuple((token, -100.0) for token in range(4))},
        {"bad_words": tuple((token,) for token in range(4))},
        {"mask": b"\x01", "min_tokens": 3, "end_ids": frozenset({0})},
    ],
    ids=["mask", "bias", "bad words", "min_tokens and mask"],
)
def test_a_row_of_which_everything_is_forbidden_fails_alone(place: Place, settings: Any) -> None:
    kinds: list[dict[str, Any]] = [{"temperature": 0.0}, {}, {"top_p": 0.5}]
    for more in kinds:
        draws = [draw(top_k=1), draw(**settings, **more), draw(top_k=1)]
        one, wrong, other = Sampler(place).sample(torch.tensor([LOGITS] * 3), draws).wait()
        assert one == other == Sampled(0)
        assert isinstance(wrong, NothingAllowed)


def test_a_mask_for_another_vocabulary_fails_alone() -> None:
    draws = [draw(top_k=1), draw(mask=b"\xff\xff\xff")]
    one, wrong = Sampler().sample(torch.tensor([LOGITS] * 2), draws).wait()
    assert one == Sampled(0)
    assert isinstance(wrong, ValueError)


def test_ids_beyond_the_vocabulary_touch_no_other_row() -> None:
    strange: dict[str, Any] = {
        "ids": [4, 5, 9],
        "repetition_penalty": 2.0,
        "presence_penalty": 2.0,
        "logit_bias": ((4, 9.0), (6, -100.0)),
        "bad_words": ((5,),),
        "min_tokens": 1,
        "end_ids": frozenset({7}),
    }
    logits = torch.tensor([LOGITS] * 3)
    draws = [draw(**strange), draw(5, logit_bias=((3, 0.5),)), draw(6, logit_bias=((3, 0.5),))]
    alone = [Sampler().sample(logits[:1], [each]).wait()[0] for each in draws[1:]]
    assert Sampler().sample(logits, draws).wait()[1:] == alone


def test_a_row_without_any_token_fails() -> None:
    [answer] = Sampler().sample(torch.full((1, 4), -math.inf), [draw()]).wait()
    assert isinstance(answer, ValueError)
    assert not isinstance(answer, NothingAllowed)


@PLACES
@pytest.mark.parametrize("low", [torch.finfo(torch.float32).min, -math.inf])
def test_logits_may_be_as_low_as_there_are_numbers(place: Place, low: float) -> None:
    kinds = [*KINDS, {"temperature": 1e-4, "top": 4}, {"temperature": 1e-4, "top_p": 0.5, "logit_bias": ((0, -9.0),)}]
    draws = [draw(row, **{**kind, "ids": [0, 2], "repetition_penalty": 2.0}) for row, kind in enumerate(kinds)]
    logits = torch.tensor([[low, 3e38, low, 3e38, low]] * len(draws))
    assert set(tokens(logits, draws, place)) <= {1, 3}


def test_nothing_asked_is_nothing_answered() -> None:
    assert Sampler().sample(torch.empty(0, 4), []).wait() == []
    assert Sampler().sample(torch.zeros(2, 4), [None, None]).wait() == []


def test_the_logits_are_not_changed() -> None:
    logits = torch.randn(len(KINDS), 50)
    before = logits.clone()
    Sampler().sample(logits, [draw(**kind, mask=b"\x55" * 7) for kind in KINDS])
    assert torch.equal(logits, before)


def test_random_numbers_are_a_function_of_seed_choice_and_position() -> None:
    numbers = {uniform(seed, choice, position) for seed in (-1, 0, 1) for choice in (0, 1) for position in (0, 1)}
    assert len(numbers) == 12
    assert all(0 <= number < 1 for number in numbers)
    assert uniform(7, 0, 3) == 0.32541466495141846  # the same on every machine and in every version


@PLACES
def test_each_choice_has_numbers_of_its_own(place: Place) -> None:
    logits = [[0.0] * 1000] * 8
    drawn = tokens(logits, [draw(3, choice=choice) for choice in range(8)], place)
    assert drawn == [int(uniform(0, choice, 3) * 1000) for choice in range(8)]
    assert len(set(drawn)) == 8


@PLACES
def test_half_precision_is_sampled_as_well(place: Place) -> None:
    logits = torch.tensor([[0.0, 4.0, 4.0]], dtype=torch.bfloat16)
    assert tokens(logits, [draw(temperature=0.0)], place) == [1]
    assert tokens(logits, [draw(top_k=1)], place) == [1]
    assert tokens(logits.half(), [draw(top_p=0.4)], place) == [1]


def test_what_runs_on_a_device_never_looks_at_values() -> None:
    kinds = [*KINDS, {"mask": b"\xff" * 125}, {"logit_bias": ((3, 1.0), (4, -100.0))}]
    asks = [None, Score(3, 2), *(draw(row, **kind) for row, kind in enumerate(kinds))]
    for dtype in (torch.float32, torch.bfloat16):
        logits = torch.empty(len(asks), 1000, dtype=dtype, device="meta")  # has shapes and no values
        assert Sampler(device).sample(logits, asks).tokens.shape == (len(asks),)


def test_the_tokens_of_a_step_can_be_used_where_they_are() -> None:
    answers = Sampler().sample(torch.tensor([LOGITS] * 3), [draw(top_k=1), None, draw(logit_bias=((2, 99.0),))])
    drawn = [answer.token for answer in answers.wait() if isinstance(answer, Sampled)]
    assert answers.tokens[[0, 2]].tolist() == drawn == [0, 2]
    assert answers.wait() == answers.wait()
