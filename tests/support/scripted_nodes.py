"""One node with two GPUs, in memory only."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from roundhouse.kit.errors import NotFound
from roundhouse.kit.latest import Latest
from roundhouse.kit.service import Context
from roundhouse.v1 import deployment_pb2, errors_pb2, node_pb2, node_service_pb2
from tests.support.scripted_watch import write_changes

GIB = 1 << 30
NAME = "nodes/one"


class ScriptedNodes:
    """NodeService. `replicas` gives what runs on the node."""

    def __init__(self, changes: Latest[None], replicas: Callable[[], Iterable[deployment_pb2.Replica]]) -> None:
        self._changes = changes
        self._replicas = replicas

    async def GetNode(
        self, request: node_service_pb2.GetNodeRequest, context: Context
    ) -> node_service_pb2.GetNodeResponse:
        if request.name != NAME:
            raise NotFound(f'node "{request.name}" is unknown', reason=errors_pb2.ERROR_REASON_NODE_NOT_FOUND)
        return node_service_pb2.GetNodeResponse(node=self._node())

    async def ListNodes(
        self, request: node_service_pb2.ListNodesRequest, context: Context
    ) -> node_service_pb2.ListNodesResponse:
        return node_service_pb2.ListNodesResponse(nodes=[self._node()])

    async def WatchNodes(self, request: node_service_pb2.WatchNodesRequest, context: Context) -> None:
        kind = node_service_pb2.NodeEvent
        await write_changes(
            context, self._changes, node_service_pb2.WatchNodesResponse, kind, lambda: {NAME: self._node()}
        )

    def _node(self) -> node_pb2.Node:
        return node_pb2.Node(
            name=NAME,
            state=node_pb2.NODE_STATE_READY,
            hostname="one.example",
            gpus=[self._gpu(0), self._gpu(1)],
            host=node_pb2.Host(
                cpu_count=2, cpu_fraction=0.5, total_memory_bytes=24 * GIB, available_memory_bytes=16 * GIB
            ),
        )

    def _gpu(self, index: int) -> node_pb2.Gpu:
        return node_pb2.Gpu(
            uuid=f"SIM-one-{index}",
            index=index,
            product_name="simulated",
            is_simulated=True,
            state=node_pb2.GPU_STATE_OK,
            total_memory_bytes=24 * GIB,
            used_memory_bytes=2 * GIB,
            free_memory_bytes=22 * GIB,
            reserved_memory_bytes=2 * GIB,
            available_memory_bytes=22 * GIB,
            utilization_fraction=0.25 * index,
            replicas=[each.name for each in self._replicas() if index in [gpu.index for gpu in each.gpus]],
        )
