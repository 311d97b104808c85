"""Between messages and the values of `controlplane.model`, and the keys under which things are stored."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from controlplane.model import (
    AntiAffinity,
    Drain,
    Engine,
    Gpu,
    GpuUuid,
    Need,
    Node,
    NodeGpus,
    NodeId,
    NodeWish,
    Placement,
    ReplicaUid,
    Taint,
    Toleration,
    Wanted,
)
from roundhouse.internal.v1.agent_service_pb2 import (
    DESIRED_STATE_RUNNING,
    DESIRED_STATE_STOPPED,
    EngineAssignment,
    EngineReport,
    JoinRequest,
)
from roundhouse.internal.v1.store_pb2 import AssignmentRecord, DeploymentRecord, NodeRecord, PlacementRecord
from roundhouse.kit.names import NamePattern
from roundhouse.kit.times import from_duration, to_duration
from roundhouse.v1 import deployment_pb2, node_pb2
from roundhouse.v1.deployment_pb2 import MemoryNeed

DEPLOYMENT = NamePattern("deployments/{deployment}")
REPLICA = NamePattern("deployments/{deployment}/replicas/{index}")
NODE = NamePattern("nodes/{node}")
GPU = NamePattern("nodes/{node}/gpus/{index}")
FAMILY = NamePattern("families/{family}")
EVENT = NamePattern("events/{event}")
ACCESS_TOKEN = NamePattern("accessTokens/{access_token}")
CACHED_MODEL = NamePattern("nodes/{node}/cachedModels/{cached_model}")

ANY = "-"  # in place of an id: every one

DRAIN_GRACE_S = 30.0  # unless a deletion says otherwise
MAX_SURGE = 1  # unless a deployment says otherwise, as the rest
ROLLOUT_GRACE_S = 300.0
PROGRESS_DEADLINE_S = 600.0

# The states that this version knows; UNSPECIFIED is never sent.
_REPLICA_STATES = frozenset(deployment_pb2.ReplicaState.values()) - {deployment_pb2.REPLICA_STATE_UNSPECIFIED}
_GPU_STATES = frozenset(node_pb2.GpuState.values()) - {node_pb2.GPU_STATE_UNSPECIFIED}

_STATE = attrgetter("state")

# Keys of the store.
CLUSTER_KEY = "cluster"
DEPLOYMENTS = "deployments/"
PLACEMENTS = "placements/"
ASSIGNMENTS = "assignments/"
NODES = "nodes/"
MUTATIONS = "mutations/"
FAMILIES = "families/"
EVENTS = "events/"
ACCESS_TOKENS = "access-tokens/"
JOIN_TOKENS = "join-tokens/"
NODE_EPOCHS = "node-epochs/"
EVENT_LOG_KEY = "event-log"


def deployment_key(deployment: str) -> str:
    """Returns the key of a `DeploymentRecord`."""
    return DEPLOYMENTS + deployment


def placement_key(placement: Placement) -> str:
    """Returns the key of a `PlacementRecord`."""
    return f"{PLACEMENTS}{placement.deployment}/{placement.index}/{placement.replica_uid}"


def assignment_key(node: str) -> str:
    """Returns the key of an `AssignmentRecord`."""
    return ASSIGNMENTS + node


def node_key(node: str) -> str:
    """Returns the key of a `NodeRecord`."""
    return NODES + node


def mutation_key(request_id: str) -> str:
    """Returns the key of a `MutationRecord`."""
    return MUTATIONS + request_id


def family_key(family: str) -> str:
    """Returns the key of a `FamilyRecord`."""
    return FAMILIES + family


def access_token_key(token: str) -> str:
    """Returns the key of an `AccessTokenRecord`."""
    return ACCESS_TOKENS + token


def node_epoch_key(node: str) -> str:
    """Returns the key of a `NodeEpochRecord`."""
    return NODE_EPOCHS + node


def join_token_key(secret_hash: bytes) -> str:
    """Returns the key of a `JoinTokenRecord`."""
    return JOIN_TOKENS + secret_hash.hex()


def wanted(record: DeploymentRecord) -> Wanted | None:
    """Returns a deployment as placement sees it; None while its need is not known, because no node could be asked."""
    if not record.HasField("memory_need"):
        return None
    deployment = record.deployment
    policy, rollout = deployment.placement, deployment.rollout
    is_deleting = deployment.HasField("delete_time")
    return Wanted(
        deployment=DEPLOYMENT.parse(deployment.name)[0],
        uid=deployment.uid,
        generation=deployment.generation,
        replica_count=deployment.replica_count,
        need=need(record.memory_need),
        strategy=policy.strategy,
        gpu_count=policy.gpu_count if policy.HasField("gpu_count") else None,
        allows_sharing=policy.allow_shared_gpu,
        is_for_gpus=record.memory_need.device == "cuda",
        is_deleting=is_deleting,
        drain_grace_s=from_duration(record.drain_grace) if is_deleting else DRAIN_GRACE_S,
        gpus_per_replica=policy.gpus_per_replica if policy.HasField("gpus_per_replica") else None,
        allowed_gpus=tuple(map(_node_gpus, policy.allowed_gpus)),
        node_labels=frozenset(policy.node_labels.items()),
        tolerations=tuple(
            Toleration(each.key, each.value if each.HasField("value") else None) for each in policy.tolerations
        ),
        anti_affinity=tuple(map(_anti_affinity, policy.anti_affinity)),
        labels=frozenset(deployment.labels.items()),
        spec_generation=record.spec_generation,
        max_surge=rollout.max_surge if rollout.HasField("max_surge") else MAX_SURGE,
        max_unavailable=rollout.max_unavailable,
        rollout_grace_s=from_duration(rollout.drain_grace) if rollout.HasField("drain_grace") else ROLLOUT_GRACE_S,
    )


def _node_gpus(message: deployment_pb2.NodeGpus) -> NodeGpus:
    (name,) = NODE.match(message.node) or (ANY,)  # it was checked before it was stored
    node = None if name == ANY else NodeId(name)
    return NodeGpus(node, frozenset(message.indexes), frozenset(map(GpuUuid, message.uuids)))


def _anti_affinity(message: deployment_pb2.AntiAffinity) -> AntiAffinity:
    on_gpu = message.scope == deployment_pb2.ANTI_AFFINITY_SCOPE_GPU
    return AntiAffinity(frozenset(message.deployment_labels.items()), on_gpu=on_gpu)


def need(message: MemoryNeed) -> Need:
    """Returns the memory that one replica needs."""
    return Need(
        total_bytes=message.total_bytes,
        weight_bytes=message.weight_bytes,
        kv_cache_bytes=message.kv_cache_bytes,
        overhead_bytes=message.overhead_bytes,
        is_stated=message.is_stated,
        device=message.device,
        is_fitted=message.is_fitted,
        gpu_count=message.gpu_count,
    )


def memory_need(value: Need) -> MemoryNeed:
    """Returns the memory that one replica needs, to be stored."""
    return MemoryNeed(
        total_bytes=value.total_bytes,
        weight_bytes=value.weight_bytes,
        kv_cache_bytes=value.kv_cache_bytes,
        overhead_bytes=value.overhead_bytes,
        is_stated=value.is_stated,
        device=value.device,
        is_fitted=value.is_fitted,
        gpu_count=value.gpu_count,
    )


def placement(record: PlacementRecord) -> Placement:
    """Returns where a replica is."""
    deployment, index = REPLICA.parse(record.replica)
    return Placement(
        deployment=deployment,
        deployment_uid=record.deployment_uid,
        index=int(index),
        replica_uid=ReplicaUid(record.replica_uid),
        epoch=record.placement_epoch,
        node=NodeId(record.node_id),
        gpus=tuple(map(GpuUuid, record.gpu_uuids)),
        reserved_bytes=record.reserved_memory_bytes,
        is_stopping=record.is_stopping,
        drain_grace_s=from_duration(record.drain_grace),
        spec_generation=record.spec_generation,
    )


def placement_record(value: Placement) -> PlacementRecord:
    """Returns where a replica is, to be stored."""
    return PlacementRecord(
        replica=REPLICA.format(value.deployment, value.index),
        replica_uid=value.replica_uid,
        deployment_uid=value.deployment_uid,
        placement_epoch=value.epoch,
        node_id=value.node,
        gpu_uuids=value.gpus,
        reserved_memory_bytes=value.reserved_bytes,
        is_stopping=value.is_stopping,
        drain_grace=to_duration(value.drain_grace_s),
        spec_generation=value.spec_generation,
    )


def node_wish(record: NodeRecord) -> NodeWish:
    """Returns what is wanted of a node."""
    if not record.HasField("drain"):
        return NodeWish()
    return NodeWish(Drain(from_duration(record.drain.grace), record.drain.allow_unserved))


def engine_assignment(record: DeploymentRecord, value: Placement) -> EngineAssignment:
    """Returns what the node of a placement is told of it. `record` is empty if the deployment is gone."""
    goes_on = record.HasField("deployment") and not record.deployment.HasField("delete_time")
    return EngineAssignment(
        replica=REPLICA.format(value.deployment, value.index),
        replica_uid=value.replica_uid,
        placement_epoch=value.epoch,
        deployment_generation=record.deployment.generation,
        desired_state=DESIRED_STATE_STOPPED if value.is_stopping else DESIRED_STATE_RUNNING,
        spec=record.engine_spec,
        gpu_uuids=value.gpus,
        reserved_memory_bytes=value.reserved_bytes,
        drain_grace=to_duration(value.drain_grace_s) if value.is_stopping else None,
        hands_over=value.is_stopping and goes_on,
    )


def assignment_record(engines: Sequence[EngineAssignment]) -> AssignmentRecord:
    """Returns the record of a node's assignment, in which what many replicas share stands once: specs, and GPUs."""
    record = AssignmentRecord(engines=engines)
    numbers: dict[bytes, int] = {}
    gpus: dict[str, int] = {}
    for each in record.engines:
        spec = each.spec.SerializeToString(deterministic=True)
        if spec not in numbers:
            numbers[spec] = len(numbers)
            record.specs.append(each.spec)
        record.spec_indexes.append(numbers[spec])
        each.ClearField("spec")
        record.gpu_indexes.add(indexes=[gpus.setdefault(uuid, len(gpus)) for uuid in each.gpu_uuids])
        each.ClearField("gpu_uuids")
    if gpus:
        record.gpu_uuids.extend(gpus)
    else:
        record.ClearField("gpu_indexes")
    return record


def assigned_engines(record: AssignmentRecord) -> list[EngineAssignment]:
    """Returns a node's assignment as it was before it became a record."""
    engines = []
    for each, number in zip(record.engines, record.spec_indexes, strict=True):
        engine = EngineAssignment(spec=record.specs[number])
        engine.MergeFrom(each)
        engines.append(engine)
    # What was written before there was a table has the GPUs with each engine.
    for engine, gpus in zip(engines, record.gpu_indexes, strict=bool(record.gpu_indexes)):
        engine.gpu_uuids.extend(record.gpu_uuids[index] for index in gpus.indexes)
    return engines


def settle_states(report: JoinRequest) -> None:
    """Makes of every state in a report that is not known, a newer agent's, what the contract says to treat it as."""
    if not _REPLICA_STATES.issuperset(map(_STATE, report.engines)):
        for each in report.engines:
            if each.state not in _REPLICA_STATES:
                each.state = deployment_pb2.REPLICA_STATE_STARTING
    if not _GPU_STATES.issuperset(map(_STATE, report.node.gpus)):
        for device in report.node.gpus:
            if device.state not in _GPU_STATES:
                device.state = node_pb2.GPU_STATE_FAILED


def node(report: JoinRequest, *, is_ready: bool, cluster_id: str) -> Node:
    """Returns a node as its newest report shows it; an order that another cluster gave counts as none."""
    order = report.applied_order
    host = report.node.host
    return Node(
        id=NodeId(report.node_id),
        is_ready=is_ready,
        gpus=tuple(map(gpu, report.node.gpus)),
        engines=tuple(map(engine, report.engines)),
        host_total_bytes=host.total_memory_bytes,
        host_available_bytes=host.available_memory_bytes,
        applied=(order.term, order.generation) if order.cluster_id == cluster_id else (0, 0),
        refused={ReplicaUid(each.replica_uid): each.message for each in report.refusals},
        labels=dict(report.node.labels),
        taints=tuple(Taint(each.key, each.value) for each in report.node.taints),
        refused_altogether=frozenset(ReplicaUid(each.replica_uid) for each in report.refusals if each.is_node_wide),
    )


def gpu(message: node_pb2.Gpu) -> Gpu:
    """Returns a GPU as last reported."""
    return Gpu(
        uuid=GpuUuid(message.uuid),
        index=message.index,
        total_bytes=message.total_memory_bytes,
        used_bytes=message.used_memory_bytes,
        # Not told, it is taken for the worst: a GPU that is known to be idle goes before it.
        utilization_fraction=message.utilization_fraction if message.HasField("utilization_fraction") else 1.0,
        is_healthy=message.state == node_pb2.GPU_STATE_OK,
        nvlink_island=message.nvlink_island if message.HasField("nvlink_island") else None,
    )


def engine(report: EngineReport) -> Engine:
    """Returns an engine as last reported."""
    return Engine(
        replica_uid=ReplicaUid(report.replica_uid),
        gpus=tuple(map(GpuUuid, report.gpu_uuids)),
        reserved_bytes=report.reserved_memory_bytes,
        measured_bytes=report.measured_memory_bytes,
        is_gone=report.state == deployment_pb2.REPLICA_STATE_STOPPED,
        is_serving=report.state == deployment_pb2.REPLICA_STATE_READY,
        has_failed=report.state == deployment_pb2.REPLICA_STATE_FAILED,
        load=report.load.running_count + report.load.waiting_count,
    )
