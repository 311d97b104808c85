"""Notes which nodes are out of use; the reconciler acts upon it. What is wanted already is not written again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message

from controlplane import wire
from controlplane.api.checks import MAX_GRACE_S, check_duration, check_request_id
from controlplane.api.mutations import Mutations, Write
from controlplane.api.node_conditions import show_wishes
from controlplane.api.node_views import NodeViews
from controlplane.store.protocol import Compare, Store
from roundhouse.internal.v1.store_pb2 import NodeRecord
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import NotFound, Resource
from roundhouse.kit.fields import FieldCheck
from roundhouse.kit.times import to_duration, to_timestamp
from roundhouse.v1 import errors_pb2, node_pb2
from roundhouse.v1 import node_service_pb2 as pb

Request = pb.CordonNodeRequest | pb.UncordonNodeRequest | pb.DrainNodeRequest
_SERVICE = "roundhouse.v1.NodeService"
R = TypeVar("R", bound=Message)


class Cordoning:
    """Serves `CordonNode`, `UncordonNode` and `DrainNode`."""

    def __init__(self, store: Store, mutations: Mutations, views: NodeViews, clock: Clock) -> None:
        self._store, self._mutations, self._views, self._clock = store, mutations, views, clock

    async def cordon(self, request: pb.CordonNodeRequest) -> pb.CordonNodeResponse:
        """Returns the node as it is cordoned."""

        def want(record: NodeRecord | None) -> NodeRecord:
            return record or self._cordoned(request.name)

        return await self._write(request, "CordonNode", pb.CordonNodeResponse, want)

    async def uncordon(self, request: pb.UncordonNodeRequest) -> pb.UncordonNodeResponse:
        """Returns the node as it is in use again."""
        return await self._write(request, "UncordonNode", pb.UncordonNodeResponse, lambda _: None)

    async def drain(self, request: pb.DrainNodeRequest) -> pb.DrainNodeResponse:
        """Returns the node as it is being drained."""
        check = FieldCheck()
        if request.HasField("drain_grace"):
            check_duration(check, "drain_grace", request.drain_grace, MAX_GRACE_S)
        check.raise_if_any()

        def want(record: NodeRecord | None) -> NodeRecord:
            after = NodeRecord()
            after.CopyFrom(record or self._cordoned(request.name))
            if not after.HasField("drain"):
                after.drain.request_time.CopyFrom(to_timestamp(self._clock.now()))
            has_grace = request.HasField("drain_grace")
            after.drain.grace.CopyFrom(request.drain_grace if has_grace else to_duration(wire.DRAIN_GRACE_S))
            after.drain.allow_unserved = request.allow_unserved
            return after

        return await self._write(request, "DrainNode", pb.DrainNodeResponse, want)

    def _cordoned(self, name: str) -> NodeRecord:
        (node,) = wire.NODE.parse(name)
        return NodeRecord(node_id=node, cordon_time=to_timestamp(self._clock.now()))

    async def _write(
        self,
        request: Request,
        method: str,
        answer: Callable[..., R],
        want: Callable[[NodeRecord | None], NodeRecord | None],
    ) -> R:
        (node,) = wire.NODE.parse(request.name)
        check = FieldCheck()
        check_request_id(check, request.request_id)
        check.raise_if_any()
        key = wire.node_key(node)

        async def decide() -> Write[R]:
            entry = await self._store.get(key)
            before = None if entry is None else NodeRecord.FromString(entry.value)
            shown = self._views.get(node)
            if shown is None:
                raise no_such_node(node)
            after = want(before)
            response = answer(node=_as_wanted(shown, after))
            if after == before:
                return Write(response)
            compares = [Compare(key, 0 if entry is None else entry.revision)]
            if after is None:
                return Write(response, compares, deletes=[key])
            return Write(response, compares, {key: after.SerializeToString()})

        return await self._mutations.run(request, f"{_SERVICE}.{method}", answer().FromString, decide)


def no_such_node(node: str) -> NotFound:
    """Returns what is said of a node that is not known."""
    return NotFound(
        f'node "{node}" does not exist: check the name, or start its agent',
        reason=errors_pb2.ERROR_REASON_NODE_NOT_FOUND,
        resource=Resource("roundhouse.v1.Node", wire.NODE.format(node)),
    )


def _as_wanted(shown: node_pb2.Node, record: NodeRecord | None) -> node_pb2.Node:
    """Returns a node as it is shown once the record stands; its conditions follow when it is acted upon."""
    shown.ClearField("drain")
    show_wishes(shown, record)
    return shown
