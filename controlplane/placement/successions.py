"""Which placements of a replica stay while it is moved: it serves where it was until it is READY elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from controlplane.model import Drain, Engine, Node, NodeId, Placement

Nodes = Mapping[NodeId, Node]
Leaving = Mapping[NodeId, Drain | None]


def surplus(
    standing: Iterable[Placement], nodes: Nodes, leaving: Leaving, forgotten: Collection[NodeId]
) -> list[Placement]:
    """Returns the placements of a deployment that are to stop, because the same replica serves where it may stay.

    standing: those that are not stopping. An older one waits for its node to report: should the newer die meanwhile, it
    serves again. A newer one goes only if nothing will come of it: its node is lost, drained or refuses it, or its
    engine dies.
    """
    by_index: dict[int, list[Placement]] = {}
    for each in standing:
        by_index.setdefault(each.index, []).append(each)
    several = (same for same in by_index.values() if len(same) > 1)
    return [each for same in several for each in _surplus(same, nodes, leaving, forgotten)]


def serves(placement: Placement, nodes: Nodes) -> bool:
    """Tells whether the engine of a placement is READY by a report that is not older than the lease."""
    engine = _engine(placement, nodes)
    return engine is not None and engine.is_serving


def moves_under_drain(
    standing: Sequence[Placement], newest: Iterable[Placement], nodes: Nodes, leaving: Leaving
) -> bool:
    """Tells whether a replica of a deployment is on its way off a drained node that still serves it there.

    standing: its placements that are not stopping. newest: of each replica the newest of them.
    """
    fresh = {each.replica_uid for each in newest}
    return len(fresh) < len(standing) and any(
        each.replica_uid not in fresh and leaving.get(each.node) is not None and serves(each, nodes)
        for each in standing
    )


def _surplus(
    same: Iterable[Placement], nodes: Nodes, leaving: Leaving, forgotten: Collection[NodeId]
) -> list[Placement]:
    ordered = sorted(same, key=lambda each: (-each.epoch, each.replica_uid))
    kept = next((at for at, each in enumerate(ordered) if each.node not in leaving and serves(each, nodes)), None)
    if kept is None:
        return []
    newer, older = ordered[:kept], ordered[kept + 1 :]
    return [
        *(each for each in newer if each.node in leaving or _is_hopeless(each, nodes)),
        *(each for each in older if each.node in forgotten or _reports(each.node, nodes)),
    ]


def _is_hopeless(placement: Placement, nodes: Nodes) -> bool:
    node, engine = nodes.get(placement.node), _engine(placement, nodes)
    is_refused = node is not None and node.refused is not None and placement.replica_uid in node.refused
    return is_refused or (engine is not None and engine.has_failed)


def _engine(placement: Placement, nodes: Nodes) -> Engine | None:
    node = nodes.get(placement.node)
    if node is None or not node.is_ready:
        return None
    return next((each for each in node.engines if each.replica_uid == placement.replica_uid), None)


def _reports(node: NodeId, nodes: Nodes) -> bool:
    known = nodes.get(node)
    return known is not None and known.is_ready
