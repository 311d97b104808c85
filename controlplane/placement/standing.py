"""Which replicas a deployment has: which of its placements count, and which indexes come and go. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from controlplane.model import Drain, Engine, Node, NodeId, Placement, Wanted

Nodes = Mapping[NodeId, Node]
Leaving = Mapping[NodeId, Drain | None]  # off these replicas are moved: with the wish if drained, None if lost


def runs_what_is_wanted(placement: Placement, wanted: Wanted) -> bool:
    """Tells whether a placement was made for what replicas of the deployment are to run now."""
    return placement.spec_generation == wanted.spec_generation


def newest(wanted: Wanted, own: Iterable[Placement]) -> list[Placement]:
    """Returns what stays of the placements of a deployment, by index.

    Of each replica it is the newest of those that run what is wanted, else the newest. If there are more replicas than
    wanted, as before somebody has chosen which are to go, those with the lowest indexes stay.
    """
    standing = (each for each in own if not each.is_stopping)
    by_index = {each.index: each for each in sorted(standing, key=lambda each: _rank(each, wanted))}
    return [by_index[index] for index in sorted(by_index)[: wanted.replica_count]]


def ranked(wanted: Wanted, same: Iterable[Placement]) -> list[Placement]:
    """Returns the placements of one replica: first those that run what is wanted, of them the newest first."""
    return sorted(same, key=lambda each: _rank(each, wanted), reverse=True)


def missing_indexes(replica_count: int, standing: Collection[int]) -> list[int]:
    """Returns the indexes that replicas which are missing get: the lowest that are free."""
    missing_count = max(0, replica_count - len(standing))
    free = (index for index in range(replica_count) if index not in standing)
    return [index for index, _ in zip(free, range(missing_count), strict=False)]


def surplus_indexes(wanted: Wanted, standing: Iterable[Placement], nodes: Nodes) -> set[int]:
    """Returns which replicas go because fewer are wanted: those that do not serve, then the least loaded.

    standing: the placements of the deployment that are not stopping. Of equals those go that run something else than
    what is wanted, then those with the highest indexes.
    """
    standing = list(standing)
    if len(standing) <= wanted.replica_count:
        return set()
    by_index: dict[int, list[Placement]] = defaultdict(list)
    for each in standing:
        by_index[each.index].append(each)
    surplus_count = max(0, len(by_index) - wanted.replica_count)
    order = sorted(by_index, key=lambda index: (*_worth(wanted, by_index[index], nodes), -index))
    return set(order[:surplus_count])


def engine_of(placement: Placement, nodes: Nodes) -> Engine | None:
    """Returns the engine of a placement by a report that is not older than the lease; None if there is none."""
    node = nodes.get(placement.node)
    if node is None or not node.is_ready:
        return None
    return next((each for each in node.engines if each.replica_uid == placement.replica_uid), None)


def serves(placement: Placement, nodes: Nodes) -> bool:
    """Tells whether the engine of a placement is READY by a report that is not older than the lease."""
    engine = engine_of(placement, nodes)
    return engine is not None and engine.is_serving


def reports(node: NodeId, nodes: Nodes) -> bool:
    """Tells whether a node is READY."""
    known = nodes.get(node)
    return known is not None and known.is_ready


def _rank(placement: Placement, wanted: Wanted) -> tuple[bool, int, str]:
    return runs_what_is_wanted(placement, wanted), placement.epoch, placement.replica_uid


def _worth(wanted: Wanted, same: Sequence[Placement], nodes: Nodes) -> tuple[bool, int, bool]:
    serving = [engine for each in same if (engine := engine_of(each, nodes)) is not None and engine.is_serving]
    is_current = any(runs_what_is_wanted(each, wanted) for each in same)
    return bool(serving), sum(each.load for each in serving), is_current
