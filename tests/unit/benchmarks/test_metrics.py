"""Figures say what happened."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.support.metrics import Bytes, Goal, figures, percentile, roofline_fraction, served
from benchmarks.support.wire import Outcome, Request

GOAL = Goal(first_token_s=1.0, token_s=0.5)
REQUESTS = [Request((1, 2), 3, at_s=0.0), Request((1, 2), 3, at_s=2.0), Request((1, 2), 1, at_s=3.0)]
OUTCOME = Outcome(wall_s=9.0, cpu_s=14.0, token_times_s=[[0.5, 0.75, 1.0], [3.5, 4.0, 6.5], [3.25]])


def test_figures_of_a_run() -> None:
    found = figures(REQUESTS, OUTCOME, GOAL)
    assert found.tokens_per_s == pytest.approx(7 / 6.5)
    assert found.tokens_per_cpu_s == pytest.approx(0.5)
    assert found.first_token_p50_s == pytest.approx(0.5)
    assert found.token_p50_s == pytest.approx((0.25 + 1.5) / 2)
    assert found.gap_p99_s == pytest.approx(percentile([0.25, 0.25, 0.5, 2.5], 99))


def test_a_request_is_good_if_neither_its_first_token_nor_the_others_took_too_long() -> None:
    found = figures(REQUESTS, OUTCOME, GOAL)
    assert found.good_fraction == pytest.approx(2 / 3)
    assert found.good_per_s == pytest.approx(2 / 6.5)
    assert figures(REQUESTS, OUTCOME, Goal(0.4, 0.5)).good_fraction == pytest.approx(1 / 3)


def test_a_run_that_gave_too_few_tokens_counts_for_nothing() -> None:
    short = Outcome(9.0, 14.0, [[0.5, 0.75], [3.5, 4.0, 6.5], [3.25]])
    with pytest.raises(ValueError, match="6 tokens came, not 7"):
        served(REQUESTS, short)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 100))
def test_a_percentile_lies_among_the_values(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert min(values) <= found <= max(values)
    assert percentile(values, 50) == pytest.approx(statistics.median(values), abs=1e-6)


def test_the_percentile_of_nothing_is_no_number() -> None:
    assert math.isnan(percentile([], 50))


def test_a_step_at_the_speed_of_the_memory_is_all_of_the_roofline() -> None:
    read = Bytes(weights=1_000, token=10)
    step_bytes = 1_000 + 4 * (64 + 64.5) * 10
    assert roofline_fraction(read, 4, 64, 128, token_s=step_bytes / 500, bandwidth=500) == pytest.approx(1.0)
    assert roofline_fraction(read, 4, 64, 128, token_s=step_bytes / 250, bandwidth=500) == pytest.approx(0.5)
