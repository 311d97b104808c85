"""Tells what happened between two looks at a deployment, its replicas or a node. Pure.

Of what cannot be seen, because its node is silent or this process has just started, nothing is told: what was known is
kept, and what is seen first is taken as it is.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from controlplane import lifecycle, wire
from roundhouse.v1 import condition_pb2, deployment_pb2
from roundhouse.v1.deployment_pb2 import Deployment, EngineExit, Replica

NodeSight = Literal["", "up", "lost"]  # empty: it was never heard of
_SIGNALS = {each.value: each.name for each in signal.Signals}
_SEEN_REASONS = ("", "NotYet", "Refused")  # of the condition `Reported`: its node reports
_ROLLING = ("RollingOut", "SurgeDoesNotFit")  # reasons of a condition


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened to an object, `count` times."""

    object: str
    reason: str
    message: str
    is_warning: bool = False
    count: int = 1


@dataclass(frozen=True, slots=True)
class ReplicaSight:
    """What is remembered of a replica. `uid` is empty while it has no place."""

    uid: str = ""
    where: str = ""
    lack: str = ""  # why it has no place
    is_seen: bool = True  # what follows is known
    refusal: str = ""
    ready_engine: str = ""  # uuid of the last life that was READY
    death: EngineExit | None = None
    restart_count: int = 0
    is_crash_loop: bool = False


@dataclass(frozen=True, slots=True)
class DeploymentSight:
    """What is remembered of a deployment, and of its replicas by name."""

    uid: str
    replica_count: int
    is_deleting: bool
    rolled_out: str = ""  # reason of that condition while it is FALSE
    rolled_message: str = ""
    replicas: Mapping[str, ReplicaSight] = field(default_factory=dict)


def see(before: DeploymentSight | None, deployment: Deployment, replicas: tuple[Replica, ...]) -> DeploymentSight:
    """Returns what is to be remembered of a deployment, given what was."""
    known = {} if before is None else before.replicas
    return DeploymentSight(
        deployment.uid,
        deployment.replica_count,
        deployment.HasField("delete_time"),
        *_rolled(deployment),
        {each.name: _see(known.get(each.name), each) for each in replicas},
    )


def between(name: str, before: DeploymentSight | None, after: DeploymentSight | None) -> Iterator[Happening]:
    """Yields what happened to the deployment of this name and its replicas."""
    if before is not None and after is not None and before.uid != after.uid:
        yield from between(name, before, None)
        before = None
    if before is None and after is not None:
        yield Happening(name, "Created", f"it is wanted with {_count(after.replica_count)}")
    if before is not None and after is not None:
        if before.replica_count != after.replica_count:
            change = f"from {before.replica_count} to {_count(after.replica_count)}"
            yield Happening(name, "Scaled", f"it is scaled {change}")
        yield from _of_rollout(name, before, after)
        if after.is_deleting and not before.is_deleting:
            yield Happening(name, "Deleting", "its engines finish what they have, and stop")
    was = {} if before is None else before.replicas
    now = {} if after is None else after.replicas
    for each in [*was, *(other for other in now if other not in was)]:
        yield from _of_replica(each, was.get(each), now.get(each))
    if before is not None and after is None:
        yield Happening(name, "Deleted", "it is gone, and its engines with it")


def between_nodes(node: str, before: NodeSight, after: NodeSight) -> Iterator[Happening]:
    """Yields what happened to a node."""
    name = wire.NODE.format(node)
    match before, after:
        case "", "up":
            yield Happening(name, "Joined", "it reports")
        case "lost", "up":
            yield Happening(name, "Returned", "it reports again")
        case "up", "lost":
            message = "it does not report any more; its replicas get no requests: check its agent"
            yield Happening(name, "Lost", message, is_warning=True)


def _rolled(deployment: Deployment) -> tuple[str, str]:
    for each in deployment.conditions:
        if each.type == "RolledOut" and each.status == condition_pb2.CONDITION_STATUS_FALSE:
            return each.reason, each.message
    return "", ""


def _of_rollout(name: str, before: DeploymentSight, after: DeploymentSight) -> Iterator[Happening]:
    was, now = before.rolled_out, after.rolled_out
    is_rolling, was_rolling = now in _ROLLING, was in _ROLLING
    if is_rolling and not was_rolling:
        yield Happening(name, "Updated", "its replicas are to run something else, and are replaced")
    if now == "SurgeDoesNotFit" and was != now:
        yield Happening(name, now, after.rolled_message, is_warning=True)
    if now == "RolledBack" and was != now:
        yield Happening(name, now, after.rolled_message, is_warning=True)
    if was_rolling and not now:
        yield Happening(name, "RolledOut", "all its replicas run what is wanted")


def _see(before: ReplicaSight | None, replica: Replica) -> ReplicaSight:
    if not replica.uid:
        is_told = replica.message and replica.message != lifecycle.NOT_PLANNED
        return ReplicaSight(lack=replica.message if is_told else "")
    known = before if before is not None and before.uid == replica.uid else None
    conditions = {each.type: each for each in replica.conditions}
    if "Reported" not in conditions or conditions["Reported"].reason not in _SEEN_REASONS:
        return known or ReplicaSight(replica.uid, _where(replica), is_seen=False)
    is_ready = replica.state == deployment_pb2.REPLICA_STATE_READY
    reported = conditions["Reported"]
    return ReplicaSight(
        uid=replica.uid,
        where=_where(replica),
        refusal=reported.message if reported.reason == "Refused" else "",
        ready_engine=replica.engine_uuid if is_ready else "" if known is None else known.ready_engine,
        death=replica.last_exit if replica.HasField("last_exit") else None,
        restart_count=replica.restart_count,
        is_crash_loop=conditions["CrashLoop"].status == condition_pb2.CONDITION_STATUS_TRUE,
    )


def _of_replica(name: str, before: ReplicaSight | None, after: ReplicaSight | None) -> Iterator[Happening]:
    before, after = before or ReplicaSight(), after or ReplicaSight()
    if before.uid != after.uid:
        if before.uid:
            yield Happening(name, "Stopped", f"it has left {before.where}")
        if after.uid:
            yield Happening(name, "Placed", f"it has a place on {after.where}")
        before = ReplicaSight(after.uid, after.where, before.lack)
    if after.lack and not before.lack:
        yield Happening(name, "Unplaced", after.lack, is_warning=True)
    if not (after.uid and before.is_seen and after.is_seen):
        return
    if after.refusal and not before.refusal:
        yield Happening(name, "Refused", after.refusal, is_warning=True)
    if after.death is not None and after.death != before.death:
        count = max(1, after.restart_count - before.restart_count)
        yield Happening(name, "Died", f"the engine on {after.where} {_end(after.death)}", is_warning=True, count=count)
    if after.is_crash_loop and not before.is_crash_loop:
        message = "it dies again and again before it is ready, or within 10 s after: see its logs"
        yield Happening(name, "CrashLoop", message, is_warning=True)
    if after.ready_engine and after.ready_engine != before.ready_engine:
        yield Happening(name, "Ready", f"an engine serves on {after.where}")


def _where(replica: Replica) -> str:
    gpus = ",".join(str(each.index) if each.HasField("index") else each.uuid for each in replica.gpus)
    return f"{replica.node} {f'gpu {gpus}' if gpus else 'cpu'}"


def _end(death: EngineExit) -> str:
    if death.HasField("signal"):
        return f"was killed by {_SIGNALS.get(death.signal, f'signal {death.signal}')}"
    if death.HasField("exit_code"):
        return f"ended with exit status {death.exit_code}"
    return "ended; how could not be learned"


def _count(replicas: int) -> str:
    return "1 replica" if replicas == 1 else f"{replicas} replicas"
