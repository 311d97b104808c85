"""Serves `StreamLogs`: asks the node of a replica for its logs, and passes on what comes, at the pace of the reader."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

from controlplane import wire
from controlplane.api.records import not_found
from controlplane.api.statuses import Statuses
from controlplane.fleet.intent import Intent
from controlplane.fleet.logs import LogWishes, Relay
from controlplane.fleet.registry import NodeChange, Registry
from controlplane.fleet.table import RowChange
from controlplane.model import Placement
from roundhouse.internal.v1.agent_service_pb2 import LogRequest, SendLogsRequest
from roundhouse.kit.errors import NotFound, NotReady, Resource, Unreachable
from roundhouse.kit.fields import FieldCheck
from roundhouse.v1 import errors_pb2
from roundhouse.v1.deployment_pb2 import Replica
from roundhouse.v1.deployment_service_pb2 import StreamLogsRequest, StreamLogsResponse
from roundhouse.v1.log_pb2 import LogStream

ANSWER_S = 10.0  # an agent hears of a wish within a second
MOST_LINES = 1_000_000
ABILITY = "logs"  # of an agent, as it says itself when it joins


class Logs:
    """Serves `StreamLogs`."""

    def __init__(self, registry: Registry, intent: Intent, statuses: Statuses, wishes: LogWishes) -> None:
        self._registry, self._intent, self._statuses, self._wishes = registry, intent, statuses, wishes

    async def stream(self, request: StreamLogsRequest, context: Any) -> None:
        """Streams the logs of one replica until all is told, or the caller leaves."""
        _check(request)
        replica = self._find(request.name)
        (node,) = wire.NODE.parse(replica.node)
        self._require_able(node, replica)
        wish = LogRequest(
            request_id=str(uuid.uuid4()),
            replica_uid=replica.uid,
            tail_line_count=request.tail_line_count if request.HasField("tail_line_count") else None,
            follow=request.follow,
            since_time=request.since_time if request.HasField("since_time") else None,
            previous_life=request.previous_life,
            stream=request.stream,
        )
        with self._wishes.wished(node, wish) as relay, self._ended_with(node, replica, relay, follow=request.follow):
            message = await _first(relay, node)
            while message is not None:
                if message.lines:
                    await context.write(StreamLogsResponse(lines=message.lines))
                if message.refusal:
                    raise _unavailable(replica.name, message.refusal)
                message = None if message.is_last else await relay.take()

    def _find(self, name: str) -> Replica:
        deployment, index = wire.REPLICA.parse(name)
        status = self._statuses.get(deployment)
        if status is None:
            raise not_found(deployment)
        replica = next((each for each in status.replicas if each.name == name), None)
        if replica is None:
            raise NotFound(
                f'deployment "{deployment}" has no replica {index[:20]}: see `roundhouse replicas {deployment}`',
                reason=errors_pb2.ERROR_REASON_REPLICA_NOT_FOUND,
                resource=Resource("roundhouse.v1.Replica", name),
            )
        if not replica.node:
            raise _unavailable(name, f"it is PENDING and has never run: {replica.message}")
        return replica

    def _require_able(self, node: str, replica: Replica) -> None:
        known = self._registry.known.get(node)
        if known is None or not known.is_ready:
            raise _silent(node, replica.name)
        if ABILITY not in known.report.capabilities:
            raise _unavailable(replica.name, f'the agent of node "{node}" cannot send any: upgrade it')

    @contextlib.contextmanager
    def _ended_with(self, node: str, replica: Replica, relay: Relay, *, follow: bool) -> Iterator[None]:
        """Ends a relay when the node falls silent, and when the replica has left it, for the block.

        follow: that is the end of what was asked for; else something of it is missing.
        """
        gone = Unreachable(f"the logs broke off: {replica.name} has left its node meanwhile, and its logs with it")

        def look_at_node(change: NodeChange) -> None:
            if change.node == node and (change.after is None or not change.after.is_ready):
                relay.end(_silent(node, replica.name))

        def look_at_placement(change: RowChange[Placement]) -> None:
            if change.before is not None and change.after is None and change.before.value.replica_uid == replica.uid:
                relay.end(None if follow else gone)

        with self._registry.changes.to(look_at_node), self._intent.placements.changes.to(look_at_placement):
            yield


async def _first(relay: Relay, node: str) -> SendLogsRequest | None:
    try:
        async with asyncio.timeout(ANSWER_S):
            return await relay.take()
    except TimeoutError:
        message = f'the agent of node "{node}" has not answered within {ANSWER_S:g} s: look into its log, try again'
        raise Unreachable(message) from None


def _check(request: StreamLogsRequest) -> None:
    check = FieldCheck()
    count = request.tail_line_count
    check.require(0 <= count <= MOST_LINES, "tail_line_count", f"{count} is out of range: use 0 to {MOST_LINES}")
    is_over = request.previous_life and request.follow
    check.require(not is_over, "follow", "the life before writes nothing any more: leave out follow or previous_life")
    known = request.stream in LogStream.values()
    check.require(known, "stream", f"{request.stream} is unknown: use STDOUT or STDERR, or leave it out for both")
    check.raise_if_any()


def _unavailable(name: str, why: str) -> NotReady:
    return NotReady(
        f"{name} has no logs to show: {why}",
        reason=errors_pb2.ERROR_REASON_LOGS_UNAVAILABLE,
        resource=Resource("roundhouse.v1.Replica", name),
    )


def _silent(node: str, name: str) -> Unreachable:
    return Unreachable(
        f'node "{node}" does not report, so the logs of its replicas cannot be read: check its agent, try again',
        resource=Resource("roundhouse.v1.Replica", name),
    )
