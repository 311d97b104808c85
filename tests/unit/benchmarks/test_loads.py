"""Every engine is asked the same things, and no run is answered from an earlier one's cache."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.support.loads import (
    LOADS,
    LONGEST,
    OUTPUT_MEAN,
    PROMPT_MEAN,
    Closed,
    closed_requests,
    mixed_requests,
    open_requests,
    output_token_count,
)
from benchmarks.support.models import CONTEXT

CLOSED = [load for load in LOADS.values() if isinstance(load, Closed)]


@pytest.mark.parametrize("load", CLOSED, ids=lambda load: load.name)
def test_a_closed_load_is_what_it_says(load: Closed) -> None:
    requests = closed_requests(load, 100, "1")
    assert len(requests) == load.count
    assert {(len(request.prompt), request.output_count, request.at_s) for request in requests} == {
        (load.prompt_count, load.output_count, 0.0)
    }
    assert len({request.prompt[: load.shared_count] for request in requests}) == 1
    assert len({request.prompt[load.shared_count :] for request in requests}) == load.count
    assert load.prompt_count + load.output_count <= CONTEXT
    assert output_token_count(requests) == load.count * load.output_count


def test_the_same_seed_gives_the_same_requests_and_another_one_other_prompts() -> None:
    load = LOADS["shared-prefix"]
    assert isinstance(load, Closed)
    one, again, other = (closed_requests(load, 5000, seed) for seed in ("1", "1", "2"))
    assert one == again
    assert not {request.prompt[:16] for request in one} & {request.prompt[:16] for request in other}


def test_mixed_lengths_have_the_means_that_they_are_to_have() -> None:
    requests = mixed_requests(20_000, 10, "1")
    assert statistics.fmean(len(request.prompt) for request in requests) == pytest.approx(PROMPT_MEAN, rel=0.05)
    assert statistics.fmean(request.output_count for request in requests) == pytest.approx(OUTPUT_MEAN, rel=0.05)


@given(rate=st.floats(0.01, 300), duration_s=st.floats(0.1, 5), seed=st.text(max_size=3))
def test_open_requests_come_one_after_the_other_and_fit_every_model(rate: float, duration_s: float, seed: str) -> None:
    requests = open_requests(rate, duration_s, 10, seed)
    times = [request.at_s for request in requests]
    assert requests
    assert times == sorted(times)
    assert times[-1] < duration_s
    for request in requests:
        assert 2 <= len(request.prompt) <= LONGEST
        assert 2 <= request.output_count <= LONGEST
        assert len(request.prompt) + request.output_count <= CONTEXT


def test_open_requests_come_at_the_rate_that_is_asked_for() -> None:
    assert len(open_requests(50, 200, 10, "1")) == pytest.approx(10_000, rel=0.05)
