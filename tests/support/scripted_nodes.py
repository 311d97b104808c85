"""One node with two GPUs, in memory only."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from roundhouse.kit.errors import NotFound
from roundhouse.kit.latest import Latest
from roundhouse.kit.service import Context
from roundhouse.v1 import condition_pb2, deployment_pb2, errors_pb2, node_pb2, node_service_pb2
from tests.support.scripted_watch import write_changes

GIB = 1 << 30
NAME = "nodes/one"


class ScriptedNodes:
    """NodeService. `replicas` gives what runs on the node. A drain finds no room for them, unless it is by force."""

    def __init__(self, changes: Latest[None], replicas: Callable[[], Iterable[deployment_pb2.Replica]]) -> None:
        self._changes = changes
        self._replicas = replicas
        self._drain: node_pb2.NodeDrain | None = None
        self._is_cordoned = False

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

    async def CordonNode(
        self, request: node_service_pb2.CordonNodeRequest, context: Context
    ) -> node_service_pb2.CordonNodeResponse:
        self._want(request.name, is_cordoned=True, drain=self._drain)
        return node_service_pb2.CordonNodeResponse(node=self._node())

    async def UncordonNode(
        self, request: node_service_pb2.UncordonNodeRequest, context: Context
    ) -> node_service_pb2.UncordonNodeResponse:
        self._want(request.name, is_cordoned=False, drain=None)
        return node_service_pb2.UncordonNodeResponse(node=self._node())

    async def DrainNode(
        self, request: node_service_pb2.DrainNodeRequest, context: Context
    ) -> node_service_pb2.DrainNodeResponse:
        drain = node_pb2.NodeDrain(grace=request.drain_grace, allow_unserved=request.allow_unserved)
        self._want(request.name, is_cordoned=True, drain=drain)
        return node_service_pb2.DrainNodeResponse(node=self._node())

    def _want(self, name: str, *, is_cordoned: bool, drain: node_pb2.NodeDrain | None) -> None:
        if name != NAME:
            raise NotFound(f'node "{name}" is unknown', reason=errors_pb2.ERROR_REASON_NODE_NOT_FOUND)
        self._is_cordoned, self._drain = is_cordoned, drain
        self._changes.set(None)

    def _conditions(self) -> list[condition_pb2.Condition]:
        if self._drain is None:
            return []
        if self._drain.allow_unserved:
            return [condition_pb2.Condition(type="Drained", status=condition_pb2.CONDITION_STATUS_TRUE)]
        message = "3 replicas are left; demo-0 stays: there is no room"
        status = condition_pb2.CONDITION_STATUS_FALSE
        return [condition_pb2.Condition(type="Drained", status=status, reason="NoRoom", message=message)]

    def _node(self) -> node_pb2.Node:
        return node_pb2.Node(
            name=NAME,
            state=node_pb2.NODE_STATE_READY,
            hostname="one.example",
            is_cordoned=self._is_cordoned,
            drain=self._drain,
            conditions=self._conditions(),
            replicas=[each.name for each in self._replicas()],
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
