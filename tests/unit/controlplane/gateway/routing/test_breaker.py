"""When requests are kept from a replica that fails."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.gateway.routing.breaker import (
    FIRST_OPEN_S,
    FORGET_S,
    LONGEST_OPEN_S,
    OUTCOME_COUNT,
    PROBE_S,
    Breaker,
    Gate,
    failed,
    succeeded,
)


def test_one_failure_opens_it_for_a_moment_and_then_one_request_may_find_out() -> None:
    breaker = failed(None, 100.0)
    assert breaker.gate(100.0 + FIRST_OPEN_S / 2) is Gate.OPEN
    assert breaker.gate(100.0 + FIRST_OPEN_S) is Gate.HALF_OPEN
    probed = breaker.probed(101.0)
    assert probed.gate(101.5) is Gate.OPEN
    assert probed.gate(101.0 + PROBE_S) is Gate.HALF_OPEN
    assert probed.released().gate(101.5) is Gate.HALF_OPEN


def test_a_probe_that_succeeds_closes_it_and_one_that_fails_opens_it_for_twice_as_long() -> None:
    half_open = failed(None, 0.0).probed(1.0)
    closed = succeeded(half_open, 1.1)
    assert closed is not None
    assert closed.gate(1.1) is Gate.CLOSED
    again = failed(half_open, 1.1)
    assert again.gate(1.1 + 2 * FIRST_OPEN_S - 0.01) is Gate.OPEN
    assert again.gate(1.1 + 2 * FIRST_OPEN_S) is Gate.HALF_OPEN


def test_many_that_end_at_one_moment_are_one_failure() -> None:
    breaker = failed(None, 0.0)
    for _ in range(20):
        breaker = failed(breaker, 0.01)
    assert breaker.gate(FIRST_OPEN_S) is Gate.HALF_OPEN


def test_what_was_sent_before_and_ends_well_does_not_close_it() -> None:
    breaker = failed(None, 0.0)
    assert succeeded(breaker, 0.5) is breaker


def test_failures_between_successes_keep_requests_away_for_longer_and_longer() -> None:
    breaker: Breaker | None = None
    now_s, opens_s = 0.0, []
    for _ in range(8):
        breaker = failed(breaker, now_s)
        assert breaker.open_until_s is not None
        opens_s.append(breaker.open_until_s - now_s)
        now_s = breaker.open_until_s
        breaker = succeeded(breaker, now_s)
    assert opens_s == [1, 2, 4, 8, 16, LONGEST_OPEN_S, LONGEST_OPEN_S, LONGEST_OPEN_S]


def test_failures_that_requests_may_have_caused_open_it_when_they_are_four_and_half_of_all() -> None:
    breaker: Breaker | None = None
    for _ in range(3):
        breaker = failed(breaker, 0.0, is_certain=False)
        assert breaker.gate(0.0) is Gate.CLOSED
    assert failed(breaker, 0.0, is_certain=False).gate(0.0) is Gate.OPEN
    for _ in range(5):
        assert breaker is not None
        breaker = succeeded(breaker, 0.0)
    breaker = failed(breaker, 0.0, is_certain=False)
    assert breaker.gate(0.0) is Gate.CLOSED
    assert failed(breaker, 0.0, is_certain=False).gate(0.0) is Gate.OPEN


def test_a_probe_that_fails_in_whatever_way_opens_it_again() -> None:
    breaker = failed(failed(None, 0.0).probed(1.0), 1.0, is_certain=False)
    assert breaker.gate(1.5) is Gate.OPEN


def test_a_failure_is_forgotten_after_enough_successes_or_a_minute() -> None:
    breaker: Breaker | None = failed(None, 0.0)
    for _ in range(OUTCOME_COUNT):
        assert breaker is not None
        breaker = succeeded(breaker, 2.0)
    assert breaker is None
    old = failed(failed(None, 0.0), 2.0)
    late = failed(old, 2.0 + FORGET_S + 1)
    assert late.gate(2.0 + FORGET_S + 1 + FIRST_OPEN_S) is Gate.HALF_OPEN


@given(st.lists(st.tuples(st.floats(0, 40), st.booleans()), max_size=60))
def test_it_is_never_open_for_longer_than_half_a_minute_after_the_last_failure(
    outcomes: list[tuple[float, bool]],
) -> None:
    breaker: Breaker | None = None
    now_s = 0.0
    for after_s, is_failure in outcomes:
        now_s += after_s
        if is_failure:
            breaker = failed(breaker, now_s)
        elif breaker is not None:
            breaker = succeeded(breaker, now_s)
        assert breaker is None or len(breaker.outcomes) <= OUTCOME_COUNT
    assert breaker is None or breaker.gate(now_s + LONGEST_OPEN_S) is not Gate.OPEN
