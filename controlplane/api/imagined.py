"""GPUs that are not there, for plans of what they would change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from controlplane import wire
from controlplane.model import Gpu, GpuUuid, Node, NodeId
from roundhouse.kit.fields import FieldCheck
from roundhouse.kit.names import ID_RULE, is_id
from roundhouse.v1.deployment_service_pb2 import ImaginedGpus

MOST_ENTRIES = 64
MOST_GPUS = 1024
MOST_ON_A_NODE = 64
_MIB = 1024 * 1024
_MOST_BYTES = 2**47  # as in reports
_FIELD = "imagined_gpus"


def check_imagined(check: FieldCheck, entries: Sequence[ImaginedGpus]) -> None:
    """Notes GPUs that cannot be imagined."""
    if not check.require(
        len(entries) <= MOST_ENTRIES, _FIELD, f"{len(entries)} are too many: use at most {MOST_ENTRIES}"
    ):
        return
    for index, each in enumerate(entries):
        _check_entry(check, f"{_FIELD}[{index}]", each)
    total = sum(max(0, each.gpu_count) for each in entries)
    check.require(total <= MOST_GPUS, _FIELD, f"{total} GPUs are too many: use at most {MOST_GPUS} in all")


def with_imagined(nodes: Mapping[NodeId, Node], entries: Iterable[ImaginedGpus]) -> Mapping[NodeId, Node]:
    """Returns the nodes with the GPUs, which `check_imagined` let pass: idle, and without replicas."""
    largest = max((gpu.total_bytes for node in nodes.values() for gpu in node.gpus), default=0)
    after = dict(nodes)
    for each in entries:
        (name,) = wire.NODE.parse(each.node)
        node = after.get(NodeId(name)) or _imagined(NodeId(name), each.labels)
        after[node.id] = replace(node, gpus=(*node.gpus, *_gpus(node, each, each.memory_bytes or largest)))
    return after


def _imagined(node: NodeId, labels: Mapping[str, str]) -> Node:
    return Node(
        node, is_ready=True, gpus=(), engines=(), host_total_bytes=0, host_available_bytes=0, labels=dict(labels)
    )


def _gpus(node: Node, entry: ImaginedGpus, memory_bytes: int) -> Iterable[Gpu]:
    first = 1 + max((gpu.index for gpu in node.gpus), default=-1)
    islands = [gpu.nvlink_island for gpu in node.gpus if gpu.nvlink_island is not None]
    island = 1 + max(islands, default=-1) if entry.has_nvlink else None
    for index in range(first, first + entry.gpu_count):
        uuid = GpuUuid(f"IMAGINED-{node.id}-{index}")
        yield Gpu(uuid, index, memory_bytes, used_bytes=0, utilization_fraction=0.0, nvlink_island=island)


def _check_entry(check: FieldCheck, field: str, entry: ImaginedGpus) -> None:
    ids = wire.NODE.match(entry.node)
    named = ids is not None and is_id(ids[0])
    check.require(named, f"{field}.node", f'"{entry.node[:100]}" is malformed: use nodes/ID, an id being {ID_RULE}')
    count, size = entry.gpu_count, entry.memory_bytes
    in_range = 1 <= count <= MOST_ON_A_NODE
    check.require(in_range, f"{field}.gpu_count", f"{count} is out of range: use 1 to {MOST_ON_A_NODE}")
    fits = size == 0 or _MIB <= size <= _MOST_BYTES
    check.require(
        fits, f"{field}.memory_bytes", f"{size} is out of range: use 1 MiB to 128 TiB, or 0 for the largest there is"
    )
