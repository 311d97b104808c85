"""Nodes as they would be if some of the replicas on them were gone. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace

from controlplane.model import GpuUuid, Node, NodeId, ReplicaUid


def without(nodes: Mapping[NodeId, Node], replicas: Collection[ReplicaUid]) -> Mapping[NodeId, Node]:
    """Returns the nodes as they would report without the engines of these replicas, and the memory of those."""
    return {id_: _without(node, replicas) for id_, node in nodes.items()}


def _without(node: Node, replicas: Collection[ReplicaUid]) -> Node:
    gone = [each for each in node.engines if each.replica_uid in replicas]
    if not gone:
        return node
    freed: Counter[GpuUuid | None] = Counter()  # None: in the memory of the host
    for each in gone:
        for place in each.gpus or (None,):
            freed[place] += each.measured_bytes
    return replace(
        node,
        engines=tuple(each for each in node.engines if each.replica_uid not in replicas),
        gpus=tuple(replace(each, used_bytes=max(0, each.used_bytes - freed[each.uuid])) for each in node.gpus),
        host_available_bytes=min(node.host_total_bytes, node.host_available_bytes + freed[None]),
    )
