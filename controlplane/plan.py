"""Decides what to do next about placements. Pure: no clock, no I/O, no logging."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from types import MappingProxyType

from controlplane.model import Drain, Node, NodeId, Placement, ReplicaUid, Unplaced, Wanted
from controlplane.placement.fit import Place as Spot
from controlplane.placement.ledger import Ledger, in_order
from controlplane.placement.moves import Move, ReplicaKey, moves
from controlplane.placement.place import Proposal
from controlplane.placement.rollouts import replacements
from controlplane.placement.standing import newest, runs_what_is_wanted, surplus_indexes
from controlplane.placement.strategies import Strategy
from controlplane.placement.successions import surplus

Order = tuple[int, int]  # (term, generation) of an assignment

# In one round, off nodes that are lost, are drained or refuse. Each ranks every device of the fleet anew, on the thread
# that serves all calls: about 6 ms with 800 GPUs, and a thousand may be refused at once. Those of one deployment that
# avoid the same are one move.
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
    leaving: Mapping[NodeId, Drain | None] = MappingProxyType({}),
    forgotten: Collection[NodeId] = (),
) -> Plan:
    """Returns the actions that move the fleet towards what is wanted; none once the two agree.

    Deployments are placed in the order in which they were written. orders: of the newest assignment of each node.
    refused: where a replica was refused lately, so that it does not go back and forth. strategies: those that exist, by
    name. turn: counts the rounds; of more replicas than are moved in one round, the next turn takes others. leaving:
    nodes off which replicas are moved, with the wish if they are drained, else because they are lost. What is placed on
    another node that is absent or not ready stays as it is. forgotten: absent nodes that are not waited for any more.
    """
    draft, owners = _Draft(placements, nodes, new_uid, leaving), {each.uid: each for each in wanted}
    for each in placements:
        if each.is_stopping and (
            each.node in forgotten or _is_gone(each, nodes.get(each.node), orders.get(each.node, (0, 0)))
        ):
            draft.remove(each)
    draft.stop_strays(owners.keys())
    for deployment in wanted:
        if deployment.is_deleting:
            draft.end(deployment)
        else:
            draft.stop_surplus(deployment, forgotten)
    # When everything that ends is known, so that it counts for none. Those without a place go first: they were
    # acknowledged because there was one, and what is refused where it stands was not to leave then.
    staying = in_order(each for each in wanted if not each.is_deleting)
    # Stopping frees nothing.
    ledger = Ledger(nodes.values(), draft.placements, owners=owners, strategies=strategies)
    draft.fill(staying, ledger)
    draft.move(staying, refused, ledger, turn)
    return Plan(tuple(draft.actions), draft.placements, tuple(draft.unplaced))


def _is_gone(placement: Placement, node: Node | None, order: Order) -> bool:
    """Tells whether the node has taken over the order to stop it and reports its engine stopped, or not at all."""
    if node is None or not node.is_ready or node.applied < order:
        return False
    return all(engine.is_gone for engine in node.engines if engine.replica_uid == placement.replica_uid)


def _as_said_of(unplaced: Unplaced, index: int) -> Unplaced:
    """Returns what is said of one replica as it holds for another one."""
    first, other = (f'"{unplaced.deployment}-{each}"' for each in (unplaced.index, index))
    return replace(unplaced, index=index, reason=unplaced.reason.replace(first, other, 1))


class _Draft:
    """The actions so far, and the placements as they will stand after them."""

    def __init__(
        self,
        placements: Iterable[Placement],
        nodes: Mapping[NodeId, Node],
        new_uid: Callable[[], ReplicaUid],
        leaving: Mapping[NodeId, Drain | None],
    ) -> None:
        self._placements: dict[str, dict[ReplicaUid, Placement]] = {}  # by uid of the deployment
        for each in placements:
            self._put(each)
        self._nodes, self._new_uid, self._leaving = nodes, new_uid, leaving
        self._begun: set[str] = set()  # deployments of which a replica is moved that serves
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

    def stop_surplus(self, wanted: Wanted, forgotten: Collection[NodeId]) -> None:
        """Stops the replicas that are no longer wanted, and of each that is what has been replaced."""
        standing = self._standing(wanted.uid)
        going = surplus_indexes(wanted, standing, self._nodes)
        for each in sorted(standing, key=lambda each: (each.index, -each.epoch)):
            if each.index in going:
                self._stop(each, wanted.drain_grace_s)
        kept = [each for each in standing if each.index not in going]
        for each in surplus(wanted, kept, self._nodes, self._leaving, forgotten):
            drain = self._leaving.get(each.node)
            grace_s = wanted.drain_grace_s if runs_what_is_wanted(each, wanted) else wanted.rollout_grace_s
            self._stop(each, grace_s if drain is None else drain.grace_s)

    def fill(self, wanted: Iterable[Wanted], ledger: Ledger) -> None:
        """Places the replicas that have no placement, in the order of their deployments."""
        for deployment in wanted:
            places = ledger.fill(deployment, self._own(deployment.uid))
            for each in places.proposals:
                self._add(deployment, each)
            self.unplaced.extend(places.unplaced)

    def move(
        self, wanted: Iterable[Wanted], refused: Mapping[ReplicaKey, Collection[Spot]], ledger: Ledger, turn: int
    ) -> None:
        """Moves replicas that cannot stay as they are to where they fit; those that fit nowhere else stay."""
        found: list[Move] = []
        for deployment in wanted:
            facts = deployment, self._standing(deployment.uid), self._nodes, self._leaving, refused
            found += moves(*facts)
            for each in replacements(*facts):
                if isinstance(each, Unplaced):
                    self.unplaced.append(each)
                else:
                    found.append(each)
        if len(found) > MOST_MOVES:
            first = turn * MOST_MOVES % len(found)
            found = found[first:] + found[:first]
        for each in found[:MOST_MOVES]:
            self._move(each, ledger)
        for each in found[MOST_MOVES:]:
            for here in each.placements:
                why = f"{each.why}; it is tried elsewhere when others have been"
                why = "it is replaced when others have been" if each.is_replaced else why
                self.unplaced.append(Unplaced(here.deployment, here.index, why, waits_its_turn=True))

    def _move(self, move: Move, ledger: Ledger) -> None:
        uid = move.wanted.uid
        if move.is_one_by_one and uid in self._begun:
            return
        if move.goes_first:
            for each in move.placements:
                self._stop(each, move.stop_grace_s or 0.0)
            return
        going = move.placements[:1] if move.is_one_by_one else move.placements
        by_index = {each.index: each for each in going}
        own = newest(move.wanted, self._own(uid))
        places = ledger.give(move.wanted, list(by_index), own=own, avoid=move.avoid)
        for proposal in places.proposals:
            if move.is_one_by_one:
                self._begun.add(uid)
            if move.stop_grace_s is not None:
                self._stop(by_index[proposal.index], move.stop_grace_s)
            self._add(move.wanted, proposal)
        for elsewhere in places.unplaced:
            # What holds for the first of those that go one by one holds for all of them: they need the same.
            for here in move.placements if move.is_one_by_one else [by_index[elsewhere.index]]:
                if move.unserved_grace_s is not None:
                    self._stop(here, move.unserved_grace_s)
                same = _as_said_of(elsewhere, here.index)
                self.unplaced.append(replace(same, reason=f"{move.why}; elsewhere: {same.reason}"))

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
            spec_generation=wanted.spec_generation,
        )
        self._put(placement)
        self.actions.append(Place(placement))

    def _put(self, placement: Placement) -> None:
        self._placements.setdefault(placement.deployment_uid, {})[placement.replica_uid] = placement
