"""Serves `NodeService`: shows nodes as they are reported, with what the ledger adds, and takes them out of use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controlplane import wire
from controlplane.api.cordoning import Cordoning, no_such_node
from controlplane.api.node_views import NodeViews
from controlplane.api.paging import page
from controlplane.api.watching import stream
from controlplane.fleet.changes import Marks
from controlplane.fleet.intent import Intent
from controlplane.fleet.registry import Registry
from controlplane.fleet.table import RowChange
from controlplane.model import Placement
from roundhouse.kit.encoded import holding
from roundhouse.v1 import node_pb2
from roundhouse.v1 import node_service_pb2 as pb
from roundhouse.v1.watch_pb2 import Bookmark


class NodeApi:
    """The methods of `NodeService`."""

    def __init__(
        self, registry: Registry, intent: Intent, views: NodeViews, cordoning: Cordoning, *, epoch: str
    ) -> None:
        self._registry, self._intent, self._views, self._epoch = registry, intent, views, epoch
        self._cordoning = cordoning

    async def ListNodes(self, request: pb.ListNodesRequest, _: Any) -> pb.ListNodesResponse:
        """Returns a page of nodes."""
        part = page(
            self._views.ids(),
            str,
            self._listed,
            epoch=self._epoch,
            kind="list-nodes",
            size=request.page_size,
            token=request.page_token,
        )
        silent = [each.name for each in part.shown if each.state != node_pb2.NODE_STATE_READY]
        return pb.ListNodesResponse(nodes=part.shown, next_page_token=part.next_token, unreachable=silent)

    async def GetNode(self, request: pb.GetNodeRequest, _: Any) -> pb.GetNodeResponse:
        """Returns one node."""
        return pb.GetNodeResponse(node=self._find(request.name))

    async def WatchNodes(self, request: pb.WatchNodesRequest, context: Any) -> None:
        """Streams one node, or all."""
        only = None
        if request.name:
            (only,) = wire.NODE.parse(request.name)
            self._find(request.name)
        marks: Marks[str] = Marks()
        sent: set[str] = set()

        def mark(node: str) -> None:
            if only is None or node == only:
                marks.mark(node)

        def mark_placed(change: RowChange[Placement]) -> None:
            for row in (change.before, change.after):
                if row is not None:
                    mark(row.value.node)

        def look(nodes: Sequence[str]) -> list[bytes]:
            events = []
            for each in nodes:
                event = self._views.event(each)
                if event is not None:
                    sent.add(each)
                    events.append(event)
                elif each in sent:
                    sent.discard(each)
                    events.append(pb.NodeEvent(deleted=wire.NODE.format(each)).SerializeToString())
            return events

        with (
            self._registry.changes.to(lambda change: mark(change.node)),
            self._intent.placements.changes.to(mark_placed),
            self._intent.nodes.changes.to(lambda change: mark(change.key)),
            self._views.changes.to(mark),
        ):
            await stream(
                context,
                first=look(self._views.ids() if only is None else [only]),
                marks=marks,
                look=look,
                bookmark=lambda: pb.NodeEvent(bookmark=Bookmark()).SerializeToString(),
                size=len,
                message=lambda events: holding(pb.WatchNodesResponse.EVENTS_FIELD_NUMBER, events),
            )

    async def CordonNode(self, request: pb.CordonNodeRequest, _: Any) -> pb.CordonNodeResponse:
        """Lets no new replicas onto a node."""
        return await self._cordoning.cordon(request)

    async def UncordonNode(self, request: pb.UncordonNodeRequest, _: Any) -> pb.UncordonNodeResponse:
        """Takes a node into use again."""
        return await self._cordoning.uncordon(request)

    async def DrainNode(self, request: pb.DrainNodeRequest, _: Any) -> pb.DrainNodeResponse:
        """Moves the replicas of a node to others."""
        return await self._cordoning.drain(request)

    def _listed(self, node: str) -> node_pb2.Node:
        view = self._views.get(node)
        assert view is not None, "an id that was listed in this very moment"
        return view

    def _find(self, name: str) -> node_pb2.Node:
        (node,) = wire.NODE.parse(name)
        view = self._views.get(node)
        if view is None:
            raise no_such_node(node)
        return view
