"""Messages that are put together of bytes are what they would have been."""

from __future__ import annotations

import pytest

from roundhouse.kit.encoded import holding
from roundhouse.v1.node_pb2 import Node
from roundhouse.v1.node_service_pb2 import NodeEvent, WatchNodesResponse

# Around the sizes at which a length takes another byte.
SIZES = [0, 1, 110, 120, 127, 128, 16_300, 16_384, 2_100_000]


@pytest.mark.parametrize("size", SIZES)
def test_what_is_put_together_is_what_would_have_been_encoded(size: int) -> None:
    node = Node(hostname="h" * size)
    event = holding(NodeEvent.CHANGED_FIELD_NUMBER, [node.SerializeToString()])
    assert event == NodeEvent(changed=node).SerializeToString()
    deleted = NodeEvent(deleted="nodes/a")
    whole = holding(WatchNodesResponse.EVENTS_FIELD_NUMBER, [event, deleted.SerializeToString(), event])
    assert WatchNodesResponse.FromString(whole).events[:] == [NodeEvent(changed=node), deleted, NodeEvent(changed=node)]


def test_a_field_with_a_high_number_has_a_longer_tag() -> None:
    assert holding(16, [b"x"]) == bytes([0x82, 0x01, 0x01]) + b"x"
    assert holding(1, []) == b""
