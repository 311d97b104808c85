"""Nodes, as a client sees them."""

from __future__ import annotations

from roundhouse.client.connection import Connection
from roundhouse.client.names import node_name
from roundhouse.client.pages import all_pages
from roundhouse.client.stream import Watch
from roundhouse.v1 import node_pb2, node_service_pb2
from roundhouse.v1.node_service_pb2_grpc import NodeServiceStub


class Nodes:
    """The machines of the fleet, with their GPUs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, node: str) -> node_pb2.Node:
        """Returns one node."""
        request = node_service_pb2.GetNodeRequest(name=node_name(node))
        stub = self._connection.stub(NodeServiceStub)
        response: node_service_pb2.GetNodeResponse = await self._connection.unary(stub.GetNode, request)
        return response.node

    async def list(self) -> node_service_pb2.ListNodesResponse:
        """Returns the nodes, by name, all pages in one."""

        async def fetch(token: str) -> node_service_pb2.ListNodesResponse:
            request = node_service_pb2.ListNodesRequest(page_token=token)
            stub = self._connection.stub(NodeServiceStub)
            page: node_service_pb2.ListNodesResponse = await self._connection.unary(stub.ListNodes, request)
            return page

        return await all_pages(fetch, "nodes")

    def watch(self, node: str = "") -> Watch[node_service_pb2.NodeEvent]:
        """Returns all of them (or the one named), a bookmark, then each whenever it reports."""
        request = node_service_pb2.WatchNodesRequest(name=node_name(node) if node else "")
        return Watch(self._connection, lambda: self._connection.stub(NodeServiceStub).WatchNodes(request))
