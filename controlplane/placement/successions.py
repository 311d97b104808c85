"""Which placements of a replica stay while it is replaced: it serves where it was until it is READY elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from controlplane.model import NodeId, Placement, Wanted
from controlplane.placement.standing import Leaving, Nodes, engine_of, ranked, reports, runs_what_is_wanted, serves


def surplus(
    wanted: Wanted,
    standing: Iterable[Placement],
    nodes: Nodes,
    leaving: Leaving,
    forgotten: Collection[NodeId],
) -> list[Placement]:
    """Returns the placements of a deployment that are to stop, because the same replica serves where it may stay.

    standing: those that are not stopping. One that was replaced waits for its node to report: should the other die
    meanwhile, it serves again. The one that is to replace it goes only if nothing will come of it: its node is lost,
    drained or refuses it, or its engine dies; not if it runs what is wanted and the other does not: it is tried again
    until the change of the deployment is taken back.
    """
    by_index: dict[int, list[Placement]] = {}
    for each in standing:
        by_index.setdefault(each.index, []).append(each)
    several = (same for same in by_index.values() if len(same) > 1)
    return [each for same in several for each in _surplus(wanted, same, nodes, leaving, forgotten)]


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
    wanted: Wanted,
    same: Iterable[Placement],
    nodes: Nodes,
    leaving: Leaving,
    forgotten: Collection[NodeId],
) -> list[Placement]:
    ordered = ranked(wanted, same)
    kept = next((at for at, each in enumerate(ordered) if each.node not in leaving and serves(each, nodes)), None)
    if kept is None:
        return []
    newer, older = ordered[:kept], ordered[kept + 1 :]
    is_outdated = not runs_what_is_wanted(ordered[kept], wanted)
    return [
        *(each for each in newer if each.node in leaving or _is_hopeless(wanted, each, nodes, is_tried=is_outdated)),
        *(each for each in older if each.node in forgotten or reports(each.node, nodes)),
    ]


def _is_hopeless(wanted: Wanted, placement: Placement, nodes: Nodes, *, is_tried: bool) -> bool:
    """Tells whether nothing will come of a placement. is_tried: what runs what is wanted is started again and again."""
    node, engine = nodes.get(placement.node), engine_of(placement, nodes)
    if node is not None and node.refused is not None and placement.replica_uid in node.refused:
        return True
    has_failed = engine is not None and engine.has_failed
    return has_failed and not (is_tried and runs_what_is_wanted(placement, wanted))
