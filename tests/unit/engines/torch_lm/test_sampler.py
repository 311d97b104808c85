import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engines.backends.torch_lm.sampling import device, host
from engines.backends.torch_lm.sampling.place import Place
from engines.backends.torch_lm.sampling.sampler import Sampler
from engines.batching.batch import Draw
from engines.model import Sampled, Sampling
from tests.support.draws import draw, tokens
from tests.support.slow_sampler import distribution, slow_token

PLACES = pytest.mark.parametrize("place", [host, device], ids=["host", "device"])
WEIGHTS = [0.5, 0.3, 0.15, 0.05]
LOGITS = [math.log(weight) for weight in WEIGHTS]
EDGE = 1e-5  # closer to it, rounding may decide


def chosen(logits: Sequence[float], place: Place, count: int = 400, **settings: Any) -> Counter[int]:
    """Draws at many positions."""
    return Counter(tokens([logits] * count, [draw(position, **settings) for position in range(count)], place))


@PLACES
def test_temperature_0_takes_the_largest_logit_and_of_equals_the_lowest_id(place: Place) -> None:
    logits = [[0.0, 3.0, 1.0, 3.0], [2.0, 2.0, 2.0, 2.0]]
    assert tokens(logits, [draw(temperature=0.0), draw(temperature=0.0)], place) == [1, 0]


@PLACES
@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 1}, {0}),
        ({"top_k": 100}, {0, 1, 2, 3}),
        ({"top_p": 0.499}, {0}),
        ({"top_p": 0.51}, {0, 1}),
        ({"top_p": 0.9}, {0, 1, 2}),
        ({"top_p": 1e-9}, {0}),
        ({"top_k": 2, "top_p": 0.6}, {0}),  # of what top_k keeps, 0 has 0.625
        ({"min_p": 0.2}, {0, 1, 2}),
        ({"min_p": 0.5}, {0, 1}),
        ({"min_p": 1.0}, {0}),
        # The entropy is 1.142; surprises are 0.69, 1.20, 1.90 and 3.00.
        ({"typical_p": 0.2}, {1}),
        ({"typical_p": 0.7}, {0, 1}),
        ({"typical_p": 0.9}, {0, 1, 2}),
        ({"typical_p": 0.2, "min_p": 1.0}, {1}),  # the likeliest of what is left
        ({"temperature": 0.01}, {0}),
        ({"temperature": 1e-300}, {0}),
    ],
    ids=str,
)
def test_what_is_kept(place: Place, settings: Mapping[str, Any], kept: set[int]) -> None:
    assert set(chosen(LOGITS, place, **settings)) == kept


@PLACES
@pytest.mark.parametrize("settings", [{"top_k": 3}, {"top_p": 0.3}, {"typical_p": 0.3}], ids=str)
def test_of_equals_the_lowest_ids_are_kept(place: Place, settings: Mapping[str, Any]) -> None:
    assert set(chosen([1.0] * 8, place, **settings)) == {0, 1, 2}


@PLACES
def test_a_token_that_is_ruled_out_never_comes(place: Place) -> None:
    logits = [-math.inf, 0.0, -math.inf, 0.0, -math.inf]
    for how in ({}, {"top_k": 4}, {"top_p": 0.99}, {"typical_p": 0.99}, {"min_p": 1e-9}):
        assert set(chosen(logits, place, **how)) == {1, 3}


TABLE: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "cold": {"temperature": 0.6},
    "hot": {"temperature": 2.0},
    "top_k": {"top_k": 3},
    "top_p": {"top_p": 0.7},
    "typical_p": {"typical_p": 0.6},
    "min_p": {"min_p": 0.3},
    "all filters": {"temperature": 1.5, "top_k": 5, "top_p": 0.95, "typical_p": 0.9, "min_p": 0.1},
    "repetition": {"repetition_penalty": 1.5},
    "presence": {"presence_penalty": 1.2},
    "frequency": {"frequency_penalty": 0.7},
    "negative penalties": {"repetition_penalty": 0.7, "presence_penalty": -0.5, "frequency_penalty": -0.4},
    "bias": {"logit_bias": ((1, 1.0), (4, -1.0), (0, -100.0))},
    "bad words": {"bad_words": ((3,), (2, 2, 0), (1, 5))},
    "min_tokens": {"min_tokens": 10_000, "end_ids": frozenset({0, 4})},
    "mask": {"mask": bytes([0b101101])},
    "all edits": {
        "repetition_penalty": 1.25,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "logit_bias": ((2, 0.5),),
        "bad_words": ((5,),),
        "mask": bytes([0b111110]),
        "top_p": 0.9,
    },
}


@PLACES
@pytest.mark.parametrize("settings", TABLE.values(), ids=TABLE)
def test_tokens_come_as_often_as_their_probability_says(place: Place, settings: Mapping[str, Any]) -> None:
    logits, count = [1.0, 0.4, 0.1, -0.3, -0.6, -1.2], 3000
    own = {"ids": [0, 1, 3, 1, 2, 2], "prompt_count": 3, **settings}
    draws = [draw(position, **own) for position in range(3, 3 + count)]
    counts = Counter(tokens([logits] * count, draws, place))
    for token, share in enumerate(distribution(logits, draws[0]).shares):
        assert counts[token] / count == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / count))


LOGIT = st.one_of(st.integers(-24, 24).map(lambda eighths: eighths / 8), st.just(-math.inf))
SAMPLING = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 2.0]),
        "top_k": st.sampled_from([0, 1, 2, 3, 7, 50]),
        "top_p": st.sampled_from([0.1, 0.5, 0.9, 0.99, 1.0]),
        "typical_p": st.sampled_from([0.2, 0.7, 0.95, 1.0]),
        "min_p": st.sampled_from([0.0, 0.05, 0.3, 1.0]),
        "repetition_penalty": st.sampled_from([1.0, 1.25, 0.5, 2.0]),
        "presence_penalty": st.sampled_from([0.0, 0.5, -1.0, 2.0]),
        "frequency_penalty": st.sampled_from([0.0, 0.25, -0.5, 2.0]),
        "min_tokens": st.sampled_from([0, 2]),
        "seed": st.integers(-(2**63), 2**63 - 1),
    }
)


@st.composite
def asked(draws: st.DrawFn) -> tuple[list[float], Draw]:
    size = draws(st.integers(1, 12))
    token = st.integers(0, size - 1)
    ids = draws(st.lists(token, max_size=10))
    prompt_count = draws(st.integers(0, len(ids)))
    bias = draws(st.dictionaries(token, st.sampled_from([-100.0, -1.5, 0.5, 3.0]), max_size=3))
    words = draws(st.lists(st.lists(token, min_size=1, max_size=3).map(tuple), max_size=2))
    allowed = draws(st.one_of(st.none(), st.binary(min_size=-(-size // 8), max_size=-(-size // 8))))
    how: Any = draws(SAMPLING)
    how = Sampling(**how, logit_bias=tuple(bias.items()), bad_words=tuple(words))
    ends = frozenset(draws(st.sets(token, max_size=1)))
    logits = draws(st.lists(LOGIT, min_size=size, max_size=size))
    return logits, Draw(how, len(ids) - prompt_count, draws(st.integers(0, 3)), ids, prompt_count, ends, allowed)


@settings(deadline=None, max_examples=400)
@given(asks=st.lists(asked(), min_size=1, max_size=4))
def test_any_draw_gives_what_plain_python_gives(asks: list[tuple[list[float], Draw]]) -> None:
    for logits, each in asks:
        for place in (host, device):
            [answer] = Sampler(place).sample(torch.tensor([logits]), [each]).wait()
            try:
                token, margin = slow_token(logits, each)
            except ValueError:
                assert isinstance(answer, ValueError)
            else:
                assume(margin > EDGE)
                assert isinstance(answer, Sampled)
                assert answer.token == token
