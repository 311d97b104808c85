"""Nodes, as a client sees them."""

from __future__ import annotations

from roundhouse.client.connection import Connection
from roundhouse.client.draining import OnNode, wait_until_drained
from roundhouse.client.names import node_name
from roundhouse.client.pages import all_pages
from roundhouse.client.stream import Watch
from roundhouse.kit.fields import invalid
from roundhouse.kit.times import to_duration
from roundhouse.v1 import node_pb2, node_service_pb2
from roundhouse.v1.node_service_pb2_grpc import NodeServiceStub


class Nodes:
    """The machines of the fleet, with their GPUs.

    Each mutation can be called again: what is wanted already changes nothing.
    """

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

    async def cordon(self, node: str) -> node_pb2.Node:
        """Lets no new replicas onto a node, until it is uncordoned, and returns it; those that are there stay."""
        request = node_service_pb2.CordonNodeRequest(name=node_name(node))
        stub = self._connection.stub(NodeServiceStub)
        response: node_service_pb2.CordonNodeResponse = await self._connection.unary(stub.CordonNode, request)
        return response.node

    async def uncordon(self, node: str) -> node_pb2.Node:
        """Takes back `cordon` and `drain`, and returns the node."""
        request = node_service_pb2.UncordonNodeRequest(name=node_name(node))
        stub = self._connection.stub(NodeServiceStub)
        response: node_service_pb2.UncordonNodeResponse = await self._connection.unary(stub.UncordonNode, request)
        return response.node

    async def drain(
        self, node: str, *, drain_grace_s: float | None = None, allow_unserved: bool = False
    ) -> node_pb2.Node:
        """Cordons a node, begins to move its replicas to others, and returns it; see `wait_drained` for the end.

        drain_grace_s: for running requests of each replica once it has been replaced; 30 s if None. allow_unserved:
        stops also what has no room elsewhere.
        """
        try:
            request = node_service_pb2.DrainNodeRequest(
                name=node_name(node),
                drain_grace=None if drain_grace_s is None else to_duration(drain_grace_s),
                allow_unserved=allow_unserved,
            )
        except (ValueError, OverflowError) as error:
            raise invalid("request", f"{error}: the contract cannot carry it") from error
        stub = self._connection.stub(NodeServiceStub)
        response: node_service_pb2.DrainNodeResponse = await self._connection.unary(stub.DrainNode, request)
        return response.node

    async def wait_drained(self, node: str, timeout_s: float = 600.0, on_event: OnNode | None = None) -> node_pb2.Node:
        """Waits until nothing is left on a node that is drained, and returns it; calls `on_event` on the way.

        Goes on through restarts of the control plane. Raises NotFound if there is no such node; Conflict once it is
        not to be drained any more; DeadlineExceeded, saying what is left and why, after `timeout_s`.
        """
        return await wait_until_drained(node_name(node), lambda: self.watch(node), timeout_s, on_event)
