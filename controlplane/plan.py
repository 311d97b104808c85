"""Decides what to do next about placements. Pure: no clock, no I/O, no logging."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from controlplane.model import Node, NodeId, Placement, ReplicaUid, Unplaced, Wanted
from controlplane.placement.fit import Place as Spot
from controlplane.placement.ledger import Ledger, in_order, newest
from controlplane.placement.place import Proposal
from controlplane.placement.strategies import Strategy

Order = tuple[int, int]  # (term, generation) of an assignment
ReplicaKey = tuple[str, int]  # (uid of the deployment, index)

# In one round, of replicas that are refused. Each ranks every device of the fleet anew, on the thread that serves all
# calls: about 6 ms with 800 GPUs, and a thousand may be refused at once. Those that avoid the same are one move.
MOST_MOVES = 16


@dataclass(frozen=True, slots=True)
class Place:
    """Gives a replica its place."""

    placement: Placement


@dataclass(frozen=True, slots=True)
class MarkStopping:
    """Lets a replica end, its running requests within the grace; or shortens that grace."""

    placement: Placement  # as it is to be


@dataclass(frozen=True, slots=True)
class Remove:
    """Forgets a placement: its node says that the engine is gone."""

    placement: Placement


@dataclass(frozen=True, slots=True)
class Forget:
    """Forgets a deployment that was deleted: nothing of it is left."""

    deployment: str
    uid: str


Action = Place | MarkStopping | Remove | Forget


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in order, and what comes of it."""

    actions: tuple[Action, ...]
    placements: tuple[Placement, ...]  # all, as they stand when the actions are done
    unplaced: tuple[Unplaced, ...]  # replicas without a place, and those that their node refuses and no other takes


def plan(
    wanted: Sequence[Wanted],
    placements: Sequence[Placement],
    nodes: Mapping[NodeId, Node],
    *,
    orders: Mapping[NodeId, Order],
    refused: Mapping[ReplicaKey, Collection[Spot]],
    new_uid: Callable[[], ReplicaUid],
    strategies: Mapping[str, Strategy],
    turn: int = 0,
) -> Plan:
    """Returns the actions that move the fleet towards what is wanted; none once the two agree.

    Deployments are placed in the order in which they were written. orders: of the newest assignment of each node.
    refused: where a replica was refused lately, so that it does not go back and forth. strategies: those that exist, by
    name. turn: counts the rounds; of more refused replicas than are tried elsewhere in one round, the next turn takes
    others. What is placed on a node that is absent or not ready stays as it is.
    """
    draft, owners = _Draft(placements, nodes, new_uid), {each.uid: each for each in wanted}
    for each in placements:
        if each.is_stopping and _is_gone(each, nodes.get(each.node), orders.get(each.node, (0, 0))):
            draft.remove(each)
    draft.stop_strays(owners.keys())
    for deployment in wanted:
        if deployment.is_deleting:
            draft.end(deployment)
        else:
            draft.stop_surplus(deployment)
    # When everything that ends is known, so that it counts for none. Those without a place go first: they were
    # acknowledged because there was one, and what is refused where it stands was not to leave then.
    staying = in_order(each for each in wanted if not each.is_deleting)
    # Stopping frees nothing.
    ledger = Ledger(nodes.values(), draft.placements, owners=owners, strategies=strategies)
    draft.fill(staying, ledger)
    draft.move_refused(staying, refused, ledger, turn)
    return Plan(tuple(draft.actions), draft.placements, tuple(draft.unplaced))


def spots(placement: Placement) -> list[Spot]:
    """Returns the devices of a placement."""
    return [(placement.node, gpu) for gpu in placement.gpus or (None,)]


def refused_spots(placement: Placement, nodes: Mapping[NodeId, Node]) -> list[Spot]:
    """Returns what a placement which its node refuses is to avoid: the devices that it has, or all of the node."""
    node = nodes[placement.node]
    if placement.replica_uid not in node.refused_altogether:
        return spots(placement)
    return [(node.id, None), *((node.id, gpu.uuid) for gpu in node.gpus)]


def refusal(placement: Placement, nodes: Mapping[NodeId, Node]) -> str | None:
    """Returns why the node of a placement will not start it; None if it does not say so."""
    node = nodes.get(placement.node)
    return node.refused.get(placement.replica_uid) if node is not None and node.is_ready and node.refused else None


def _is_gone(placement: Placement, node: Node | None, order: Order) -> bool:
    """Tells whether the node has taken over the order to stop it and reports its engine stopped, or not at all."""
    if node is None or not node.is_ready or node.applied < order:
        return False
    return all(engine.is_gone for engine in node.engines if engine.replica_uid == placement.replica_uid)


@dataclass(frozen=True, slots=True)
class _Group:
    """Replicas of one deployment that are to be moved, and what all of them avoid."""

    wanted: Wanted
    placements: tuple[Placement, ...]
    avoid: frozenset[Spot]


class _Draft:
    """The actions so far, and the placements as they will stand after them."""

    def __init__(
        self,
        placements: Iterable[Placement],
        nodes: Mapping[NodeId, Node],
        new_uid: Callable[[], ReplicaUid],
    ) -> None:
        self._placements: dict[str, dict[ReplicaUid, Placement]] = {}  # by uid of the deployment
        for each in placements:
            self._put(each)
        self._nodes, self._new_uid = nodes, new_uid
        self.actions: list[Action] = []
        self.unplaced: list[Unplaced] = []

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Returns the placements as they stand now."""
        return tuple(each for own in self._placements.values() for each in own.values())

    def remove(self, placement: Placement) -> None:
        """Forgets a placement whose engine is gone."""
        del self._placements[placement.deployment_uid][placement.replica_uid]
        self.actions.append(Remove(placement))

    def stop_strays(self, uids: Set[str]) -> None:
        """Stops what belongs to no deployment; one that has the name but another uid did not want it."""
        for uid in sorted(self._placements.keys() - uids):
            for each in self._standing(uid):
                self._stop(each, each.drain_grace_s)

    def end(self, wanted: Wanted) -> None:
        """Stops everything of a deployment that is being deleted, and forgets it when nothing is left."""
        own = self._own(wanted.uid)
        for each in own:
            if not each.is_stopping or each.drain_grace_s > wanted.drain_grace_s:  # it may shorten a drain that runs
                self._stop(each, wanted.drain_grace_s)
        if not own:
            self.actions.append(Forget(wanted.deployment, wanted.uid))

    def stop_surplus(self, wanted: Wanted) -> None:
        """Stops the replicas that are no longer wanted, and all but the newest placement of each that is."""
        staying = {each.replica_uid for each in newest(wanted, self._own(wanted.uid))}
        for each in sorted(self._standing(wanted.uid), key=lambda each: (each.index, -each.epoch)):
            if each.replica_uid not in staying:
                self._stop(each, wanted.drain_grace_s)

    def fill(self, wanted: Iterable[Wanted], ledger: Ledger) -> None:
        """Places the replicas that have no placement, in the order of their deployments."""
        for deployment in wanted:
            places = ledger.fill(deployment, self._own(deployment.uid))
            for each in places.proposals:
                self._add(deployment, each)
            self.unplaced.extend(places.unplaced)

    def move_refused(
        self, wanted: Iterable[Wanted], refused: Mapping[ReplicaKey, Collection[Spot]], ledger: Ledger, turn: int
    ) -> None:
        """Moves replicas that their nodes will not start to where they fit; those that fit nowhere else stay."""
        found = [group for deployment in wanted for group in self._refused(deployment, refused)]
        if len(found) > MOST_MOVES:
            first = turn * MOST_MOVES % len(found)
            found = found[first:] + found[:first]
        for group in found[:MOST_MOVES]:
            self._move(group, ledger)
        for group in found[MOST_MOVES:]:
            for each in group.placements:
                why = f"{refusal(each, self._nodes)}; it is tried elsewhere when others have been"
                self.unplaced.append(Unplaced(each.deployment, each.index, f"node {each.node} refuses it: {why}"))

    def _refused(self, wanted: Wanted, refused: Mapping[ReplicaKey, Collection[Spot]]) -> Iterable[_Group]:
        """Returns the replicas of a deployment that are refused where they stand, in groups that avoid the same."""
        groups: dict[frozenset[Spot], list[Placement]] = {}
        for each in sorted(self._standing(wanted.uid), key=lambda each: each.index):
            if refusal(each, self._nodes) is not None:
                avoid = frozenset({*refused_spots(each, self._nodes), *refused.get((wanted.uid, each.index), ())})
                groups.setdefault(avoid, []).append(each)
        return [_Group(wanted, tuple(placements), avoid) for avoid, placements in groups.items()]

    def _move(self, group: _Group, ledger: Ledger) -> None:
        by_index = {each.index: each for each in group.placements}
        own = self._own(group.wanted.uid)
        places = ledger.give(group.wanted, list(by_index), own=own, avoid=group.avoid)
        for proposal in places.proposals:
            self._stop(by_index[proposal.index], 0.0)  # it never ran
            self._add(group.wanted, proposal)
        for elsewhere in places.unplaced:
            here = by_index[elsewhere.index]
            why = f"node {here.node} refuses it: {refusal(here, self._nodes)}; elsewhere: {elsewhere.reason}"
            self.unplaced.append(replace(elsewhere, reason=why))

    def _own(self, uid: str) -> list[Placement]:
        return list(self._placements.get(uid, {}).values())

    def _standing(self, uid: str) -> list[Placement]:
        return [each for each in self._own(uid) if not each.is_stopping]

    def _stop(self, placement: Placement, drain_grace_s: float) -> None:
        stopping = replace(placement, is_stopping=True, drain_grace_s=drain_grace_s)
        self._put(stopping)
        self.actions.append(MarkStopping(stopping))

    def _add(self, wanted: Wanted, proposal: Proposal) -> None:
        epochs = [each.epoch for each in self._own(wanted.uid) if each.index == proposal.index]
        placement = Placement(
            deployment=wanted.deployment,
            deployment_uid=wanted.uid,
            index=proposal.index,
            replica_uid=self._new_uid(),
            epoch=1 + max(epochs, default=0),
            node=proposal.node,
            gpus=proposal.gpus,
            reserved_bytes=proposal.reserved_bytes,
            drain_grace_s=wanted.drain_grace_s,
        )
        self._put(placement)
        self.actions.append(Place(placement))

    def _put(self, placement: Placement) -> None:
        self._placements.setdefault(placement.deployment_uid, {})[placement.replica_uid] = placement
