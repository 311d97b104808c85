"""Decides what to do next about placements. Pure: no clock, no I/O, no logging."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from controlplane.model import Node, NodeId, Placement, ReplicaUid, Unplaced, Wanted
from controlplane.placement.fit import Device, devices_of, occupant_of
from controlplane.placement.fit import Place as Spot
from controlplane.placement.place import Places, Proposal, place_on

Order = tuple[int, int]  # (term, generation) of an assignment
ReplicaKey = tuple[str, int]  # (uid of the deployment, index)


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
) -> Plan:
    """Returns the actions that move the fleet towards what is wanted; none once the two agree.

    orders: of the newest assignment of each node. refused: where a replica was refused lately, so that it does not go
    back and forth. What is placed on a node that is absent or not ready stays as it is.
    """
    draft = _Draft(placements, nodes, new_uid, exclusive={each.uid for each in wanted if not each.allows_sharing})
    for each in placements:
        if each.is_stopping and _is_gone(each, nodes.get(each.node), orders.get(each.node, (0, 0))):
            draft.remove(each)
    draft.stop_strays({each.uid for each in wanted})
    for deployment in wanted:
        if deployment.is_deleting:
            draft.end(deployment)
        else:
            draft.stop_surplus(deployment)
    draft.count_devices()
    for deployment in wanted:  # when everything that ends is known, so that it counts for none
        if not deployment.is_deleting:
            draft.move_refused(deployment, refused)
            draft.fill(deployment)
    return Plan(tuple(draft.actions), draft.placements, tuple(draft.unplaced))


def spots(placement: Placement) -> list[Spot]:
    """Returns the devices of a placement."""
    return [(placement.node, gpu) for gpu in placement.gpus or (None,)]


def refusal(placement: Placement, nodes: Mapping[NodeId, Node]) -> str | None:
    """Returns why the node of a placement will not start it; None if it does not say so."""
    node = nodes.get(placement.node)
    return node.refused.get(placement.replica_uid) if node is not None and node.is_ready and node.refused else None


def _is_gone(placement: Placement, node: Node | None, order: Order) -> bool:
    """Tells whether the node has taken over the order to stop it and reports its engine stopped, or not at all."""
    if node is None or not node.is_ready or node.applied < order:
        return False
    return all(engine.is_gone for engine in node.engines if engine.replica_uid == placement.replica_uid)


class _Draft:
    """The actions so far, and the placements as they will stand after them."""

    def __init__(
        self,
        placements: Iterable[Placement],
        nodes: Mapping[NodeId, Node],
        new_uid: Callable[[], ReplicaUid],
        *,
        exclusive: Collection[str],
    ) -> None:
        self._placements: dict[str, dict[ReplicaUid, Placement]] = {}  # by uid of the deployment
        for each in placements:
            self._put(each)
        self._nodes, self._new_uid, self._exclusive = nodes, new_uid, exclusive
        self._devices: dict[Spot, Device] = {}  # when it is clear what is removed
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

    def stop_strays(self, uids: set[str]) -> None:
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
        kept: set[int] = set()
        for each in sorted(self._standing(wanted.uid), key=lambda each: (each.index, -each.epoch)):
            if each.index >= wanted.replica_count or each.index in kept:
                self._stop(each, wanted.drain_grace_s)
            kept.add(each.index)

    def move_refused(self, wanted: Wanted, refused: Mapping[ReplicaKey, Collection[Spot]]) -> None:
        """Moves the replicas that their nodes will not start to where they fit; those that fit nowhere else stay."""
        for each in self._standing(wanted.uid):
            reason = refusal(each, self._nodes)
            if reason is None:
                continue
            avoid = {*spots(each), *refused.get((wanted.uid, each.index), ())}
            places = self._place(wanted, [each.index], avoid)
            if places.proposals:
                self._stop(each, 0.0)  # it never ran
                self._add(wanted, places.proposals[0])
            else:
                elsewhere = places.unplaced[0]
                why = f"node {each.node} refuses it: {reason}; elsewhere: {elsewhere.reason}"
                self.unplaced.append(replace(elsewhere, reason=why))

    def count_devices(self) -> None:
        """Takes stock of what each device holds. Stopping frees nothing, so only `_add` changes it afterwards."""
        devices = devices_of(self._nodes.values(), self.placements, exclusive=self._exclusive)
        self._devices = {each.place: each for each in devices}

    def fill(self, wanted: Wanted) -> None:
        """Places the replicas that have no placement."""
        standing = {each.index for each in self._standing(wanted.uid)}
        places = self._place(wanted, [index for index in range(wanted.replica_count) if index not in standing])
        for each in places.proposals:
            self._add(wanted, each)
        self.unplaced.extend(places.unplaced)

    def _own(self, uid: str) -> list[Placement]:
        return list(self._placements.get(uid, {}).values())

    def _standing(self, uid: str) -> list[Placement]:
        return [each for each in self._own(uid) if not each.is_stopping]

    def _place(self, wanted: Wanted, indexes: Sequence[int], avoid: Collection[Spot] = ()) -> Places:
        if not indexes:
            return Places((), ())
        return place_on(self._devices.values(), wanted, indexes, own=self._own(wanted.uid), avoid=avoid)

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
        for spot in spots(placement):
            self._devices[spot] = self._devices[spot].with_occupant(occupant_of(placement, self._exclusive))
        self.actions.append(Place(placement))

    def _put(self, placement: Placement) -> None:
        self._placements.setdefault(placement.deployment_uid, {})[placement.replica_uid] = placement
