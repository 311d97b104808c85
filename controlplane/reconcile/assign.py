"""Says what a node should run, given what is placed on it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controlplane import wire
from controlplane.model import Placement
from roundhouse.internal.v1.agent_service_pb2 import EngineAssignment
from roundhouse.internal.v1.store_pb2 import DeploymentRecord


def assignment_of(
    placements: Iterable[Placement], records: Mapping[str, DeploymentRecord], before: Iterable[EngineAssignment]
) -> list[EngineAssignment]:
    """Returns the whole assignment of a node.

    placements: those on the node. records: deployments by uid. before: the node's present assignment; a replica that it
    runs with the same spec keeps the generation with which it was started, so that scaling a deployment touches nothing
    but the nodes that gain or lose a replica. One that is to be replaced keeps its spec.
    """
    present = {each.replica_uid: each for each in before}
    ordered = sorted(placements, key=lambda each: (each.deployment, each.index, each.epoch, each.replica_uid))
    return [_engine(each, records.get(each.deployment_uid), present.get(each.replica_uid)) for each in ordered]


def _engine(placement: Placement, record: DeploymentRecord | None, before: EngineAssignment | None) -> EngineAssignment:
    # What it runs is known from before if the deployment is gone, so that it stops, or if it wants something else now.
    fresh = wire.engine_assignment(DeploymentRecord() if record is None else record, placement)
    if before is None:
        return fresh
    if record is None or placement.spec_generation != record.spec_generation:
        fresh.spec.CopyFrom(before.spec)  # it goes on with what it was started with
    if fresh.spec == before.spec:
        fresh.deployment_generation = before.deployment_generation
    return fresh
