"""Says where replicas would go, and why nowhere else. Stores nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from controlplane import wire
from controlplane.api.checks import check_new, check_replica_count
from controlplane.api.creating import Creating, sharing_source
from controlplane.api.imagined import check_imagined, with_imagined
from controlplane.api.outlook import Outlook, Prospect
from controlplane.api.records import not_found, resource
from controlplane.fleet.intent import Intent
from controlplane.model import Node, NodeId, Placement, Wanted
from controlplane.placement.fit import devices_of
from controlplane.placement.standing import newest
from controlplane.placement.verdicts import Outcome, Verdict, verdicts
from roundhouse.internal.v1.store_pb2 import DeploymentRecord
from roundhouse.kit.errors import NotReady
from roundhouse.kit.fields import FieldCheck
from roundhouse.v1 import errors_pb2
from roundhouse.v1.deployment_pb2 import ReplicaGpu
from roundhouse.v1.deployment_service_pb2 import (
    DEVICE_VERDICT_KIND_PASSED,
    DEVICE_VERDICT_KIND_PLACED,
    DEVICE_VERDICT_KIND_REFUSED,
    DeviceVerdict,
    DeviceVerdictKind,
    NodeVerdict,
    PlanDeploymentRequest,
    PlanDeploymentResponse,
    PlannedReplica,
    ScoreTerm,
)

MOST_NODE_BYTES = 1 << 20  # of verdicts in one answer
_KINDS: Mapping[Outcome, DeviceVerdictKind] = {
    Outcome.PLACED: DEVICE_VERDICT_KIND_PLACED,
    Outcome.PASSED: DEVICE_VERDICT_KIND_PASSED,
    Outcome.REFUSED: DEVICE_VERDICT_KIND_REFUSED,
}


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is asked about."""

    record: DeploymentRecord
    wanted: Wanted


class Planning:
    """Serves `PlanDeployment`."""

    def __init__(self, creating: Creating, intent: Intent, outlook: Outlook) -> None:
        self._creating, self._intent, self._outlook = creating, intent, outlook

    async def plan(self, request: PlanDeploymentRequest) -> PlanDeploymentResponse:
        """Returns where the replicas would go, and a verdict on every device."""
        check, kind = FieldCheck(), request.WhichOneof("subject")
        check.require(kind is not None, "subject", "is missing: set deployment or name")
        if request.HasField("replica_count"):
            check_replica_count(check, "replica_count", request.replica_count)
            check.require(kind != "deployment", "replica_count", "is for name: set it in the deployment")
        check_imagined(check, request.imagined_gpus)
        check.raise_if_any()
        subject = await self._new(request) if kind == "deployment" else self._present(request)
        nodes = with_imagined(self._outlook.nodes(), request.imagined_gpus)
        return planned(subject.record, subject.wanted, self._outlook, nodes, self._intent)

    async def _new(self, request: PlanDeploymentRequest) -> _Subject:
        asked = request.deployment
        check_new(asked, "", self._outlook.strategies)
        (deployment,) = wire.DEPLOYMENT.parse(asked.name, "deployment.name")
        await self._creating.require_free(deployment)
        if request.imagined_gpus and not asked.placement.HasField("gpus_per_replica"):
            asked.placement.gpus_per_replica = 1  # as creation settles it where there is a GPU
        record = await self._creating.draft(asked)
        wanted = wire.wanted(record)
        assert wanted is not None, "it was just looked up"
        return _Subject(record, replace(wanted, sharing_source=sharing_source(asked)))

    def _present(self, request: PlanDeploymentRequest) -> _Subject:
        (deployment,) = wire.DEPLOYMENT.parse(request.name)
        row = self._intent.deployments.rows.get(deployment)
        if row is None:
            raise not_found(deployment)
        wanted = wire.wanted(row.value)
        if row.value.deployment.HasField("delete_time"):
            raise NotReady(
                f'deployment "{deployment}" is being deleted: plan another one, or wait until it is gone',
                reason=errors_pb2.ERROR_REASON_DEPLOYMENT_DELETING,
                resource=resource(deployment),
            )
        if wanted is None:
            raise NotReady(
                "the model has not been looked up yet: wait until a node that has it is connected",
                reason=errors_pb2.ERROR_REASON_MODEL_NOT_LOOKED_UP,
                resource=resource(deployment),
            )
        count = request.replica_count if request.HasField("replica_count") else wanted.replica_count
        return _Subject(row.value, replace(wanted, replica_count=count))


def planned(
    record: DeploymentRecord, wanted: Wanted, outlook: Outlook, nodes: Mapping[NodeId, Node], intent: Intent
) -> PlanDeploymentResponse:
    """Returns what would come of a deployment as it is wanted, on these nodes."""
    prospect = outlook.with_(wanted, nodes)
    own = newest(wanted, [each for each in prospect.placements if each.deployment_uid == wanted.uid])
    before = {each.replica_uid for each in intent.placements_of(wanted.deployment)}
    fresh = {each.replica_uid: each for each in own if each.replica_uid not in before}
    without = [each for each in prospect.placements if each.replica_uid not in fresh]
    waiting = [each.index for each in prospect.unplaced if each.deployment == wanted.deployment]
    found = verdicts(
        devices_of(nodes.values(), without, owners={each.uid: each for each in prospect.wanted}),
        wanted,
        [(each.node, each.gpus) for each in fresh.values()],
        indexes=[*(each.index for each in fresh.values()), *waiting],
        own=[each for each in own if each.replica_uid in before],
        strategies=outlook.strategies,
    )
    shown, omitted_count = _fitted(_by_node(found, wanted, outlook.nodes()))
    displaced = outlook.displaced(wanted, prospect.unplaced)
    return PlanDeploymentResponse(
        fits=not displaced and not waiting,
        replicas=_replicas(wanted, own, before, prospect, nodes),
        memory_need=record.memory_need,
        computed_options=record.deployment.computed_options,
        nodes=shown,
        omitted_node_count=omitted_count,
        displaced_replicas=[wire.REPLICA.format(each.deployment, each.index) for each in displaced],
    )


def _replicas(
    wanted: Wanted,
    own: Iterable[Placement],
    before: Collection[str],
    prospect: Prospect,
    nodes: Mapping[NodeId, Node],
) -> Sequence[PlannedReplica]:
    planned = {each.index: _placed(each, nodes, is_standing=each.replica_uid in before) for each in own}
    for each in prospect.unplaced:
        if each.deployment == wanted.deployment:
            planned[each.index] = PlannedReplica(index=each.index, message=each.reason)
    return [planned[index] for index in sorted(planned)]


def _placed(placement: Placement, nodes: Mapping[NodeId, Node], *, is_standing: bool) -> PlannedReplica:
    node = nodes.get(placement.node)
    indexes = {gpu.uuid: gpu.index for gpu in (() if node is None else node.gpus)}
    return PlannedReplica(
        index=placement.index,
        is_standing=is_standing,
        node=wire.NODE.format(placement.node),
        gpus=[ReplicaGpu(uuid=uuid, index=indexes.get(uuid)) for uuid in placement.gpus],
    )


def _by_node(found: Iterable[Verdict], wanted: Wanted, present: Collection[NodeId]) -> Sequence[NodeVerdict]:
    nodes: dict[NodeId, NodeVerdict] = {}
    for each in found:
        device = each.device
        name, is_imagined = wire.NODE.format(device.node), device.node not in present
        node = nodes.setdefault(device.node, NodeVerdict(node=name, is_imagined=is_imagined))
        node.devices.append(_verdict(each, wanted))
    return [nodes[node] for node in sorted(nodes)]


def _verdict(verdict: Verdict, wanted: Wanted) -> DeviceVerdict:
    device = verdict.device
    return DeviceVerdict(
        gpu_uuid=device.gpu or "",
        gpu_index=device.index,
        kind=_KINDS[verdict.outcome],
        placed_count=verdict.placed_count,
        total_memory_bytes=device.total_bytes,
        foreign_memory_bytes=device.foreign_bytes,
        held_memory_bytes=device.held_bytes,
        available_memory_bytes=device.available_bytes,
        needed_memory_bytes=wanted.need.total_bytes,
        message=verdict.message,
        score=[ScoreTerm(name=name, value=value) for name, value in verdict.score],
    )


def _fitted(nodes: Sequence[NodeVerdict]) -> tuple[Sequence[NodeVerdict], int]:
    """Returns as many nodes as an answer holds, and how many are left out; those that get a replica come first then."""
    if sum(each.ByteSize() for each in nodes) <= MOST_NODE_BYTES:
        return nodes, 0
    shown: list[NodeVerdict] = []
    left = MOST_NODE_BYTES
    for each in sorted(nodes, key=lambda node: not any(device.placed_count for device in node.devices)):
        left -= each.ByteSize()
        if left < 0:
            break
        shown.append(each)
    return shown, len(nodes) - len(shown)
