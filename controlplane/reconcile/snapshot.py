"""What the store holds of intent, and what a plan changes in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from controlplane import wire
from controlplane.model import Need, NodeId, Placement, Wanted
from controlplane.reconcile.assign import assignment_of
from controlplane.reconcile.plan import Forget, Order, Plan, Remove
from controlplane.store.protocol import Compare, Listing
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
    _records: Mapping[str, DeploymentRecord]  # by uid of the deployment
    _assignments: Mapping[NodeId, AssignmentRecord]  # also of nodes that run nothing now
    _revisions: Mapping[str, int]  # of every key that was read

    def change(self, plan: Plan) -> Change | None:
        """Returns the commit that carries out a plan and brings the assignments in line; None if that writes nothing.

        Its compares fail if what the plan touches, or a deployment of which it touches a replica, was written since.
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
        puts.update(self._assignment_puts(plan.placements))
        if not puts and not deletes:
            return None
        keys = sorted({*touched, *puts, *deletes})
        return Change([Compare(key, self._revisions.get(key, 0)) for key in keys], puts, deletes)

    def _assignment_puts(self, placements: Sequence[Placement]) -> dict[str, bytes]:
        # The record of a node that runs nothing is emptied, not deleted: its revision orders what the node is told.
        on_node: dict[NodeId, list[Placement]] = {node: [] for node in self._assignments}
        for placement in placements:
            on_node.setdefault(placement.node, []).append(placement)
        puts = {}
        for node, here in on_node.items():
            before = self._assignments.get(node, AssignmentRecord())
            engines = assignment_of(here, self._records, wire.assigned_engines(before))
            after = wire.assignment_record(engines)
            if after != before:
                puts[wire.assignment_key(node)] = after.SerializeToString()
        return puts


async def read_snapshot(store: Lists, term: int) -> Snapshot:
    """Reads what the store holds; kind by kind, so the compares of a change notice what was written in between."""
    deployments = (await store.list(wire.DEPLOYMENTS)).entries
    placements = (await store.list(wire.PLACEMENTS)).entries
    assignments = (await store.list(wire.ASSIGNMENTS)).entries
    records = [DeploymentRecord.FromString(each.value) for each in deployments]
    nodes = {NodeId(each.key.removeprefix(wire.ASSIGNMENTS)): each for each in assignments}
    return Snapshot(
        wanted=tuple(wanted for wanted in map(_wanted, records) if wanted is not None),
        placements=tuple(wire.placement(PlacementRecord.FromString(each.value)) for each in placements),
        orders={node: (term, each.revision) for node, each in nodes.items()},
        _records={each.deployment.uid: each for each in records},
        _assignments={node: AssignmentRecord.FromString(each.value) for node, each in nodes.items()},
        _revisions={each.key: each.revision for each in (*deployments, *placements, *assignments)},
    )


def _wanted(record: DeploymentRecord) -> Wanted | None:
    """Returns a deployment as placement sees it; None while its need is not known, unless it is being deleted."""
    known = wire.wanted(record)
    deployment = record.deployment
    if known is not None or not deployment.HasField("delete_time"):
        return known
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
