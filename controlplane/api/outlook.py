"""What the reconciler would do next, by its own function and on the same facts, if something else were wanted."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from controlplane import wire
from controlplane.fleet.intent import Intent
from controlplane.fleet.registry import Registry
from controlplane.model import Node, NodeId, Placement, ReplicaUid, Unplaced, Wanted
from controlplane.placement.absences import without
from controlplane.placement.evictions import Departures, departures
from controlplane.placement.strategies import STRATEGIES, Strategy
from controlplane.plan import plan

_LAST = 2**63  # behind every revision of the store: what is made now is placed last


@dataclass(frozen=True, slots=True)
class Prospect:
    """What would come of it."""

    placements: tuple[Placement, ...]  # all, as they would stand
    unplaced: tuple[Unplaced, ...]  # replicas that would have no place; not those that stand and are refused there
    wanted: tuple[Wanted, ...]


class Outlook:
    """Looks ahead, and changes nothing."""

    def __init__(
        self,
        intent: Intent,
        registry: Registry,
        *,
        term: int = 0,
        strategies: Mapping[str, Strategy] = STRATEGIES,
    ) -> None:
        self._intent, self._registry, self._term, self.strategies = intent, registry, term, strategies

    def require_node(self) -> None:
        """Raises NotReady (NO_NODE) unless a node is READY."""
        if not any(known.is_ready for known in self._registry.known.values()):
            raise self._registry.no_node()

    def nodes(self) -> Mapping[NodeId, Node]:
        """Returns the nodes as last reported, with what is wanted of them."""
        return self._departures(self._registry.nodes()).nodes

    def _departures(self, nodes: Mapping[NodeId, Node]) -> Departures:
        placed = {NodeId(node) for node in self._intent.placed_nodes()}
        return departures(nodes, self._registry.attendance(), self._intent.wishes(), placed)

    def with_(self, wanted: Wanted, nodes: Mapping[NodeId, Node] | None = None) -> Prospect:
        """Returns what would come if a deployment were wanted like this, beside the others or in its own place.

        nodes: in place of those that there are. If its replicas are to run something else, those that it has count as
        gone: they make room one after the other.
        """
        stored = self._stored()
        nodes = self.nodes() if nodes is None else nodes
        before = next((each for each in stored if each.uid == wanted.uid), None)
        if before is not None:
            after = [
                replace(wanted, create_revision=each.create_revision) if each.uid == wanted.uid else each
                for each in stored
            ]
        else:
            after = [*stored, replace(wanted, create_revision=_LAST)]
        gone = wanted.uid if before is not None and before.spec_generation != wanted.spec_generation else None
        return self._prospect(after, nodes, gone=gone)

    def displaced(self, wanted: Wanted, unplaced: Sequence[Unplaced]) -> list[Unplaced]:
        """Returns replicas of others that wait and would have a place, were it not for a change of this deployment.

        unplaced: what has no place after the change.
        """
        others = [each for each in unplaced if each.deployment != wanted.deployment]
        if not others:
            return []
        waiting = self._prospect(self._stored(), self.nodes()).unplaced
        lost_already = {(each.deployment, each.index) for each in waiting}
        return [each for each in others if (each.deployment, each.index) not in lost_already]

    def _stored(self) -> list[Wanted]:
        """Returns what is wanted; what is not looked up yet waits."""
        rows = self._intent.deployments.rows.values()
        known = ((wire.wanted(row.value), row.create_revision) for row in rows)
        return [replace(each, create_revision=made) for each, made in known if each is not None]

    def _prospect(self, wanted: Sequence[Wanted], nodes: Mapping[NodeId, Node], *, gone: str | None = None) -> Prospect:
        """Returns what would come. gone: uid of a deployment whose replicas are left out."""
        placements = [row.value for row in self._intent.placements.rows.values()]
        if gone is not None:
            nodes = without(nodes, {each.replica_uid for each in placements if each.deployment_uid == gone})
            placements = [each for each in placements if each.deployment_uid != gone]
        uids = (ReplicaUid(f"planned-{number}") for number in itertools.count())
        assignments = self._intent.assignments.rows.items()
        now = self._departures(nodes)
        planned = plan(
            wanted,
            placements,
            now.nodes,
            orders={NodeId(node): (self._term, row.revision) for node, row in assignments},
            refused={},
            new_uid=lambda: next(uids),
            strategies=self.strategies,
            leaving=now.leaving,
            forgotten=now.forgotten,
        )
        standing = {(each.deployment_uid, each.index) for each in planned.placements if not each.is_stopping}
        uid_of = {each.deployment: each.uid for each in wanted}
        lost = [each for each in planned.unplaced if (uid_of.get(each.deployment, ""), each.index) not in standing]
        return Prospect(planned.placements, tuple(lost), tuple(wanted))
