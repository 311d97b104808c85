"""How a node is shown, and that it costs once what many look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from controlplane.api.node_views import NodeViews
from controlplane.fleet.intent import Intent
from controlplane.fleet.registry import Registry
from controlplane.fleet.table import Records, Table
from controlplane.model import GpuUuid, NodeId, Placement, ReplicaUid
from roundhouse.internal.v1.store_pb2 import NodeRecord
from roundhouse.v1.node_service_pb2 import NodeEvent
from tests.support.clock import FakeClock
from tests.support.scripted_agent import GIB, ScriptedAgent

PLACED = Placement(
    "chat", "uid", 0, ReplicaUid("r-1"), 1, NodeId("one"), (GpuUuid("SIM-one-0"),), reserved_bytes=2 * GIB
)


class Placed:
    """What is placed, in a test's hand."""

    def __init__(self) -> None:
        self.here: list[Placement] = []
        self.nodes = Table(cast("Records", None), "nodes/", NodeRecord.FromString)  # none is cordoned

    def placements_on(self, node: str) -> Sequence[Placement]:
        return [each for each in self.here if each.node == node]

    def placed_nodes(self) -> Sequence[str]:
        return [each.node for each in self.here]


class Bench:
    """Views of one node that has reported once."""

    def __init__(self) -> None:
        self.agent, self.placed, self.clock = ScriptedAgent("one"), Placed(), FakeClock()
        self.registry = Registry(self.clock, "cluster")
        self.views = NodeViews(self.registry, cast("Intent", self.placed), clock=self.clock)
        self.report()

    def report(self) -> None:
        message = self.agent.message()
        with self.registry.session(message) as session:
            session.record(message)


def test_a_view_is_made_once_for_each_report() -> None:
    bench = Bench()
    first = bench.views.event("one")
    assert bench.views.event("one") is first
    bench.agent.gpus[0].power_watts = 7.0
    bench.report()
    second = bench.views.event("one")
    assert second is not None
    assert NodeEvent.FromString(second).changed.gpus[0].power_watts == 7.0
    assert bench.views.event("one") is second
    assert bench.views.get("one") == NodeEvent.FromString(second).changed


def test_a_view_changes_with_what_is_placed_and_with_the_state_of_the_node() -> None:
    bench = Bench()
    bench.placed.here = [PLACED]
    placed = bench.views.get("one")
    assert placed is not None
    assert list(placed.gpus[0].replicas) == ["deployments/chat/replicas/0"]
    assert placed.gpus[0].available_memory_bytes == 22 * GIB
    bench.placed.here = [replace(PLACED, reserved_bytes=3 * GIB)]
    moved = bench.views.get("one")
    assert moved is not None
    assert moved.gpus[0].available_memory_bytes == 21 * GIB
    bench.clock.advance(10.0)
    bench.registry.expire()
    lost = bench.views.get("one")
    assert lost is not None
    assert lost.state != moved.state


def test_a_node_that_is_forgotten_is_shown_no_more() -> None:
    bench = Bench()
    assert bench.views.get("one") is not None
    for seconds in (10.0, 48 * 3600.0):
        bench.clock.advance(seconds)
        bench.registry.expire()
    assert bench.views.get("one") is None
    assert bench.views.ids() == []
