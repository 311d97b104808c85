"""How fast a line gets on, as it is measured."""

from __future__ import annotations

import pytest

from controlplane.gateway.admission.drain import Drain


def busy(drain: Drain, begin_s: float, seconds: int, per_s: float) -> float:
    drain.tick(begin_s, is_waiting=True)
    for second in range(1, seconds + 1):
        drain.add(per_s)
        drain.tick(begin_s + second, is_waiting=True)
    return begin_s + seconds


def test_nothing_is_said_before_something_waited_for_a_while() -> None:
    drain = Drain()
    assert drain.wait_s(10) is None
    drain.add(100)
    drain.tick(0.0, is_waiting=False)
    drain.tick(100.0, is_waiting=True)
    assert drain.wait_s(10) is None
    drain.add(5)
    drain.tick(100.4, is_waiting=True)
    assert drain.wait_s(10) is None


def test_what_waits_takes_as_long_as_the_like_took() -> None:
    drain = Drain()
    busy(drain, 0.0, 30, 50.0)
    assert drain.wait_s(200) == pytest.approx(4.0)


def test_times_without_anybody_waiting_count_for_nothing() -> None:
    drain = Drain()
    end_s = busy(drain, 0.0, 10, 50.0)
    drain.tick(end_s, is_waiting=False)
    drain.add(1_000_000)
    busy(drain, end_s + 1000, 10, 50.0)
    assert drain.wait_s(200) == pytest.approx(4.0)


def test_what_is_new_counts_more_than_what_is_old() -> None:
    drain = Drain()
    end_s = busy(drain, 0.0, 60, 50.0)
    busy(drain, end_s, 30, 100.0)
    assert drain.wait_s(200) == pytest.approx(2.0, rel=0.1)


def test_where_nothing_gets_on_the_wait_grows() -> None:
    drain = Drain()
    end_s = busy(drain, 0.0, 30, 50.0)
    drain.tick(end_s + 20, is_waiting=True)
    wait_s = drain.wait_s(200)
    assert wait_s is not None
    assert wait_s > 20
