"""Waits until nothing is left on a node that is being drained."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from roundhouse.client.mirror import Mirror
from roundhouse.client.names import node_id
from roundhouse.client.stream import Watch
from roundhouse.kit.errors import Conflict, DeadlineExceeded, NotFound, RoundhouseError
from roundhouse.kit.latest import Latest
from roundhouse.kit.tasks import Background
from roundhouse.v1 import condition_pb2, errors_pb2, node_pb2, node_service_pb2

OnNode = Callable[[node_pb2.Node], object]
WatchNode = Callable[[], Watch[node_service_pb2.NodeEvent]]


async def wait_until_drained(name: str, watch: WatchNode, timeout_s: float, on_event: OnNode | None) -> node_pb2.Node:
    """Returns the node once nothing is left on it. Errors as `Nodes.wait_drained` says."""
    left = "nothing is known of it"
    try:
        async with asyncio.timeout(timeout_s), aclosing(_follow(name, watch)) as changes:
            async for node in changes:
                if node is None:
                    raise NotFound(f'node "{node_id(name)}" is gone', reason=errors_pb2.ERROR_REASON_NODE_NOT_FOUND)
                left = drain_progress(node)
                if on_event is not None:
                    on_event(node)
                if is_drained(node):
                    return node
    except TimeoutError:
        raise DeadlineExceeded(f'node "{node_id(name)}" is not drained after {timeout_s:g} s: {left}') from None
    raise AssertionError("following ends never")


def is_drained(node: node_pb2.Node) -> bool:
    """Tells whether nothing is left on a node; raises Conflict if it is not to be drained any more."""
    if not node.HasField("drain"):
        raise Conflict(f'node "{node_id(node.name)}" is not drained any more: somebody has uncordoned it')
    status = next((each.status for each in node.conditions if each.type == "Drained"), None)
    return status == condition_pb2.CONDITION_STATUS_TRUE


def drain_progress(node: node_pb2.Node) -> str:
    """Returns what is left on a node that is drained, and why; empty if nothing is."""
    return next((each.message for each in node.conditions if each.type == "Drained"), "")


async def _follow(name: str, watch: WatchNode) -> AsyncGenerator[node_pb2.Node | None]:
    mirror: Mirror[node_pb2.Node] = Mirror()
    changes = Latest(None)
    failures: list[RoundhouseError] = []

    async def keep() -> None:
        try:
            await mirror.keep(watch, lambda: changes.set(None))
        except RoundhouseError as error:
            failures.append(error)
            changes.set(None)

    async with Background() as background:
        background.start(keep(), "watch node")
        async for _ in changes.watch():
            if failures:
                raise failures[0]
            if mirror.is_whole:
                yield mirror.items.get(name)
