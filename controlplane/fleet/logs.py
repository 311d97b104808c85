"""Brings what an agent reads of an engine's logs to the one client that waits for it. A wish stands while he waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence

from controlplane.fleet.changes import Changes
from roundhouse.internal.v1.agent_service_pb2 import LogRequest, SendLogsRequest
from roundhouse.kit.errors import AlreadyExists, NoCapacity, NotFound, RoundhouseError, Unreachable
from roundhouse.v1 import errors_pb2

READERS = 64  # of one node at a time; each is a call, a task on either side, and a look five times a second
QUEUED = 2  # messages of about 64 KiB; beyond that the agent waits until the client has read


class Relay:
    """Messages of one agent on their way to one client."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._queue: asyncio.Queue[SendLogsRequest] = asyncio.Queue(QUEUED)
        self._news = asyncio.Event()
        self._is_over = False
        self._error: RoundhouseError | None = None
        self._is_taken, self._is_left = False, False

    async def put(self, message: SendLogsRequest) -> None:
        """Hands a message over once there is room; raises NotFound if the client has left."""
        if self._is_left:
            raise _nobody_waits()
        await self._queue.put(message)
        self._news.set()

    async def take(self) -> SendLogsRequest | None:
        """Returns the next message, None behind the last; raises what the relay has ended with."""
        while self._queue.empty():
            if self._error is not None:
                raise self._error
            if self._is_over:
                return None
            self._news.clear()
            await self._news.wait()
        return self._queue.get_nowait()

    def end(self, error: RoundhouseError | None = None) -> None:
        """Lets no more come than what is there. The first end counts."""
        if not self._is_over:
            self._is_over, self._error = True, error
            self._news.set()

    @contextlib.contextmanager
    def answered(self) -> Iterator[None]:
        """Holds the one call that answers; whatever ends it before the last message has broken off."""
        if self._is_taken:
            raise AlreadyExists("the logs are being sent in another call: end this one")
        self._is_taken = True
        try:
            yield
        finally:
            self.end(Unreachable(f'the agent of node "{self._node}" broke off sending logs: try again'))

    def leave(self) -> None:
        """Drops what is left; the agent is not held up any more."""
        self._is_left = True
        while not self._queue.empty():
            self._queue.get_nowait()


class LogWishes:
    """Who waits for which logs."""

    def __init__(self) -> None:
        self._wishes: defaultdict[str, dict[str, LogRequest]] = defaultdict(dict)
        self._relays: dict[str, Relay] = {}
        self.changes: Changes[str] = Changes()  # bare ids of nodes of which other logs are wanted now

    def of(self, node: str) -> Sequence[LogRequest]:
        """Returns what the agent of a node is asked for."""
        return list(self._wishes.get(node, {}).values())

    def relay(self, request_id: str) -> Relay:
        """Returns the way to whoever waits; raises NotFound if nobody does."""
        relay = self._relays.get(request_id)
        if relay is None:
            raise _nobody_waits()
        return relay

    @contextlib.contextmanager
    def wished(self, node: str, request: LogRequest) -> Iterator[Relay]:
        """Asks the agent of a node for logs, for the block; raises NoCapacity if too many do."""
        if len(self._wishes.get(node, {})) >= READERS:
            raise NoCapacity(
                f'{READERS} others read logs from node "{node}", as many as may: wait until one of them leaves',
                reason=errors_pb2.ERROR_REASON_TOO_MANY_LOG_READERS,
            )
        relay = self._relays[request.request_id] = Relay(node)
        self._wishes[node][request.request_id] = request
        self.changes.tell(node)
        try:
            yield relay
        finally:
            relay.leave()
            del self._relays[request.request_id], self._wishes[node][request.request_id]
            if not self._wishes[node]:
                del self._wishes[node]
            self.changes.tell(node)


def _nobody_waits() -> NotFound:
    return NotFound(
        "nobody waits for these logs any more: end the call", reason=errors_pb2.ERROR_REASON_REPLICA_NOT_FOUND
    )
