"""How many requests are tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.gateway.routing.budget import FLOOR_PER_S, MOST, RETRY_FRACTION, Budget


def spent(budget: Budget, now_s: float) -> tuple[Budget, int]:
    count = 0
    while (left := budget.with_retry(now_s)) is not None:
        budget, count = left, count + 1
    return budget, count


def test_where_nothing_came_for_long_a_few_may_be_tried_again() -> None:
    empty, count = spent(Budget(), 0.0)
    assert count == MOST
    assert spent(empty, 5.0)[1] == 5 * FLOOR_PER_S


def test_five_requests_earn_a_retry() -> None:
    budget, _ = spent(Budget(), 0.0)
    for _ in range(4):
        budget = budget.with_request()
    assert budget.with_retry(0.0) is None
    assert budget.with_request().with_retry(0.0) is not None


@given(st.lists(st.tuples(st.sampled_from(["request", "retry"]), st.floats(0, 3)), max_size=200))
def test_retries_are_a_share_of_the_requests_and_a_small_floor(events: list[tuple[str, float]]) -> None:
    budget, now_s, requests, retries = Budget(), 0.0, 0, 0
    for kind, after_s in events:
        now_s += after_s
        if kind == "request":
            budget, requests = budget.with_request(), requests + 1
        elif (left := budget.with_retry(now_s)) is not None:
            budget, retries = left, retries + 1
        assert retries <= MOST + RETRY_FRACTION * requests + FLOOR_PER_S * now_s + 1e-6
