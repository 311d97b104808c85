"""A stream at an engine that has given its first message."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from controlplane.gateway.engines import Engines, Metadata, Party, Stream
from controlplane.gateway.live import LiveRequests, RequestKey
from controlplane.gateway.router import Flight, Router
from controlplane.gateway.routing.asked import Asked
from controlplane.model import Route
from roundhouse.internal.hops import LOCATION_KEY, REQUEST_ID_KEY
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.channel import cancelling
from roundhouse.kit.errors import RoundhouseError, Unreachable
from roundhouse.kit.status import error_of

_PASSED_BACK = (REQUEST_ID_KEY, LOCATION_KEY)
_FAULTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)  # of no caller


@dataclass(frozen=True, slots=True)
class Opened:
    """The stream. Whoever has it closes it, which ends the call."""

    route: Route
    call: Stream
    attempt: int
    metadata: Metadata  # for the client
    first: hop_pb2.KeptResponse | None  # None: the stream ended before it
    flight: Flight | None  # what it adds to the load there; None if it follows what was there
    stack: contextlib.AsyncExitStack = field(repr=False)

    @property
    def run_attempt(self) -> int:
        """Which run it is, as its engine says: an attached client need not know."""
        events = () if self.first is None else self.first.events
        return next((each.started.attempt for each in events if each.WhichOneof("event") == "started"), self.attempt)

    async def close(self) -> None:
        """Lets go of it."""
        await self.stack.aclose()


class Opener:
    """Opens streams for one request of one caller, and tells the router how engines do."""

    def __init__(self, engines: Engines, live: LiveRequests, router: Router, key: RequestKey, party: Party) -> None:
        self._engines, self._live = engines, live
        self.router, self.key, self.party = router, key, party
        # Told of each engine at which the stream is opened from now on: that its client has left is news to each.
        self.when_left: Callable[[Route], None] | None = None

    async def open(
        self,
        route: Route,
        method: str,
        body: bytes,
        *,
        attempt: int,
        timeout_s: float | None,
        asked: Asked | None = None,
        words: bytes = b"",
    ) -> Opened:
        """Returns a stream once it has said something; raises grpc.RpcError if it ends with an error before.

        asked: the load that it brings; None if it follows what is there. words: see `Engines.stream`.
        """
        async with contextlib.AsyncExitStack() as stack:
            flight = None if asked is None else stack.enter_context(self.router.at(route, asked))
            call = await stack.enter_async_context(
                cancelling(
                    self._engines.stream(
                        route, method, body, self.party, attempt=attempt, timeout_s=timeout_s, words=words
                    )
                )
            )
            with self._live.trying(self.key, route):
                message = await self._first(route, call)
            self.router.succeeded(route)
            if self.when_left is not None:
                self.when_left(route)
            passed = [(name, value) for name, value in await call.initial_metadata() if name in _PASSED_BACK]
            first = None if message is grpc.aio.EOF else hop_pb2.KeptResponse.FromString(message)
            return Opened(route, call, attempt, passed, first, flight, stack.pop_all())
        raise AssertionError("unreachable")

    async def _first(self, route: Route, call: Stream) -> Any:
        try:
            return await call.read()
        except grpc.RpcError as error:
            self.judge(route, error)
            raise

    def judge(self, route: Route, error: grpc.RpcError) -> None:
        """Notes what an error says of the engine that it came from."""
        if is_lost(error, error_of(error)):
            self.router.failed(route)
        elif error.code() in _FAULTS:
            self.router.failed(route, is_certain=False)
        elif error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:  # which may be said here as well, and says nothing
            self.router.succeeded(route)


def is_lost(error: grpc.RpcError, ours: RoundhouseError) -> bool:
    """Tells whether the engine is gone or refuses everybody, as against refusing this request."""
    if error.code() is grpc.StatusCode.CANCELLED:
        return True  # not by us, so by a server that went down with the call accepted
    return isinstance(ours, Unreachable)
