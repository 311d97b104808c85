"""Finds the engine that has a request which a client wants to follow."""

from __future__ import annotations

import asyncio

import grpc

from controlplane.gateway.live import LiveRequests
from controlplane.gateway.lookup import Lookup
from controlplane.gateway.opened import Opened, Opener, is_lost
from controlplane.model import Route
from roundhouse.internal.hops import parse_location
from roundhouse.kit.backoff import Backoff
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import Conflict, NotFound, Unreachable
from roundhouse.kit.status import error_of
from roundhouse.v1.inference_service_pb2 import AttachRequest

# For a gateway that lost its engine just now to have the request go on at another one.
PATIENCE_S = 3.0
# Growing, as each look asks every engine, and all clients of a gateway that died come at once: 7 looks or so.
AGAIN = Backoff(first_s=0.1, cap_s=0.8)


class Locating:
    """Attaches one client to one request."""

    def __init__(self, opener: Opener, live: LiveRequests, lookup: Lookup, clock: Clock) -> None:
        self._opener, self._live, self._lookup, self._clock = opener, live, lookup, clock

    async def open(self, request: AttachRequest) -> Opened:
        """Returns the stream of the engine that has the request, behind what the client has seen.

        Raises NotFound, Conflict if it is lost, Unreachable if that cannot be told, and what the engine refuses.
        """
        began_s = self._clock.monotonic()
        has_been_there = bool(request.location) or self._live.where(self._opener.key) is not None
        look = 0
        while True:
            try:
                return await self._once(request)
            except (NotFound, Conflict, Unreachable):
                left_s = began_s + PATIENCE_S - self._clock.monotonic()
                if not has_been_there or left_s <= 0:
                    raise
            await asyncio.sleep(min(left_s, AGAIN.delay_s(look)))
            look += 1

    async def _once(self, request: AttachRequest) -> Opened:
        key = self._opener.key
        known = self._live.where(key)
        if known is not None and parse_location(request.location).engine_uuid in ("", known.engine_uuid):
            opened = await self._try(known, request)
            if opened is not None:
                return opened
        place = await self._lookup.find(key, request.location, None)
        try:
            return await self._attach(place.route, request, place.attempt)
        except grpc.RpcError as error:
            ours = error_of(error)
            if not (is_lost(error, ours) or (isinstance(ours, NotFound) and not place.is_last)):
                raise  # an engine that keeps the receipt of a request longer than its events says NotFound
            raise Unreachable(f'the engine of request "{key.request_id}" does not answer: try again') from error

    async def _try(self, route: Route, request: AttachRequest) -> Opened | None:
        """Returns the stream; None if the engine is gone or does not have the request."""
        try:
            return await self._attach(route, request, 1)
        except grpc.RpcError as error:
            ours = error_of(error)
            if is_lost(error, ours) or isinstance(ours, NotFound):
                return None
            raise

    async def _attach(self, route: Route, request: AttachRequest, attempt: int) -> Opened:
        return await self._opener.open(route, "Attach", request.SerializeToString(), attempt=attempt, timeout_s=None)
