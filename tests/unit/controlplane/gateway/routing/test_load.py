"""How busy a replica is taken to be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.gateway.routing.asked import Asked
from controlplane.gateway.routing.load import (
    OUTPUT_WEIGHT,
    SETTLE_S,
    Own,
    Peak,
    Typical,
    free_fraction,
    tokens_at,
)
from tests.support.routed import a_route

TYPICAL = Typical(prompt_tokens=100, output_tokens=10)
WAITING = 100 + 10 * OUTPUT_WEIGHT
RUNNING = 5 * OUTPUT_WEIGHT


def test_what_runs_elsewhere_counts_as_half_a_typical_output_and_what_waits_as_a_typical_request() -> None:
    assert tokens_at(a_route(0, running_count=2, waiting_count=3), Own(), TYPICAL) == 2 * RUNNING + 3 * WAITING


def test_what_is_ours_is_known_exactly_and_not_taken_from_the_report_as_well() -> None:
    own = Own(700.0, 2)
    assert tokens_at(a_route(0, running_count=2), own, TYPICAL) == 700
    assert tokens_at(a_route(0, running_count=3), own, TYPICAL) == 700 + RUNNING
    assert tokens_at(a_route(0, running_count=1, waiting_count=2), own, TYPICAL) == 700 + WAITING


def test_what_was_just_sent_counts_before_any_report_holds_it() -> None:
    assert tokens_at(a_route(0), Own(50.0, 1), TYPICAL) == 50


def test_what_of_an_old_report_was_ours_and_has_ended_counts_no_more() -> None:
    assert tokens_at(a_route(0, running_count=9), Own(0.0, 9), TYPICAL) == 0


def test_of_a_load_that_is_stale_only_our_own_is_known() -> None:
    route = a_route(0, running_count=9, used_block_eighths=7, is_stale=True)
    assert tokens_at(route, Own(50.0, 1), TYPICAL) == 50
    assert free_fraction(route) == 1


@pytest.mark.parametrize(("eighths", "free"), [(0, 1.0), (4, 0.5), (7, 0.125), (8, 0.0625)])
def test_a_full_cache_leaves_a_little(eighths: int, free: float) -> None:
    assert free_fraction(a_route(0, used_block_eighths=eighths)) == free


def test_a_request_costs_what_is_not_cached_and_the_output_that_may_be_expected() -> None:
    asked = Asked(token_count=80, choice_count=2)
    assert TYPICAL.cost_of(asked) == 80 + 2 * 10 * OUTPUT_WEIGHT
    assert TYPICAL.cost_of(asked, cached_token_count=64) == 16 + 2 * 10 * OUTPUT_WEIGHT
    assert TYPICAL.cost_of(asked, cached_token_count=999) == 2 * 10 * OUTPUT_WEIGHT
    assert TYPICAL.cost_of(Asked(max_tokens=3)) == 3 * OUTPUT_WEIGHT


def test_what_is_typical_follows_what_comes() -> None:
    typical = Typical()
    for _ in range(300):
        typical = typical.with_prompt(1000).with_output(50)
    assert typical.prompt_tokens == pytest.approx(1000, rel=0.01)
    assert typical.output_tokens == pytest.approx(50, rel=0.01)


def test_fronts_repeat_if_every_tenth_is_known() -> None:
    typical = Typical()
    assert not typical.fronts_repeat
    for number in range(300):
        typical = typical.with_front(is_known=number % 4 == 0)
    assert typical.fronts_repeat
    for _ in range(100):
        typical = typical.with_front(is_known=False)
    assert not typical.fronts_repeat


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 20)), max_size=30), st.floats(0, 10))
def test_a_peak_holds_all_of_the_last_span_and_nothing_that_is_older_than_three(
    changes: list[tuple[float, int]], wait_s: float
) -> None:
    peak, now_s, count, history = Peak(), 0.0, 0, [(float("-inf"), 0)]  # since when it was so
    for after_s, value in changes:
        now_s += after_s
        peak = peak.at(max(count, value), now_s)
        count = value
        history.append((now_s, value))
    now_s += wait_s
    ends = [*(begin_s for begin_s, _ in history[1:]), now_s]
    told = peak.most(count, now_s)

    def most(span_s: float) -> int:
        return max(
            value for (_, value), end_s in zip(history, ends, strict=True) if end_s > now_s - span_s or value == count
        )

    assert most(SETTLE_S) <= told <= max(most(3 * SETTLE_S + 1e-6), count)
