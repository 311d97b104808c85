"""What the store holds of intent, and what a plan changes in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from controlplane import wire
from controlplane.model import Need, Node, NodeId, Placement, Wanted
from controlplane.plan import Forget, Order, Plan, Remove
from controlplane.reconcile.assign import assignment_of
from controlplane.store.protocol import Compare, Entry, Listing
from roundhouse.internal.v1.store_pb2 import AssignmentRecord, DeploymentRecord, PlacementRecord


class Lists(Protocol):
    """What reading needs of the store."""

    async def list(self, prefix: str) -> Listing:
        """Returns the entries under a prefix."""


@dataclass(frozen=True, slots=True)
class Change:
    """A commit."""

    compares: Sequence[Compare]
    puts: Mapping[str, bytes]
    deletes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Deployments, placements and assignments as they were read."""

    wanted: tuple[Wanted, ...]
    placements: tuple[Placement, ...]
    orders: Mapping[NodeId, Order]
    _term: int
    _records: Mapping[str, DeploymentRecord]  # by uid of the deployment
    _assignments: Mapping[NodeId, AssignmentRecord]  # also of nodes that run nothing now
    _revisions: Mapping[str, int]  # of every key that was read

    def change(self, plan: Plan, nodes: Mapping[NodeId, Node]) -> Change | None:
        """Returns the commit that carries out a plan and brings the assignments in line; None if that writes nothing.

        nodes: those that are known. The compares fail if what the plan touches, or a deployment of which it touches a
        replica, was written since.
        """
        puts: dict[str, bytes] = {}
        deletes: list[str] = []
        touched: set[str] = set()
        for action in plan.actions:
            if isinstance(action, Forget):
                deletes.append(wire.deployment_key(action.deployment))
                continue
            placement = action.placement
            key = wire.placement_key(placement)
            if isinstance(action, Remove):
                deletes.append(key)
            else:
                puts[key] = wire.placement_record(placement).SerializeToString()
            if placement.deployment_uid in self._records:
                touched.add(wire.deployment_key(placement.deployment))
        for node, record in self._assignments_after(plan.placements, nodes).items():
            key = wire.assignment_key(node)
            if record is None:
                deletes.append(key)
            else:
                puts[key] = record.SerializeToString()
        if not puts and not deletes:
            return None
        keys = sorted({*touched, *puts, *deletes})
        return Change([Compare(key, self._revisions.get(key, 0)) for key in keys], puts, deletes)

    def _assignments_after(
        self, placements: Sequence[Placement], nodes: Mapping[NodeId, Node]
    ) -> Mapping[NodeId, AssignmentRecord | None]:
        """Returns the assignments that change; None stands for one that is to be deleted.

        That of a node that runs nothing is emptied, because its revision orders what the node is told, and deleted once
        the node is not known. If one comes back that has applied a generation of this term, it would refuse generation
        0, which stands for no record: it gets another empty one, of a higher revision.
        """
        on_node: dict[NodeId, list[Placement]] = {node: [] for node in self._assignments}
        for placement in placements:
            on_node.setdefault(placement.node, []).append(placement)
        changed: dict[NodeId, AssignmentRecord | None] = {}
        for node, here in on_node.items():
            before = self._assignments.get(node, AssignmentRecord())
            engines = assignment_of(here, self._records, wire.assigned_engines(before))
            after = wire.assignment_record(engines)
            if not here and node not in nodes:
                changed[node] = None
            elif after != before:
                changed[node] = after
        returned = [node for node, known in nodes.items() if node not in on_node and known.applied > (self._term, 0)]
        return {**changed, **dict.fromkeys(returned, AssignmentRecord())}


async def read_snapshot(store: Lists, term: int) -> Snapshot:
    """Reads what the store holds; kind by kind, so the compares of a change notice what was written in between."""
    deployments = (await store.list(wire.DEPLOYMENTS)).entries
    placements = (await store.list(wire.PLACEMENTS)).entries
    assignments = (await store.list(wire.ASSIGNMENTS)).entries
    records = [DeploymentRecord.FromString(each.value) for each in deployments]
    nodes = {NodeId(each.key.removeprefix(wire.ASSIGNMENTS)): each for each in assignments}
    return Snapshot(
        wanted=tuple(_wanted(records, deployments)),
        placements=tuple(wire.placement(PlacementRecord.FromString(each.value)) for each in placements),
        orders={node: (term, each.revision) for node, each in nodes.items()},
        _term=term,
        _records={each.deployment.uid: each for each in records},
        _assignments={node: AssignmentRecord.FromString(each.value) for node, each in nodes.items()},
        _revisions={each.key: each.revision for each in (*deployments, *placements, *assignments)},
    )


def _wanted(records: Sequence[DeploymentRecord], entries: Sequence[Entry]) -> Iterator[Wanted]:
    """Yields deployments as placement sees them; not one of which the need is not known, unless it is being deleted."""
    for record, entry in zip(records, entries, strict=True):
        known = wire.wanted(record) or _deleting(record)
        if known is not None:
            yield replace(known, create_revision=entry.create_revision)


def _deleting(record: DeploymentRecord) -> Wanted | None:
    deployment = record.deployment
    if not deployment.HasField("delete_time"):
        return None
    (name,) = wire.DEPLOYMENT.parse(deployment.name)
    return Wanted(
        deployment=name,
        uid=deployment.uid,
        generation=deployment.generation,
        replica_count=0,
        need=Need(0),
        strategy="",
        gpu_count=None,
        allows_sharing=True,
        is_deleting=True,
    )
