"""Which replica a request goes to."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.gateway.pick import Flight, pick
from controlplane.model import NodeId, ReplicaUid, Route


def route(index: int, *, ready: bool = True, running: int = 0, waiting: int = 0, stale: bool = False) -> Route:
    return Route(
        deployment="chat",
        index=index,
        replica_uid=ReplicaUid(f"r{index}"),
        epoch=1,
        node=NodeId("a"),
        address=f"127.0.0.1:{9000 + index}",
        engine_uuid=f"e{index}",
        engine_key=b"k",
        is_ready=ready,
        running_count=running,
        waiting_count=waiting,
        is_stale=stale,
    )


@dataclass
class Case:
    name: str
    routes: list[Route]
    want: str | None
    flights: dict[str, Flight] = field(default_factory=dict)
    tried: frozenset[str] = frozenset()
    shunned: frozenset[str] = frozenset()


CASES = [
    Case("nobody_there", [], None),
    Case("only_ready_replicas_count", [route(0, ready=False), route(1, running=9)], "e1"),
    Case(
        "the_least_reported_load_wins", [route(0, running=2), route(1, running=1, waiting=2), route(2, running=1)], "e2"
    ),
    Case("own_requests_count_before_the_report", [route(0), route(1, running=2)], "e1", {"e0": Flight(3, 1)}),
    Case("the_report_decides_between_equals", [route(0, running=4), route(1)], "e1", {"e0": Flight(0, 1)}),
    Case(
        "an_old_report_of_our_own_requests_keeps_nobody_away",
        [route(0, running=9), route(1)],
        "e0",
        {"e1": Flight(2, 1)},
    ),
    Case("a_report_that_is_stale_may_be_any_number", [route(0, stale=True), route(1, running=64, waiting=99)], "e1"),
    Case(
        "reports_that_are_all_stale_decide_nothing",
        [route(0, stale=True), route(1, running=9, stale=True)],
        "e1",
        {"e0": Flight(0, 1)},
    ),
    Case("equals_take_turns", [route(0), route(1)], "e1", {"e0": Flight(0, 7), "e1": Flight(0, 3)}),
    Case("one_never_picked_goes_first", [route(0), route(1)], "e1", {"e0": Flight(0, 7)}),
    Case("what_was_tried_is_left_out", [route(0), route(1, running=5)], "e1", tried=frozenset({"e0"})),
    Case(
        "what_is_shunned_goes_last", [route(0), route(1, running=5)], "e1", {"e1": Flight(3)}, shunned=frozenset({"e0"})
    ),
    Case("what_is_shunned_is_better_than_nothing", [route(0)], "e0", shunned=frozenset({"e0"})),
    Case("all_tried", [route(0)], None, tried=frozenset({"e0"})),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_pick(case: Case) -> None:
    picked = pick(case.routes, case.flights, tried=case.tried, shunned=case.shunned)
    assert (None if picked is None else picked.engine_uuid) == case.want


@given(st.integers(1, 6), st.integers(0, 60))
def test_a_burst_is_spread_evenly_over_equal_replicas(replicas: int, requests: int) -> None:
    routes = [route(index) for index in range(replicas)]
    flights: dict[str, Flight] = {}
    for number in range(requests):
        picked = pick(routes, flights)
        assert picked is not None
        flights[picked.engine_uuid] = Flight(flights.get(picked.engine_uuid, Flight()).count + 1, number + 1)
    counts = [flights.get(each.engine_uuid, Flight()).count for each in routes]
    assert sum(counts) == requests
    assert max(counts) - min(counts) <= 1
