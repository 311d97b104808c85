"""The registry: leases by the clock, one session per node, and what a report changes."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.fleet.changes import Marks
from controlplane.fleet.registry import FORGET_S, LEASE_S, Registry
from controlplane.model import GpuUuid, NodeId, Placement, ReplicaUid
from roundhouse.internal.v1.agent_service_pb2 import EngineReport, JoinRequest
from roundhouse.kit.errors import AlreadyExists
from roundhouse.v1 import deployment_pb2, node_pb2
from tests.support.clock import FakeClock
from tests.support.scripted_agent import ScriptedAgent


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def registry(clock: FakeClock) -> Registry:
    return Registry(clock, "cluster")


def report(node: str = "one", machine: str = "m1") -> JoinRequest:
    return ScriptedAgent(node, machine=machine).message()


def is_ready(registry: Registry) -> bool:
    return registry.known["one"].is_ready


def test_a_node_is_ready_from_its_first_report_and_lost_when_its_lease_is_over(
    registry: Registry, clock: FakeClock
) -> None:
    with registry.session(report()) as session:
        assert registry.known == {}
        session.record(report())
        clock.advance(LEASE_S)
        registry.expire()
        assert is_ready(registry)
        clock.advance(0.1)
        registry.expire()
        assert not is_ready(registry)
        assert not registry.nodes()[NodeId("one")].is_ready
        assert registry.known["one"].state_time_s == clock.now()
        session.record(report())
        assert is_ready(registry)


def test_a_node_that_obeys_another_cluster_is_none_of_ours_and_is_lost_all_the_same(
    registry: Registry, clock: FakeClock
) -> None:
    foreign = report()
    foreign.applied_order.cluster_id = "other"
    with registry.session(foreign) as session:
        session.record(foreign)
        assert (registry.known["one"].state, registry.nodes()) == (node_pb2.NODE_STATE_FOREIGN, {})
        clock.advance(LEASE_S + 1)
        registry.expire()
        assert registry.known["one"].state == node_pb2.NODE_STATE_LOST
        session.record(foreign)
        assert registry.known["one"].state == node_pb2.NODE_STATE_FOREIGN
        session.record(report())
        assert (registry.known["one"].state, len(registry.nodes())) == (node_pb2.NODE_STATE_READY, 1)


def test_a_node_that_obeys_a_later_term_is_none_of_ours_until_it_obeys_us(clock: FakeClock) -> None:
    registry, whole = Registry(clock, "cluster", term=3), report()
    whole.applied_order.term = 4
    with registry.session(whole) as session:
        session.record(whole)
        known = registry.known["one"]
        assert (known.state, known.is_ready, registry.nodes()) == (node_pb2.NODE_STATE_FOREIGN, False, {})
        assert registry.attendance().silent_s == {}
        assert "obeys term 4 of this cluster, and this control plane is of term 3" in registry.no_node().message
        whole.applied_order.term = 3
        session.record(whole)
        assert (registry.known["one"].state, len(registry.nodes())) == (node_pb2.NODE_STATE_READY, 1)


def test_the_end_of_a_session_alone_loses_no_node(registry: Registry, clock: FakeClock) -> None:
    with registry.session(report()) as session:
        session.record(report())
    clock.advance(LEASE_S)
    registry.expire()
    assert registry.known["one"].is_ready


def test_a_renewed_lease_is_whole(registry: Registry, clock: FakeClock) -> None:
    with registry.session(report()) as session:
        session.record(report())
        clock.advance(10 * LEASE_S)
        registry.renew()
        registry.expire()
        assert registry.known["one"].is_ready


def test_whoever_stood_still_himself_loses_nobody_and_listens_for_a_whole_lease_anew(
    registry: Registry, clock: FakeClock
) -> None:
    with registry.session(report()) as session:
        session.record(report())
        registry.look()
        clock.advance(60)
        assert registry.attendance().watched_s == 0
        registry.look()
        assert is_ready(registry)
        attendance = registry.attendance()
        assert (attendance.watched_s, attendance.silent_s, attendance.running_s) == (0, {}, 60)
        for _ in range(3):
            clock.advance(LEASE_S / 2)
            registry.look()
        assert not is_ready(registry)
        attendance = registry.attendance()
        assert (attendance.watched_s, attendance.silent_s) == (1.5 * LEASE_S, {"one": 1.5 * LEASE_S})


def test_a_node_is_silent_from_half_a_lease_on(registry: Registry, clock: FakeClock) -> None:
    with registry.session(report()) as session:
        session.record(report())
        clock.advance(LEASE_S / 2)
        assert registry.attendance().silent_s == {}
        clock.advance(0.1)
        assert registry.attendance().silent_s.keys() == {"one"}
        session.record(report())
        assert registry.attendance().silent_s == {}


def test_a_node_that_is_gone_for_a_day_is_forgotten(registry: Registry, clock: FakeClock) -> None:
    with registry.session(report()) as session:
        session.record(report())
    marks: Marks[str] = Marks()
    with registry.changes.to(lambda change: marks.mark(change.node)):
        for seconds in (LEASE_S + 1, FORGET_S):
            clock.advance(seconds)
            registry.expire()
            assert marks.take_now() == ["one"]
    assert registry.known == {}


def test_an_older_session_is_told_and_no_longer_heard(registry: Registry) -> None:
    with registry.session(report()) as older:
        older.record(report())
        with registry.session(report()) as newer:
            assert older.replaced.is_set()
            silent = report()
            silent.node.hostname = "from the older one"
            assert not older.record(silent)
            newer.record(report())
            assert registry.known["one"].report.node.hostname == "host-of-one"
    assert registry.known["one"].report_time_s


def test_a_node_id_in_use_is_refused_to_another_machine_until_it_is_lost(registry: Registry, clock: FakeClock) -> None:
    with registry.session(report()) as session:
        session.record(report())
        with pytest.raises(AlreadyExists, match="another machine"), registry.session(report(machine="m2")):
            pass
        clock.advance(LEASE_S + 1)
        registry.expire()
        with registry.session(report(machine="m2")) as other:  # the first hangs behind a cut cable
            assert session.replaced.is_set()
            other.record(report(machine="m2"))
            assert registry.known["one"].report.machine_id == "m2"


def test_only_what_calls_for_action_is_said_to_matter(registry: Registry) -> None:
    agent = ScriptedAgent("one")
    with registry.session(agent.message()) as session:
        assert session.record(agent.message())
        agent.gpus[0].utilization_fraction = 0.9
        assert not session.record(agent.message())
        engine = JoinRequest().engines.add(replica="deployments/a/replicas/0", replica_uid="u")
        agent.engines["u"] = engine
        assert session.record(agent.message())
        engine.load.running_count = 3
        assert not session.record(agent.message())
        engine.state = deployment_pb2.REPLICA_STATE_READY
        assert session.record(agent.message())
        agent.refusals["v"] = "no"
        assert session.record(agent.message())
        whole = agent.message()
        whole.applied_order.generation = 3
        assert session.record(whole)


def test_the_time_of_health_changes_with_health_alone(registry: Registry, clock: FakeClock) -> None:
    agent = ScriptedAgent("one")
    with registry.session(agent.message()) as session:
        session.record(agent.message())
        start_s = clock.now()
        clock.advance(1)
        session.record(agent.message())
        assert registry.known["one"].gpus_time_s == start_s
        agent.gpus[0].state = node_pb2.GPU_STATE_FAILED
        session.record(agent.message())
        assert registry.known["one"].gpus_time_s == clock.now()


@pytest.mark.parametrize("unknown", [99, -1, 0], ids=["of a newer agent", "negative", "unspecified"])
def test_states_that_are_not_known_are_what_the_contract_says(registry: Registry, unknown: Any) -> None:
    agent = ScriptedAgent("one")
    agent.engines["u"] = EngineReport(replica="deployments/a/replicas/0", replica_uid="u", state=unknown)
    agent.gpus[0].state = unknown
    with registry.session(agent.message()) as session:
        session.record(agent.message())
        known = registry.known["one"]
        assert known.engines["u"].state == deployment_pb2.REPLICA_STATE_STARTING
        assert not known.node.engines[0].is_gone
        assert [each.state for each in known.report.node.gpus] == [node_pb2.GPU_STATE_FAILED, node_pb2.GPU_STATE_OK]
        assert [each.is_healthy for each in known.node.gpus] == [False, True]
        assert not session.record(agent.message())


def test_an_order_of_another_cluster_counts_as_none(registry: Registry) -> None:
    whole = report()
    whole.applied_order.cluster_id, whole.applied_order.term, whole.applied_order.generation = "other", 5, 6
    with registry.session(whole) as session:
        session.record(whole)
        assert registry.known["one"].node.applied == (0, 0)
        whole.applied_order.cluster_id = "cluster"
        session.record(whole)
        assert registry.nodes()[NodeId("one")].applied == (5, 6)


def test_a_change_touches_only_the_placements_of_which_something_else_is_known(
    registry: Registry, clock: FakeClock
) -> None:
    agent = ScriptedAgent("one")
    one, two = (
        Placement("chat", "d", index, ReplicaUid(uid), 1, NodeId("one"), (GpuUuid("SIM-one-0"),), 5)
        for index, uid in enumerate("ab")
    )
    touched: list[tuple[bool, bool]] = []
    with (
        registry.changes.to(lambda change: touched.append((change.touches(one), change.touches(two)))),
        registry.session(agent.message()) as session,
    ):
        session.record(agent.message())
        session.record(agent.message())
        agent.engines["a"] = EngineReport(replica="deployments/chat/replicas/0", replica_uid="a")
        session.record(agent.message())
        agent.refusals["b"] = "no"
        session.record(agent.message())
        agent.gpus[0].index = 5
        session.record(agent.message())
        clock.advance(LEASE_S + 1)
        registry.expire()
    assert touched == [(True, True), (False, False), (True, False), (False, True), (True, True), (True, True)]
