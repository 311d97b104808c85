"""Says what is true of a node beside what it reports: whether replicas go there, and whether they leave it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.placement.evictions import Held
from roundhouse.internal.v1.store_pb2 import NodeRecord
from roundhouse.v1 import condition_pb2, node_pb2
from roundhouse.v1.condition_pb2 import Condition

_TRUE, _FALSE = condition_pb2.CONDITION_STATUS_TRUE, condition_pb2.CONDITION_STATUS_FALSE
_MOST_TOLD = 3  # replicas that stay, in one sentence
_KEPT = (node_pb2.NODE_STATE_LOST, node_pb2.NODE_STATE_UNKNOWN)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is wanted of a node, and how far it has come."""

    record: NodeRecord | None  # None: nothing
    held: Held | None  # why nothing is moved off it though it does not report
    left: tuple[str, ...]  # replicas that are placed on it, such as chat-0
    stuck: tuple[str, ...]  # why those that are to leave cannot

    @property
    def is_drained(self) -> bool:
        """Tells whether it is to be drained and nothing is left on it."""
        return self.record is not None and self.record.HasField("drain") and not self.left


def conditions(
    wishes: Wishes, state: node_pb2.NodeState, since: Timestamp, drained_time: Timestamp | None
) -> list[Condition]:
    """Returns the conditions `Placeable`, `Evicted` and `Drained`, as far as they apply.

    since: when the node got its state. drained_time: when the last replica had gone, if none is left.
    """
    found = [_placeable(wishes.record, since)]
    if state in _KEPT:
        found.append(_evicted(wishes, since))
    if wishes.record is not None and wishes.record.HasField("drain"):
        found.append(_drained(wishes, wishes.record, drained_time))
    return found


def show_wishes(node: node_pb2.Node, record: NodeRecord | None) -> None:
    """Enters what is wanted of a node into what is shown of it."""
    node.is_cordoned = record is not None
    if record is not None and record.HasField("drain"):
        node.drain.CopyFrom(record.drain)


def _placeable(record: NodeRecord | None, since: Timestamp) -> Condition:
    if record is None:
        return Condition(type="Placeable", status=_TRUE, transition_time=since)
    return Condition(
        type="Placeable",
        status=_FALSE,
        reason="Cordoned",
        message="it takes no new replicas: uncordon it",
        transition_time=record.cordon_time,
    )


def _evicted(wishes: Wishes, since: Timestamp) -> Condition:
    if wishes.held is not None:
        held = wishes.held
        return Condition(type="Evicted", status=_FALSE, reason=held.reason, message=held.message, transition_time=since)
    message = _told(wishes.stuck)
    return Condition(type="Evicted", status=_TRUE, message=message, transition_time=since)


def _drained(wishes: Wishes, record: NodeRecord, drained_time: Timestamp | None) -> Condition:
    if drained_time is not None:
        return Condition(type="Drained", status=_TRUE, transition_time=drained_time)
    count = len(wishes.left)
    left = f"{count} {'replica is' if count == 1 else 'replicas are'} left"
    return Condition(
        type="Drained",
        status=_FALSE,
        reason="NoRoom" if wishes.stuck else "Draining",
        message=f"{left}; {_told(wishes.stuck)}" if wishes.stuck else left,
        transition_time=record.drain.request_time,
    )


def _told(stuck: Sequence[str]) -> str:
    more = f"; and {len(stuck) - _MOST_TOLD} more" if len(stuck) > _MOST_TOLD else ""
    return "; ".join(stuck[:_MOST_TOLD]) + more
