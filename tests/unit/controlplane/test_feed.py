"""Routes told as changes, and put together again at the other end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.feed import Copy, changes
from controlplane.model import NodeId, ReplicaUid, Route, Routes
from controlplane.routing_policies import RoutingPolicy
from roundhouse.internal.v1.fleet_service_pb2 import DeploymentRoutes, RoutesEvent
from roundhouse.v1.watch_pb2 import Bookmark

NAMES = st.sampled_from(["a", "b", "c"])
COUNTS = st.integers(0, 3)


@st.composite
def a_route(draw: st.DrawFn, deployment: str) -> Route:
    index = draw(COUNTS)
    uid = ReplicaUid(f"r{index}")
    key = bytes([draw(COUNTS)])
    return Route(
        deployment,
        index,
        uid,
        draw(COUNTS),
        NodeId("n"),
        "h:1",
        "e",
        key,
        draw(st.booleans()),
        draw(COUNTS),
        1,
        is_stale=draw(st.booleans()),
        used_block_eighths=draw(COUNTS),
        fingerprint=draw(st.sampled_from(["", "f", "g"])),
        max_running_count=draw(COUNTS),
        kv_token_count=draw(COUNTS),
    )


@st.composite
def some_routes(draw: st.DrawFn) -> Routes:
    present = sorted(draw(st.sets(NAMES)))
    replicas = {name: tuple(draw(st.lists(a_route(name), max_size=2))) for name in present}
    deleting = frozenset(name for name in present if draw(st.booleans()))
    silent = {
        name: {ReplicaUid(f"s{index}"): index for index in draw(st.sets(COUNTS, min_size=1))}
        for name in present
        if draw(st.booleans())
    }
    policies: dict[str, RoutingPolicy] = {name: "round_robin" for name in present if draw(st.booleans())}
    return Routes(replicas, deleting, silent, policies, gateway_count=draw(st.integers(1, 3)))


@given(st.lists(some_routes(), min_size=1, max_size=4))
def test_whoever_is_told_what_changed_knows_what_is(looks: list[Routes]) -> None:
    copy, told = Copy(), Routes({})
    for routes in looks:
        for event in changes(told, routes):
            assert copy.take(event) is None  # half a look is not looked at
        assert copy.take(RoutesEvent(bookmark=Bookmark())) == routes
        assert list(changes(routes, routes)) == []
        told = routes


def test_what_a_later_version_routes_by_is_routed_by_the_default() -> None:
    copy = Copy()
    copy.take(RoutesEvent(changed=DeploymentRoutes(deployment="a", routing_policy="by_the_moon")))
    assert copy.take(RoutesEvent(bookmark=Bookmark())) == Routes({"a": ()})


def test_an_event_of_a_later_version_is_skipped() -> None:
    copy = Copy()
    assert copy.take(RoutesEvent()) is None
    assert copy.take(RoutesEvent(bookmark=Bookmark())) == Routes({})
