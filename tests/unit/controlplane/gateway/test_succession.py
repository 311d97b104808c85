"""Who goes on with a request whose engine is lost."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from controlplane.gateway.succession import successors
from controlplane.model import NodeId, ReplicaUid, Route

ROUTES = [
    Route("chat", index, ReplicaUid(f"r{index}"), 1, NodeId("a"), "a:1", f"e{index}", b"key", True, 0, 0)
    for index in range(6)
]
ids = st.text("abcdef0123456789", min_size=1, max_size=8)


@given(order=st.permutations(ROUTES), request_id=ids)
def test_two_gateways_that_know_the_same_replicas_choose_the_same(order: list[Route], request_id: str) -> None:
    assert successors(order, request_id) == successors(ROUTES, request_id)


@given(request_id=ids, gone=st.integers(0, 5))
def test_the_order_of_the_others_does_not_change_when_one_is_gone(request_id: str, gone: int) -> None:
    whole = successors(ROUTES, request_id)
    left = successors([each for each in ROUTES if each.index != gone], request_id)
    assert left == [each for each in whole if each.index != gone]


def test_requests_are_spread_over_the_replicas() -> None:
    first = [successors(ROUTES, f"request-{number}")[0].index for number in range(600)]
    assert all(first.count(index) > 50 for index in range(6))


def test_only_ready_replicas_are_asked() -> None:
    routes = [replace(ROUTES[0], is_ready=False), ROUTES[1], ROUTES[2]]
    assert {each.index for each in successors(routes, "r", without={"e2"})} == {1}
