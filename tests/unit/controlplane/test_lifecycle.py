"""Lifecycle: the state of a replica and of a deployment as tables, and times that stay while nothing changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane import lifecycle
from controlplane.lifecycle import Rolling, Sighting
from controlplane.model import GpuUuid, NodeId, Placement, ReplicaUid
from controlplane.rolling import Progress
from roundhouse.internal.v1 import store_pb2
from roundhouse.internal.v1.agent_service_pb2 import EngineReport
from roundhouse.internal.v1.store_pb2 import Rollout
from roundhouse.kit.times import from_timestamp, to_timestamp
from roundhouse.v1 import condition_pb2, deployment_pb2, node_pb2
from roundhouse.v1.deployment_pb2 import Deployment, LaunchProgress, Replica

WANTED = Deployment(name="deployments/chat", uid="d", generation=4, replica_count=3)
PLACED = Placement("chat", "d", 0, ReplicaUid("r"), 2, NodeId("one"), (GpuUuid("g"),), 5)
STOPPING = replace(PLACED, is_stopping=True)
STEADY = Rolling(Rollout())
PENDING = deployment_pb2.REPLICA_STATE_PENDING
PREPARING = deployment_pb2.REPLICA_STATE_PREPARING
STARTING = deployment_pb2.REPLICA_STATE_STARTING
READY = deployment_pb2.REPLICA_STATE_READY
DRAINING = deployment_pb2.REPLICA_STATE_DRAINING
STOPPED = deployment_pb2.REPLICA_STATE_STOPPED
FAILED = deployment_pb2.REPLICA_STATE_FAILED
NOT_SEEN = deployment_pb2.REPLICA_STATE_UNKNOWN
FOREIGN = node_pb2.NODE_STATE_FOREIGN
IS_READY, UNKNOWN, LOST = node_pb2.NODE_STATE_READY, node_pb2.NODE_STATE_UNKNOWN, node_pb2.NODE_STATE_LOST
TRUE = condition_pb2.CONDITION_STATUS_TRUE
FALSE = condition_pb2.CONDITION_STATUS_FALSE
NOT_KNOWN = condition_pb2.CONDITION_STATUS_UNKNOWN


def reported(state: deployment_pb2.ReplicaState, message: str = "") -> EngineReport:
    return EngineReport(replica_uid="r", state=state, message=message, state_time=to_timestamp(7), pid=9)


CASES: dict[str, tuple[Placement, Sighting, deployment_pb2.ReplicaState, str, condition_pb2.ConditionStatus]] = {
    "assigned, not taken over": (PLACED, Sighting(IS_READY), PREPARING, "has not taken it over", FALSE),
    "refused": (PLACED, Sighting(IS_READY, refusal="no memory"), PREPARING, "no memory", FALSE),
    "starting": (PLACED, Sighting(IS_READY, reported(STARTING, "loading")), STARTING, "loading", TRUE),
    "ready": (PLACED, Sighting(IS_READY, reported(READY)), READY, "", TRUE),
    "failed": (PLACED, Sighting(IS_READY, reported(FAILED, "died")), FAILED, "died", TRUE),
    "stopping": (STOPPING, Sighting(IS_READY, reported(READY)), DRAINING, "stopping", TRUE),
    "stopped": (STOPPING, Sighting(IS_READY, reported(STOPPED)), STOPPED, "", TRUE),
    "stopping and gone": (STOPPING, Sighting(IS_READY), DRAINING, "stopping", FALSE),
    "on a lost node": (PLACED, Sighting(LOST, reported(READY)), NOT_SEEN, 'node "one" does not report', FALSE),
    "on an unknown node": (PLACED, Sighting(UNKNOWN), NOT_SEEN, 'node "one" does not report', NOT_KNOWN),
    "on a node of another cluster": (PLACED, Sighting(FOREIGN), NOT_SEEN, "obeys another control plane", FALSE),
    "stopping on a lost node": (STOPPING, Sighting(LOST, reported(READY)), NOT_SEEN, "does not report", FALSE),
}


@pytest.mark.parametrize(("placement", "seen", "state", "message", "status"), CASES.values(), ids=CASES)
def test_a_placed_replica_is_what_its_node_says(
    placement: Placement,
    seen: Sighting,
    state: deployment_pb2.ReplicaState,
    message: str,
    status: condition_pb2.ConditionStatus,
) -> None:
    replica = lifecycle.placed_replica(WANTED, placement, seen, before=None, now_s=100)
    assert (replica.name, replica.node, replica.state) == ("deployments/chat/replicas/0", "nodes/one", state)
    assert message in replica.message
    assert {each.type: each.status for each in replica.conditions}["Reported"] == status


def test_what_is_wanted_now_changes_nothing_of_a_replica_that_has_an_engine() -> None:
    newer = Deployment(name=WANTED.name, uid="d", generation=5, replica_count=9)
    seen = Sighting(IS_READY, reported(READY))
    shown = [lifecycle.placed_replica(each, PLACED, seen, before=None, now_s=100) for each in (WANTED, newer)]
    assert shown[0] == shown[1]


def test_the_time_of_a_state_is_the_nodes_where_it_says_it_and_ours_elsewhere() -> None:
    ready = lifecycle.placed_replica(WANTED, PLACED, Sighting(IS_READY, reported(READY)), before=None, now_s=100)
    assert from_timestamp(ready.state_time) == 7
    lost = lifecycle.placed_replica(WANTED, PLACED, Sighting(LOST, reported(READY)), before=ready, now_s=200)
    assert from_timestamp(lost.state_time) == 200
    later = lifecycle.placed_replica(WANTED, PLACED, Sighting(LOST, reported(READY)), before=lost, now_s=300)
    assert later == lost


def test_a_gpu_keeps_its_index_beside_its_uuid_or_has_none() -> None:
    two = replace(PLACED, gpus=(GpuUuid("a"), GpuUuid("b")))
    seen = Sighting(IS_READY, gpu_indexes={"b": 1})
    told = lifecycle.placed_replica(WANTED, two, seen, before=None, now_s=1).gpus
    assert [(each.uuid, each.HasField("index")) for each in told] == [("a", False), ("b", True)]
    assert told[1].index == 1


def test_the_versions_of_an_engine_in_an_environment_of_its_own_are_shown() -> None:
    engine = reported(READY)
    engine.package_versions["transformers"] = "5.16.1"
    shown = lifecycle.placed_replica(WANTED, PLACED, Sighting(IS_READY, engine), before=None, now_s=1)
    assert dict(shown.package_versions) == {"transformers": "5.16.1"}


ON_THE_WAY = {
    "while it prepares": (PLACED, Sighting(IS_READY, reported(PREPARING)), True),
    "while it starts": (PLACED, Sighting(IS_READY, reported(STARTING)), True),
    "not of what is being stopped": (STOPPING, Sighting(IS_READY, reported(STARTING)), False),
    "not on a lost node": (PLACED, Sighting(LOST, reported(STARTING)), False),
}


@pytest.mark.parametrize(("placement", "seen", "is_shown"), ON_THE_WAY.values(), ids=ON_THE_WAY)
def test_how_far_a_replica_is_on_its_way_is_shown(placement: Placement, seen: Sighting, is_shown: bool) -> None:
    told = LaunchProgress(stage=deployment_pb2.LAUNCH_STAGE_LOADING_WEIGHTS, done_bytes=1, total_bytes=4, fraction=0.25)
    assert seen.engine is not None
    seen.engine.progress.CopyFrom(told)
    shown = lifecycle.placed_replica(WANTED, placement, seen, before=None, now_s=1)
    assert shown.HasField("progress") == is_shown
    assert shown.progress == (told if is_shown else LaunchProgress())


def test_a_replica_placed_again_begins_its_times_anew() -> None:
    before = lifecycle.placed_replica(WANTED, PLACED, Sighting(IS_READY), before=None, now_s=100)
    again = replace(PLACED, replica_uid=ReplicaUid("s"))
    after = lifecycle.placed_replica(WANTED, again, Sighting(IS_READY), before=before, now_s=200)
    assert from_timestamp(after.state_time) == 200
    assert {from_timestamp(each.transition_time) for each in after.conditions} == {200}


def test_a_replica_without_a_place_says_why_or_that_it_waits() -> None:
    waits = lifecycle.pending_replica(WANTED, 2, "", before=None, now_s=1)
    assert (waits.name, waits.message, waits.uid) == ("deployments/chat/replicas/2", "waits to be placed", "")
    lacks = lifecycle.pending_replica(WANTED, 2, "needs more", before=waits, now_s=2)
    assert (lacks.message, from_timestamp(lacks.state_time)) == ("needs more", 1)


def test_what_cannot_be_told_is_unknown_and_says_whose_fault_it_is() -> None:
    whole, [replica] = lifecycle.untold(WANTED, [PLACED], now_s=1)
    assert (whole.uid, whole.state) == ("d", deployment_pb2.DEPLOYMENT_STATE_UNKNOWN)
    assert [(each.type, each.status, each.reason) for each in whole.conditions] == [("Available", NOT_KNOWN, "Fault")]
    assert (replica.name, replica.node, replica.state) == ("deployments/chat/replicas/0", "nodes/one", NOT_SEEN)
    assert "a fault of the control plane" in replica.message


def replicas(*states: deployment_pb2.ReplicaState) -> list[Replica]:
    return [Replica(name=f"deployments/chat/replicas/{index}", state=state) for index, state in enumerate(states)]


STATES: dict[str, tuple[list[Replica], str, int, bool, bool]] = {
    "nothing placed": (replicas(PENDING, PENDING, PENDING), "PENDING", 0, False, False),
    "one without a place, none ready": (replicas(STARTING, PENDING, STARTING), "PENDING", 0, False, False),
    "on the way": (replicas(PREPARING, STARTING, FAILED), "STARTING", 0, True, False),
    "all ready": (replicas(READY, READY, READY), "READY", 3, True, True),
    "some ready": (replicas(READY, FAILED, PENDING), "DEGRADED", 1, False, True),
    "all failed": (replicas(FAILED, FAILED, FAILED), "FAILED", 0, True, False),
    "all placed have failed": (replicas(FAILED, FAILED, PENDING), "FAILED", 0, False, False),
    "on silent nodes": (replicas(NOT_SEEN, NOT_SEEN, NOT_SEEN), "UNKNOWN", 0, True, False),
    "one on a silent node": (replicas(NOT_SEEN, STARTING, FAILED), "STARTING", 0, True, False),
    "one on a silent node, one without a place": (replicas(NOT_SEEN, NOT_SEEN, PENDING), "PENDING", 0, False, False),
}


@pytest.mark.parametrize(("shown", "state", "ready", "is_placed", "is_available"), STATES.values(), ids=STATES)
def test_a_deployment_is_what_its_replicas_are(
    shown: list[Replica], state: str, ready: int, is_placed: bool, is_available: bool
) -> None:
    whole = lifecycle.deployment(WANTED, shown, STEADY, observed=3, before=None, now_s=1)
    assert deployment_pb2.DeploymentState.Name(whole.state) == f"DEPLOYMENT_STATE_{state}"
    assert (whole.ready_replica_count, whole.observed_generation, whole.generation) == (ready, 3, 4)
    assert {each.type: each.status == TRUE for each in whole.conditions} == {
        "Placed": is_placed,
        "Available": is_available,
        "RolledOut": True,
    }


def test_a_deployment_that_wants_nothing_is_ready_and_not_available() -> None:
    none = Deployment(name="deployments/chat", replica_count=0)
    whole = lifecycle.deployment(none, [], STEADY, observed=1, before=None, now_s=1)
    assert whole.state == deployment_pb2.DEPLOYMENT_STATE_READY
    assert [(each.type, each.reason) for each in whole.conditions] == [
        ("Placed", ""),
        ("Available", "NoneWanted"),
        ("RolledOut", ""),
    ]


def test_a_deployment_that_is_being_deleted_says_so() -> None:
    going = Deployment()
    going.CopyFrom(WANTED)
    going.delete_time.FromSeconds(1)
    whole = lifecycle.deployment(going, replicas(DRAINING), STEADY, observed=1, before=None, now_s=1)
    assert whole.state == deployment_pb2.DEPLOYMENT_STATE_DELETING
    assert whole.conditions[1].reason == "Deleting"


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    first = lifecycle.deployment(WANTED, replicas(PENDING, PENDING, PENDING), STEADY, observed=1, before=None, now_s=1)
    second = lifecycle.deployment(WANTED, replicas(READY, PENDING, READY), STEADY, observed=1, before=first, now_s=2)
    times = {each.type: from_timestamp(each.transition_time) for each in second.conditions}
    assert times == {"Placed": 1, "Available": 2, "RolledOut": 1}
    other = Deployment()
    other.CopyFrom(WANTED)
    other.uid = "another of the same name"
    third = lifecycle.deployment(other, replicas(READY, PENDING, READY), STEADY, observed=1, before=second, now_s=3)
    assert {from_timestamp(each.transition_time) for each in third.conditions} == {3}


RUNNING = Rollout(state=store_pb2.ROLLOUT_STATE_RUNNING)
TAKEN_BACK = Rollout(state=store_pb2.ROLLOUT_STATE_ROLLED_BACK, message="generation 4 was taken back to 3: it died")
UNDER_WAY = Progress(1, is_done=False, outdated=frozenset({1, 2}))
TROUBLED = Progress(1, is_done=False, trouble='replica "chat-1" on node one is STARTING')
ROLLOUTS: dict[str, tuple[Rolling, int, str, str]] = {
    "under way": (Rolling(RUNNING, UNDER_WAY), 1, "RollingOut", "1 of 3 replicas are READY with what is wanted"),
    "waits for one": (Rolling(RUNNING, TROUBLED), 1, "RollingOut", 'wanted; replica "chat-1" on node one is STARTING'),
    "no room": (Rolling(RUNNING, UNDER_WAY, "needs 3 GiB"), 1, "SurgeDoesNotFit", "needs 3 GiB; rollout.max_unavail"),
    "room is being made": (Rolling(RUNNING, UNDER_WAY, "needs 3 GiB", is_settling=True), 1, "RollingOut", "1 of 3"),
    "taken back, while some still run it": (Rolling(TAKEN_BACK, UNDER_WAY), 1, "RolledBack", "it died"),
    "taken back": (Rolling(TAKEN_BACK), 3, "RolledBack", "it died"),
}


@pytest.mark.parametrize(("rolling", "updated", "reason", "message"), ROLLOUTS.values(), ids=ROLLOUTS)
def test_a_rollout_says_how_far_it_is(rolling: Rolling, updated: int, reason: str, message: str) -> None:
    whole = lifecycle.deployment(WANTED, replicas(READY, READY, READY), rolling, observed=4, before=None, now_s=1)
    [condition] = [each for each in whole.conditions if each.type == "RolledOut"]
    assert (condition.status, condition.reason) == (condition_pb2.CONDITION_STATUS_FALSE, reason)
    assert message in condition.message
    assert whole.updated_replica_count == updated
