"""Off which nodes replicas are moved: those that are lost, unless too many are, and those that are drained. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from controlplane.model import Attendance, Drain, Node, NodeId, NodeWish

# More than a third of the nodes do not die at once. It is the network, or this process, and moving makes it worse.
MOST_LOST_SHARE = 3
LEAST_FROZEN = 2  # so that a fleet of two or three is not frozen by one
FROZEN = "Frozen"
FORGET_S = 24 * 3600.0  # a node that is gone for good is shown, and what was replaced on it kept, for a day


@dataclass(frozen=True, slots=True)
class Held:
    """Why nothing is moved off a node that does not report."""

    reason: str  # one word in CamelCase
    message: str


@dataclass(frozen=True, slots=True)
class Departures:
    """The nodes as decisions are to see them, and what is to become of what is placed on them."""

    nodes: Mapping[NodeId, Node]  # as reported, with what is wanted of them
    leaving: Mapping[NodeId, Drain | None] = field(default_factory=dict)  # replicas are moved off these. None: lost
    held: Mapping[NodeId, Held] = field(default_factory=dict)  # these do not report, and nothing is moved off them
    forgotten: frozenset[NodeId] = frozenset()  # gone for so long that they are not waited for any more


def departures(
    nodes: Mapping[NodeId, Node],
    attendance: Attendance,
    wishes: Mapping[NodeId, NodeWish],
    placed: Collection[NodeId],
) -> Departures:
    """Returns off which nodes replicas are moved, and off which not though they do not report.

    nodes: those that were heard of, as last reported. wishes: of the nodes that are cordoned. placed: nodes on which
    something is placed; one that was not heard of counts as lost once somebody has listened for a lease.
    """
    drains = {node: wish.drain for node, wish in wishes.items() if wish.drain is not None}
    lost = [
        *(node for node, each in nodes.items() if not each.is_ready),
        *(each for each in placed if each not in nodes),
    ]
    found = Departures(_cordoned(nodes, wishes))
    if not lost and not drains:
        return found
    silent_s = {node: attendance.running_s for node in lost if node not in nodes} | dict(attendance.silent_s)
    held = _held(lost, silent_s, attendance, drains, len({*nodes, *placed} - drains.keys()))
    return replace(
        found,
        leaving=dict.fromkeys((node for node in lost if node not in held), None) | drains,
        held=held,
        forgotten=frozenset(node for node in lost if node not in nodes and attendance.running_s > FORGET_S),
    )


def _held(
    lost: Sequence[NodeId],
    silent_s: Mapping[NodeId, float],
    attendance: Attendance,
    drains: Collection[NodeId],
    node_count: int,
) -> Mapping[NodeId, Held]:
    waiting = [node for node in lost if node not in drains]
    lease_s = attendance.lease_s
    if attendance.watched_s < lease_s:
        why = f"the control plane has not listened for a whole lease ({lease_s:g} s) yet: wait"
        return dict.fromkeys(waiting, Held("JustStarted", why))
    vanished = _together(
        {node: since_s for node, since_s in silent_s.items() if node not in drains}, lease_s, node_count
    )
    message = (
        f"{len(vanished)} of {node_count} nodes fell silent within one lease ({lease_s:g} s), which is rather the "
        "network: nothing is moved until enough of them are back; drain those that will not be"
    )
    return dict.fromkeys((node for node in waiting if node in vanished), Held(FROZEN, message))


def _together(silent_s: Mapping[NodeId, float], lease_s: float, node_count: int) -> frozenset[NodeId]:
    """Returns the silent nodes whose last reports came within one lease of those of too many others."""
    ordered = sorted(silent_s.items(), key=lambda each: (each[1], each[0]))
    found: set[NodeId] = set()
    first = 0
    for last, (_, since_s) in enumerate(ordered):
        while since_s - ordered[first][1] > lease_s:
            first += 1
        count = last + 1 - first
        if count >= LEAST_FROZEN and count * MOST_LOST_SHARE > node_count:
            found.update(node for node, _ in ordered[first : last + 1])
    return frozenset(found)


def _cordoned(nodes: Mapping[NodeId, Node], wishes: Iterable[NodeId]) -> Mapping[NodeId, Node]:
    known = [each for each in wishes if each in nodes]
    return {**nodes, **{each: replace(nodes[each], is_cordoned=True) for each in known}} if known else nodes
