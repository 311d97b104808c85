"""What the store holds of intent, and what a plan changes in it."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass

from controlplane import wire
from controlplane.model import Node, NodeId, NodeWish, Placement, Wanted
from controlplane.plan import Forget, Order, Place, Plan, Remove
from controlplane.reconcile.assign import assignment_of
from controlplane.store.protocol import Compare
from roundhouse.internal.v1.store_pb2 import AssignmentRecord, DeploymentRecord

# All of which an assignment is made: its revision, the placements on its node, and the revisions of their deployments.
Basis = tuple[int, Sequence[Placement], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Change:
    """A commit."""

    compares: Sequence[Compare]
    puts: Mapping[str, bytes]
    deletes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Deployments, placements, assignments and what is wanted of nodes as they were read."""

    wanted: tuple[Wanted, ...]
    placements: tuple[Placement, ...]
    wishes: Mapping[NodeId, NodeWish]  # of nodes that are cordoned
    orders: Mapping[NodeId, Order]
    _term: int
    _records: Mapping[str, DeploymentRecord]  # by uid of the deployment
    _assignments: Mapping[NodeId, AssignmentRecord]  # also of nodes that run nothing now
    _revisions: Mapping[str, int]  # of every key that was read
    # Of nodes whose assignment was found to be in line: it still is while nothing of that has changed. Most nodes are,
    # and a fleet has thousands.
    _settled: MutableMapping[NodeId, Basis]

    def change(self, plan: Plan, nodes: Mapping[NodeId, Node]) -> Change | None:
        """Returns the commit that carries out a plan and brings the assignments in line; None if that writes nothing.

        nodes: those that are known. The compares fail if what the plan touches, a deployment of which it touches a
        replica, or what is wanted of a node on which it places one, was written since.
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
            if isinstance(action, Place):
                touched.add(wire.node_key(placement.node))
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
            if not here and node not in nodes:
                changed[node] = None
                continue
            basis = self._basis(node, here)
            if self._settled.get(node) == basis:
                continue
            before = self._assignments.get(node, AssignmentRecord())
            after = wire.assignment_record(assignment_of(here, self._records, wire.assigned_engines(before)))
            if after != before:
                changed[node] = after
            else:
                self._settled[node] = basis
        returned = [node for node, known in nodes.items() if node not in on_node and known.applied > (self._term, 0)]
        return {**changed, **dict.fromkeys(returned, AssignmentRecord())}

    def _basis(self, node: NodeId, here: Sequence[Placement]) -> Basis:
        deployments = [self._revisions.get(wire.deployment_key(each.deployment), 0) for each in here]
        return self._revisions.get(wire.assignment_key(node), 0), here, deployments
