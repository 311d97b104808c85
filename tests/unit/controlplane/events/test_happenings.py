"""What happened is told once, from what is seen before and after, and nothing is made up of what cannot be seen."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from controlplane.events.happenings import DeploymentSight, Happening, NodeSight, between, between_nodes, see
from controlplane.lifecycle import NOT_PLANNED
from roundhouse.kit.times import to_timestamp
from roundhouse.v1 import condition_pb2, deployment_pb2
from roundhouse.v1.condition_pb2 import Condition
from roundhouse.v1.deployment_pb2 import Deployment, EngineExit, Replica, ReplicaGpu

CHAT = "deployments/chat"
CHAT_0 = f"{CHAT}/replicas/0"
Change = Callable[[Replica], object]


def deployment(count: int = 1, *, uid: str = "d-1", is_deleting: bool = False) -> Deployment:
    delete_time = to_timestamp(1.0) if is_deleting else None
    return Deployment(name=CHAT, uid=uid, replica_count=count, delete_time=delete_time)


def pending(reason: str) -> Replica:
    return Replica(name=CHAT_0, message=reason, conditions=[Condition(type="Reported", reason="NotPlaced")])


def placed(*changes: Change, uid: str = "r-1", node: str = "nodes/a") -> Replica:
    replica = Replica(
        name=CHAT_0,
        uid=uid,
        node=node,
        gpus=[ReplicaGpu(uuid="G-0", index=0)],
        state=deployment_pb2.REPLICA_STATE_STARTING,
        engine_uuid="e-1",
        conditions=[
            Condition(type="Reported"),
            Condition(type="CrashLoop", status=condition_pb2.CONDITION_STATUS_FALSE),
        ],
    )
    for each in changes:
        each(replica)
    return replica


def unheard(replica: Replica) -> None:
    replica.state = deployment_pb2.REPLICA_STATE_UNKNOWN
    replica.conditions[0].reason = "NodeUnknown"


def ready(replica: Replica) -> None:
    replica.state = deployment_pb2.REPLICA_STATE_READY


def refused(replica: Replica) -> None:
    replica.engine_uuid = ""
    replica.conditions[0].MergeFrom(Condition(reason="Refused", message="2 GiB are missing"))


def crashing(replica: Replica) -> None:
    replica.conditions[1].status = condition_pb2.CONDITION_STATUS_TRUE


def died(at_s: float, restarts: int = 0, **how: int) -> Change:
    def change(replica: Replica) -> None:
        replica.state = deployment_pb2.REPLICA_STATE_FAILED
        replica.restart_count = restarts
        replica.last_exit.CopyFrom(EngineExit(exit_time=to_timestamp(at_s), stderr_lines=["a secret"], **how))

    return change


def again(uuid: str, restarts: int) -> Change:
    def change(replica: Replica) -> None:
        replica.engine_uuid, replica.restart_count = uuid, restarts

    return change


def told(*looks: Replica | None) -> list[str]:
    """Returns what is told of looks at one replica, after the first."""
    before: DeploymentSight | None = None
    found: list[Happening] = []
    for number, replica in enumerate(looks):
        after = see(before, deployment(), () if replica is None else (replica,))
        if number:
            found += between(CHAT, before, after)
        before = after
    assert all("secret" not in each.message for each in found)
    return [f"{each.reason}{'' if each.count == 1 else each.count}: {each.message}" for each in found]


KILLED = died(5.0, signal=signal.SIGKILL)
REPLICAS: dict[str, tuple[list[Replica | None], list[str]]] = {
    "a whole life": (
        [None, placed(), placed(ready), placed(KILLED), placed(KILLED, again("e-2", 1), ready), None],
        [
            "Placed: it has a place on nodes/a gpu 0",
            "Ready: an engine serves on nodes/a gpu 0",
            "Died: the engine on nodes/a gpu 0 was killed by SIGKILL",
            "Ready: an engine serves on nodes/a gpu 0",
            "Stopped: it has left nodes/a gpu 0",
        ],
    ),
    "nothing": ([placed(ready), placed(ready)], []),
    "no place, told once": (
        [None, pending("1 GPU is missing"), pending("2 GPUs are missing")],
        ["Unplaced: 1 GPU is missing"],
    ),
    "not looked at yet": ([None, pending(NOT_PLANNED), pending("")], []),
    "a place after none": ([pending("no"), placed()], ["Placed: it has a place on nodes/a gpu 0"]),
    "moved": (
        [placed(ready), placed(uid="r-2", node="nodes/b")],
        ["Stopped: it has left nodes/a gpu 0", "Placed: it has a place on nodes/b gpu 0"],
    ),
    "moved, and dead before": (
        [placed(KILLED), placed(KILLED, uid="r-2")],
        [
            "Stopped: it has left nodes/a gpu 0",
            "Placed: it has a place on nodes/a gpu 0",
            "Died: the engine on nodes/a gpu 0 was killed by SIGKILL",
        ],
    ),
    "refused": ([placed(), placed(refused), placed(refused)], ["Refused: 2 GiB are missing"]),
    "exit status": (
        [placed(), placed(died(5.0, exit_code=37))],
        ["Died: the engine on nodes/a gpu 0 ended with exit status 37"],
    ),
    "exit unknown": (
        [placed(), placed(died(5.0))],
        ["Died: the engine on nodes/a gpu 0 ended; how could not be learned"],
    ),
    "several deaths between looks": (
        [placed(), placed(died(9.0, 3, exit_code=1), crashing)],
        [
            "Died3: the engine on nodes/a gpu 0 ended with exit status 1",
            "CrashLoop: it dies again and again before it is ready, or within 10 s after: see its logs",
        ],
    ),
    "a death and a new life between looks": (
        [placed(ready), placed(KILLED, again("e-2", 1), ready)],
        ["Died: the engine on nodes/a gpu 0 was killed by SIGKILL", "Ready: an engine serves on nodes/a gpu 0"],
    ),
    "a node that was silent for a while": ([placed(ready), placed(unheard), placed(ready)], []),
    "a death while the node was silent": (
        [placed(ready), placed(unheard), placed(KILLED)],
        ["Died: the engine on nodes/a gpu 0 was killed by SIGKILL"],
    ),
    "after a start, nothing of what was": ([placed(unheard), placed(KILLED, crashing), placed(KILLED, crashing)], []),
    "after a start, all that is new": (
        [placed(unheard), placed(KILLED), placed(KILLED, again("e-2", 1), ready)],
        ["Ready: an engine serves on nodes/a gpu 0"],
    ),
}


@pytest.mark.parametrize(("looks", "wanted"), REPLICAS.values(), ids=REPLICAS)
def test_what_happened_to_a_replica(looks: list[Replica | None], wanted: list[str]) -> None:
    assert told(*looks) == wanted


def sight(*args: Any, **kwargs: Any) -> DeploymentSight:
    return see(None, deployment(*args, **kwargs), ())


DEPLOYMENTS: dict[str, tuple[DeploymentSight | None, DeploymentSight | None, list[str]]] = {
    "created": (None, sight(2), ["Created it is wanted with 2 replicas"]),
    "scaled": (sight(2), sight(1), ["Scaled it is scaled from 2 to 1 replica"]),
    "deleting": (sight(), sight(is_deleting=True), ["Deleting its engines finish what they have, and stop"]),
    "gone": (sight(is_deleting=True), None, ["Deleted it is gone, and its engines with it"]),
    "another of that name": (
        sight(),
        sight(uid="d-2"),
        ["Deleted it is gone, and its engines with it", "Created it is wanted with 1 replica"],
    ),
    "nothing": (sight(), sight(), []),
    "never there": (None, None, []),
}


@pytest.mark.parametrize(("before", "after", "wanted"), DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_what_happened_to_a_deployment(
    before: DeploymentSight | None, after: DeploymentSight | None, wanted: list[str]
) -> None:
    found = list(between(CHAT, before, after))
    assert [f"{each.reason} {each.message}" for each in found] == wanted
    assert {each.object for each in found} <= {CHAT}


NODES: dict[str, tuple[NodeSight, NodeSight, list[str]]] = {
    "new": ("", "up", ["Joined"]),
    "silent": ("up", "lost", ["Lost"]),
    "back": ("lost", "up", ["Returned"]),
    "as before": ("up", "up", []),
    "never heard of and lost": ("", "lost", []),
}


@pytest.mark.parametrize(("before", "after", "reasons"), NODES.values(), ids=NODES)
def test_what_happened_to_a_node(before: NodeSight, after: NodeSight, reasons: list[str]) -> None:
    found = list(between_nodes("a", before, after))
    assert [each.reason for each in found] == reasons
    assert {each.object for each in found} <= {"nodes/a"}
