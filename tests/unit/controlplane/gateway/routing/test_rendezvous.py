"""An order for each key that everybody finds alike."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from controlplane.gateway.routing.rendezvous import first_of
from controlplane.model import Route
from tests.support.routed import a_route

ROUTES = [a_route(index) for index in range(6)]


@given(st.text(), st.permutations(ROUTES))
def test_the_order_of_the_routes_does_not_matter(key: str, routes: list[Route]) -> None:
    assert first_of(key, routes) == first_of(key, ROUTES)


@given(st.text(), st.integers(0, 5))
def test_only_those_move_that_were_where_a_replica_is_gone(key: str, gone: int) -> None:
    left = [each for each in ROUTES if each.index != gone]
    before = first_of(key, ROUTES)
    assert first_of(key, left) == before or before.index == gone


def test_keys_are_spread() -> None:
    counts = Counter(first_of(f"key {number}", ROUTES).index for number in range(1200))
    assert len(counts) == len(ROUTES)
    assert max(counts.values()) < 260


def test_it_is_the_same_in_every_process() -> None:
    assert [first_of(key, ROUTES).index for key in ("a", "b", "c", "d")] == [2, 5, 0, 1]


def test_a_key_may_hold_anything() -> None:
    assert first_of("\ud800", ROUTES) in ROUTES
