"""A stream at an engine that has given its first message."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import grpc

from controlplane.gateway.engines import Engines, Metadata, Party, Stream
from controlplane.gateway.live import LiveRequests, RequestKey
from controlplane.model import Route
from roundhouse.internal.hops import LOCATION_KEY, REQUEST_ID_KEY
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.channel import cancelling

_PASSED_BACK = (REQUEST_ID_KEY, LOCATION_KEY)


@dataclass(frozen=True, slots=True)
class Opened:
    """The stream. Whoever has it closes it: that ends the call and says that the request is not there any more."""

    route: Route
    call: Stream
    attempt: int
    metadata: Metadata  # for the client
    first: hop_pb2.KeptResponse | None  # None: the stream ended before it
    stack: contextlib.AsyncExitStack = field(repr=False)

    async def close(self) -> None:
        """Lets go of it."""
        await self.stack.aclose()


class Opener:
    """Opens streams for one request of one caller."""

    def __init__(self, engines: Engines, live: LiveRequests, key: RequestKey, party: Party) -> None:
        self._engines, self._live = engines, live
        self.key, self.party = key, party

    async def open(self, route: Route, method: str, body: bytes, *, attempt: int, timeout_s: float | None) -> Opened:
        """Returns a stream once it has said something; raises grpc.RpcError if it ends with an error before."""
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self._live.at(self.key, route))
            call = await stack.enter_async_context(
                cancelling(self._engines.stream(route, method, body, self.party, attempt=attempt, timeout_s=timeout_s))
            )
            message: Any = await call.read()
            passed = [(name, value) for name, value in await call.initial_metadata() if name in _PASSED_BACK]
            first = None if message is grpc.aio.EOF else hop_pb2.KeptResponse.FromString(message)
            return Opened(route, call, attempt, passed, first, stack.pop_all())
        raise AssertionError("unreachable")
