"""Which replicas cannot stay where they are, and how each is moved. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.model import Drain, Node, NodeId, Placement, Wanted
from controlplane.placement.fit import Place
from controlplane.placement.standing import Leaving, newest, serves
from controlplane.placement.successions import moves_under_drain

ReplicaKey = tuple[str, int]  # (uid of the deployment, index)


@dataclass(frozen=True, slots=True)
class Move:
    """Replicas of one deployment that go elsewhere if they fit there, and what all of them avoid."""

    wanted: Wanted
    placements: tuple[Placement, ...]
    avoid: frozenset[Place]
    why: str  # they cannot stay
    stop_grace_s: float | None  # with which they stop as soon as they have another place; None: once they serve there
    unserved_grace_s: float | None  # with which they stop if they fit nowhere else; None: they stay
    is_one_by_one: bool = False  # only the first goes now, and none if another such move of the deployment has begun
    goes_first: bool = False  # they stop before they have another place
    is_replaced: bool = False  # by what runs something else, wherever that is


def moves(
    wanted: Wanted,
    standing: Sequence[Placement],
    nodes: Mapping[NodeId, Node],
    leaving: Leaving,
    refused: Mapping[ReplicaKey, Collection[Place]],
) -> list[Move]:
    """Returns the replicas of a deployment that are to be moved, in groups that are moved alike.

    standing: its placements that are not stopping. leaving: nodes that are drained, with the wish, or lost, with None.
    refused: where a replica was refused lately. Of the replicas that serve on drained nodes one is moved at a time.
    """
    groups: dict[_Manner, list[Placement]] = {}
    current = newest(wanted, standing)
    is_busy = bool(leaving) and moves_under_drain(standing, current, nodes, leaving)
    for each in current:
        if each.node in leaving:
            drain = leaving[each.node]
            is_serving = drain is not None and serves(each, nodes)
            if is_serving and is_busy:
                continue
            manner = _off(each, drain, nodes, is_serving=is_serving, avoid=refused.get((wanted.uid, each.index), ()))
        elif refusal(each, nodes) is not None:
            manner = _refused(each, nodes, refused.get((wanted.uid, each.index), ()))
        else:
            continue
        groups.setdefault(manner, []).append(each)
    return [
        Move(
            wanted,
            tuple(placements),
            each.avoid,
            each.why,
            each.stop_grace_s,
            each.unserved_grace_s,
            is_one_by_one=each.is_one_by_one,
        )
        for each, placements in groups.items()
    ]


def spots(placement: Placement) -> list[Place]:
    """Returns the devices of a placement."""
    return [(placement.node, gpu) for gpu in placement.gpus or (None,)]


def refused_spots(placement: Placement, nodes: Mapping[NodeId, Node]) -> list[Place]:
    """Returns what a placement which its node refuses is to avoid: the devices that it has, or all of the node."""
    node = nodes[placement.node]
    if placement.replica_uid not in node.refused_altogether:
        return spots(placement)
    return [(node.id, None), *((node.id, gpu.uuid) for gpu in node.gpus)]


def refusal(placement: Placement, nodes: Mapping[NodeId, Node]) -> str | None:
    """Returns why the node of a placement will not start it; None if it does not say so."""
    node = nodes.get(placement.node)
    return node.refused.get(placement.replica_uid) if node is not None and node.is_ready and node.refused else None


@dataclass(frozen=True, slots=True)
class _Manner:
    avoid: frozenset[Place]
    why: str
    stop_grace_s: float | None
    unserved_grace_s: float | None
    is_one_by_one: bool = False


def _off(
    placement: Placement,
    drain: Drain | None,
    nodes: Mapping[NodeId, Node],
    *,
    is_serving: bool,
    avoid: Iterable[Place],
) -> _Manner:
    node = nodes.get(placement.node)
    is_silent = node is None or not node.is_ready
    why = f"node {placement.node} {'does not report' if is_silent else 'is drained'}"
    # What a silent node runs may serve again when it is back, and what serves goes on until the other does.
    stops_now = drain is not None and not is_silent and not is_serving
    unserved_grace_s = drain.grace_s if drain is not None and drain.allows_unserved else None
    stop_grace_s = drain.grace_s if drain is not None and stops_now else None
    return _Manner(frozenset(avoid), why, stop_grace_s, unserved_grace_s, is_one_by_one=is_serving)


def _refused(placement: Placement, nodes: Mapping[NodeId, Node], avoid: Iterable[Place]) -> _Manner:
    why = f"node {placement.node} refuses it: {refusal(placement, nodes)}"
    return _Manner(frozenset({*refused_spots(placement, nodes), *avoid}), why, 0.0, None)  # it never ran
