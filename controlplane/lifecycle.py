"""Tells what replicas and deployments are doing, from what is wanted, placed and reported. Pure.

Times are carried over from the message before: the state of a replica, or the status of a condition, began when it was
first told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controlplane import wire
from controlplane.model import Placement
from controlplane.rolling import Progress
from roundhouse.internal.v1 import store_pb2
from roundhouse.internal.v1.agent_service_pb2 import EngineReport
from roundhouse.internal.v1.store_pb2 import Rollout
from roundhouse.kit.times import to_timestamp
from roundhouse.v1 import condition_pb2, deployment_pb2, node_pb2
from roundhouse.v1.condition_pb2 import Condition
from roundhouse.v1.deployment_pb2 import Deployment, Replica, ReplicaGpu

_TRUE = condition_pb2.CONDITION_STATUS_TRUE
_FALSE = condition_pb2.CONDITION_STATUS_FALSE
_UNKNOWN = condition_pb2.CONDITION_STATUS_UNKNOWN
_ON_THE_WAY = (deployment_pb2.REPLICA_STATE_PREPARING, deployment_pb2.REPLICA_STATE_STARTING)
NOT_PLANNED = "waits to be placed"
_FAULT = "its status cannot be told, by a fault of the control plane: report what its log says"


@dataclass(frozen=True, slots=True)
class Sighting:
    """What is known of a placed replica: whether its node reports, and what that said of it last."""

    node_state: node_pb2.NodeState
    engine: EngineReport | None = None
    refusal: str = ""  # why its node will not start it
    gpu_indexes: Mapping[str, int] = field(default_factory=dict)  # by UUID, as far as its node reports them
    stays: str = ""  # why it is to leave its node, and cannot


@dataclass(frozen=True, slots=True)
class Rolling:
    """What is known of the last change of what replicas run, and how far they are with it."""

    rollout: Rollout
    progress: Progress | None = None  # None: all that stand run what is wanted
    lack: str = ""  # why there is no room for the replacement of one of them
    is_settling: bool = False  # some stop, or have no place yet


def pending_replica(wanted: Deployment, index: int, reason: str, *, before: Replica | None, now_s: float) -> Replica:
    """Returns a replica that has no place; `reason` says why, empty if nobody has looked yet."""
    replica = Replica(
        name=f"{wanted.name}/replicas/{index}",
        state=deployment_pb2.REPLICA_STATE_PENDING,
        deployment_generation=wanted.generation,
        message=reason or NOT_PLANNED,
        conditions=[Condition(type="Reported", status=_FALSE, reason="NotPlaced")],
    )
    return _timed(replica, before, now_s)


def placed_replica(
    wanted: Deployment, placement: Placement, seen: Sighting, *, before: Replica | None, now_s: float
) -> Replica:
    """Returns a replica that has a place."""
    state, message = _state(placement, seen)
    replica = Replica(
        name=f"{wanted.name}/replicas/{placement.index}",
        uid=placement.replica_uid,
        state=state,
        node=wire.NODE.format(placement.node),
        gpus=[ReplicaGpu(uuid=each, index=seen.gpu_indexes.get(each)) for each in placement.gpus],
        reserved_memory_bytes=placement.reserved_bytes,
        placement_epoch=placement.epoch,
        deployment_generation=wanted.generation,
        message=message,
        conditions=[_reported(placement, seen), _crash_loop(seen)],
    )
    engine = seen.engine
    if engine is not None:
        replica.deployment_generation = engine.deployment_generation
        replica.engine_pid = engine.pid
        replica.engine_uuid = engine.engine_uuid
        replica.engine_address = engine.address
        replica.restart_count = engine.restart_count
        replica.package_versions.update(engine.package_versions)
        for field in ("last_exit", "next_start_time", "load"):
            if engine.HasField(field):
                getattr(replica, field).CopyFrom(getattr(engine, field))
        if engine.state == state and engine.HasField("state_time"):
            replica.state_time.CopyFrom(engine.state_time)
        if state in _ON_THE_WAY and engine.HasField("progress"):
            replica.progress.CopyFrom(engine.progress)
    return _timed(replica, before, now_s)


def deployment(
    wanted: Deployment,
    replicas: Sequence[Replica],
    rolling: Rolling,
    *,
    observed: int,
    before: Deployment | None,
    now_s: float,
) -> Deployment:
    """Returns a deployment with its status. `replicas` are those that stay, `observed` is the generation acted upon."""
    ready = [each for each in replicas if each.state == deployment_pb2.REPLICA_STATE_READY]
    whole = Deployment()
    whole.CopyFrom(wanted)
    whole.observed_generation = observed
    whole.state = _deployment_state(wanted, replicas, len(ready))
    whole.ready_replica_count = len(ready)
    updated_count = len(ready) if rolling.progress is None else rolling.progress.updated_count
    whole.updated_replica_count = min(updated_count, len(ready))
    is_same = before is not None and before.uid == whole.uid
    available = _available(wanted, replicas, len(ready))
    whole.conditions.extend([_placed(wanted, replicas), available, _rolled_out(wanted, rolling)])
    _carry(whole.conditions, before.conditions if before is not None and is_same else (), now_s)
    return whole


def untold(wanted: Deployment, placements: Sequence[Placement], *, now_s: float) -> tuple[Deployment, list[Replica]]:
    """Returns a deployment and its placed replicas of which a fault of ours keeps us from telling more."""
    now = to_timestamp(now_s)
    replicas = [
        Replica(
            name=f"{wanted.name}/replicas/{each.index}",
            uid=each.replica_uid,
            state=deployment_pb2.REPLICA_STATE_UNKNOWN,
            state_time=now,
            node=wire.NODE.format(each.node),
            placement_epoch=each.epoch,
            message=_FAULT,
        )
        for each in placements
    ]
    whole = Deployment()
    whole.CopyFrom(wanted)
    whole.state = deployment_pb2.DEPLOYMENT_STATE_UNKNOWN
    whole.conditions.add(type="Available", status=_UNKNOWN, reason="Fault", message=_FAULT, transition_time=now)
    return whole, replicas


def _state(placement: Placement, seen: Sighting) -> tuple[deployment_pb2.ReplicaState, str]:
    engine = seen.engine
    if seen.node_state == node_pb2.NODE_STATE_FOREIGN:
        return deployment_pb2.REPLICA_STATE_UNKNOWN, f'node "{placement.node}" obeys another control plane'
    if seen.node_state != node_pb2.NODE_STATE_READY:
        return deployment_pb2.REPLICA_STATE_UNKNOWN, seen.stays or f'node "{placement.node}" does not report'
    if engine is None and placement.is_stopping:
        return deployment_pb2.REPLICA_STATE_DRAINING, "stopping"
    if engine is None:
        return (
            deployment_pb2.REPLICA_STATE_PREPARING,
            seen.refusal or f'node "{placement.node}" has not taken it over yet',
        )
    if placement.is_stopping and engine.state != deployment_pb2.REPLICA_STATE_STOPPED:
        return deployment_pb2.REPLICA_STATE_DRAINING, engine.message or "stopping"
    return engine.state, engine.message or seen.refusal or seen.stays


def _reported(placement: Placement, seen: Sighting) -> Condition:
    silent = f'node "{placement.node}" does not report: check its agent'
    if seen.node_state == node_pb2.NODE_STATE_FOREIGN:
        message = f'node "{placement.node}" obeys another control plane: its conditions say which'
        return Condition(type="Reported", status=_FALSE, reason="NodeForeign", message=message)
    if seen.node_state == node_pb2.NODE_STATE_LOST:
        return Condition(type="Reported", status=_FALSE, reason="NodeLost", message=silent)
    if seen.node_state != node_pb2.NODE_STATE_READY:
        return Condition(type="Reported", status=_UNKNOWN, reason="NodeUnknown", message=silent)
    if seen.engine is None:
        return Condition(
            type="Reported", status=_FALSE, reason="Refused" if seen.refusal else "NotYet", message=seen.refusal
        )
    return Condition(type="Reported", status=_TRUE)


def _crash_loop(seen: Sighting) -> Condition:
    engine = seen.engine
    if engine is None or seen.node_state != node_pb2.NODE_STATE_READY:
        return Condition(type="CrashLoop", status=_UNKNOWN)
    if not engine.is_crash_loop:
        return Condition(type="CrashLoop", status=_FALSE)
    message = f"died {engine.restart_count} times before it was ready or within 10 s after: see last_exit"
    return Condition(type="CrashLoop", status=_TRUE, reason="DiesEarly", message=message)


def _deployment_state(
    wanted: Deployment, replicas: Sequence[Replica], ready_count: int
) -> deployment_pb2.DeploymentState:
    if wanted.HasField("delete_time"):
        return deployment_pb2.DEPLOYMENT_STATE_DELETING
    if ready_count >= wanted.replica_count:
        return deployment_pb2.DEPLOYMENT_STATE_READY
    if ready_count > 0:
        return deployment_pb2.DEPLOYMENT_STATE_DEGRADED
    placed = {each.state for each in replicas} - {deployment_pb2.REPLICA_STATE_PENDING}
    if placed == {deployment_pb2.REPLICA_STATE_FAILED}:
        return deployment_pb2.DEPLOYMENT_STATE_FAILED
    if any(each.state == deployment_pb2.REPLICA_STATE_PENDING for each in replicas):
        return deployment_pb2.DEPLOYMENT_STATE_PENDING
    if placed == {deployment_pb2.REPLICA_STATE_UNKNOWN}:
        return deployment_pb2.DEPLOYMENT_STATE_UNKNOWN
    return deployment_pb2.DEPLOYMENT_STATE_STARTING


def _placed(wanted: Deployment, replicas: Sequence[Replica]) -> Condition:
    pending = [each for each in replicas if each.state == deployment_pb2.REPLICA_STATE_PENDING]
    if not pending:
        return Condition(type="Placed", status=_TRUE)
    first = pending[0].message  # the others say the same of themselves
    reason = "NotPlanned" if first == NOT_PLANNED else "DoesNotFit"
    message = f"{len(pending)} of {wanted.replica_count} replicas have no place: {first}"
    return Condition(type="Placed", status=_FALSE, reason=reason, message=message)


def _available(wanted: Deployment, replicas: Sequence[Replica], ready_count: int) -> Condition:
    if ready_count > 0:
        return Condition(type="Available", status=_TRUE)
    if wanted.replica_count == 0:
        message = "no replica is wanted: scale it up"
        return Condition(type="Available", status=_FALSE, reason="NoneWanted", message=message)
    if wanted.HasField("delete_time"):
        return Condition(type="Available", status=_FALSE, reason="Deleting", message="it is being deleted")
    # `Name` raises for a state that is not known: the registry lets none in.
    counts = Counter(deployment_pb2.ReplicaState.Name(each.state).removeprefix("REPLICA_STATE_") for each in replicas)
    message = "no replica is READY: " + ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    return Condition(type="Available", status=_FALSE, reason="NoReplicaReady", message=message)


def _rolled_out(wanted: Deployment, rolling: Rolling) -> Condition:
    """Tells whether every replica runs what is wanted; of a first version, as soon as none runs anything else."""
    if rolling.rollout.state == store_pb2.ROLLOUT_STATE_ROLLED_BACK:
        return Condition(type="RolledOut", status=_FALSE, reason="RolledBack", message=rolling.rollout.message)
    progress = rolling.progress
    if progress is None or (rolling.rollout.state != store_pb2.ROLLOUT_STATE_RUNNING and not progress.outdated):
        return Condition(type="RolledOut", status=_TRUE)
    message = f"{progress.updated_count} of {wanted.replica_count} replicas are READY with what is wanted"
    if rolling.lack and not rolling.is_settling and not progress.trouble:
        allowed = wanted.rollout.max_unavailable
        message += f"; {rolling.lack}; rollout.max_unavailable is {allowed}: let it be more, or make room"
        return Condition(type="RolledOut", status=_FALSE, reason="SurgeDoesNotFit", message=message)
    trouble = progress.failure or progress.trouble
    return Condition(
        type="RolledOut", status=_FALSE, reason="RollingOut", message=f"{message}; {trouble}" if trouble else message
    )


def _timed(replica: Replica, before: Replica | None, now_s: float) -> Replica:
    same = before if before is not None and before.uid == replica.uid else None
    if not replica.HasField("state_time"):
        is_carried = same is not None and same.state == replica.state
        replica.state_time.CopyFrom(same.state_time if same is not None and is_carried else to_timestamp(now_s))
    _carry(replica.conditions, same.conditions if same is not None else (), now_s)
    return replica


def _carry(fresh: Iterable[Condition], before: Iterable[Condition], now_s: float) -> None:
    """Gives each condition the time at which its status was first told."""
    known = {(each.type, each.status): each.transition_time for each in before}
    for condition in fresh:
        first_told = known.get((condition.type, condition.status))
        condition.transition_time.CopyFrom(to_timestamp(now_s) if first_told is None else first_told)


def index_of(replica: Replica) -> int:
    """Returns the index in the name of a replica."""
    return int(replica.name.rpartition("/")[2])
