import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.backends.torch_lm.sampling import device, host
from engines.backends.torch_lm.sampling.place import Place
from engines.backends.torch_lm.sampling.sampler import Sampler
from engines.batching.batch import Ask, Score
from engines.model import Logprobs, Sampled, TokenLogprob
from tests.support.draws import draw

PLACES = pytest.mark.parametrize("place", [host, device], ids=["host", "device"])
LOGITS = [math.log(weight) for weight in (0.15, 0.5, 0.05, 0.3)]


def logprobs(logits: Sequence[float], ask: Ask, place: Place) -> Logprobs | None:
    [answer] = Sampler(place).sample(torch.tensor([logits]), [ask]).wait()
    assert not isinstance(answer, Exception)
    return answer.logprobs if isinstance(answer, Sampled) else answer


def near(token: int, share: float, rank: int) -> TokenLogprob:
    nearly: Any = pytest.approx(math.log(share), abs=1e-6)
    return TokenLogprob(token, nearly, rank)


@PLACES
def test_a_token_of_the_prompt_is_told_with_the_likeliest(place: Place) -> None:
    told = logprobs(LOGITS, Score(0, 2), place)
    assert told == Logprobs(near(0, 0.15, 3), (near(1, 0.5, 1), near(3, 0.3, 2)))


@PLACES
def test_a_drawn_token_is_told_with_as_many_as_were_asked_for(place: Place) -> None:
    greedy = draw(temperature=0.0)
    assert logprobs(LOGITS, greedy, place) is None
    assert logprobs(LOGITS, draw(temperature=0.0, top=0), place) == Logprobs(near(1, 0.5, 1), ())
    assert logprobs(LOGITS, draw(temperature=0.0, top=1), place) == Logprobs(near(1, 0.5, 1), (near(1, 0.5, 1),))


@PLACES
def test_more_than_there_are_tokens_is_all_of_them(place: Place) -> None:
    told = logprobs(LOGITS, Score(2, 20), place)
    assert told is not None
    assert [each.token for each in told.top] == [1, 3, 0, 2]


@PLACES
def test_it_is_the_models_own_opinion(place: Place) -> None:
    plain = logprobs(LOGITS, draw(temperature=0.0, top=2), place)
    assert plain is not None
    asks = [
        draw(temperature=0.1, top=2, top_k=2, top_p=0.6, min_p=0.5),
        draw(top=2, top_k=1, logit_bias=((2, 9.0),)),
        draw(top=2, mask=b"\x04", ids=[1, 1], repetition_penalty=2.0, frequency_penalty=2.0),
    ]
    for ask, token in zip(asks, (1, 2, 2), strict=True):
        told = logprobs(LOGITS, ask, place)
        assert told is not None
        assert told.top == plain.top
        assert told.chosen == near(token, {1: 0.5, 2: 0.05}[token], {1: 1, 2: 4}[token])


@PLACES
def test_equals_are_ranked_by_id(place: Place) -> None:
    told = logprobs([1.0, 2.0, 1.0, 1.0], Score(3, 3), place)
    assert told is not None
    assert told.chosen.rank == 4
    assert [each.token for each in told.top] == [1, 0, 2]


@PLACES
@settings(deadline=None)
@given(logits=st.lists(st.integers(-40, 40).map(lambda each: each / 4), min_size=1, max_size=30), data=st.data())
def test_it_is_the_logarithm_of_the_softmax(place: Place, logits: list[float], data: st.DataObject) -> None:
    token, top = data.draw(st.integers(0, len(logits) - 1)), data.draw(st.integers(0, 20))
    told = logprobs(logits, Score(token, top), place)
    log_total = math.log(sum(math.exp(each) for each in logits))
    order = sorted(range(len(logits)), key=lambda each: (-logits[each], each))
    assert told is not None
    for each in (told.chosen, *told.top):
        assert each.logprob == pytest.approx(logits[each.token] - log_total, abs=2e-6)
        assert order[each.rank - 1] == each.token
    assert [each.rank for each in told.top] == list(range(1, min(top, len(logits)) + 1))
    assert told.chosen.token == token


@PLACES
def test_a_large_vocabulary_is_told_as_torch_does(place: Place) -> None:
    logits = torch.randn(3, 50_000, generator=torch.Generator().manual_seed(3)) * 3
    asks: list[Ask] = [Score(17, 20), draw(top=20), Score(49_999, 1)]
    expected = logits.log_softmax(-1)
    for row, answer in enumerate(Sampler(place).sample(logits, asks).wait()):
        told = answer.logprobs if isinstance(answer, Sampled) else answer
        assert isinstance(told, Logprobs)
        for each in (told.chosen, *told.top):
            assert each.logprob == pytest.approx(float(expected[row, each.token]), abs=1e-5)
            assert each.rank == 1 + int((logits[row] > logits[row, each.token]).sum())


@PLACES
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_fail_alone(place: Place, bad: float) -> None:
    logits = torch.tensor([LOGITS, [bad] * 4, LOGITS])
    one, wrong, other = Sampler(place).sample(logits, [Score(1, 1)] * 3).wait()
    assert one == other == Logprobs(near(1, 0.5, 1), (near(1, 0.5, 1),))
    assert isinstance(wrong, ValueError)


@PLACES
def test_a_token_that_is_impossible_is_told_so(place: Place) -> None:
    told = logprobs([0.0, -math.inf, 0.0], Score(1, 0), place)
    assert told == Logprobs(TokenLogprob(1, -math.inf, 3), ())
