"""Serves `InferenceService` for the whole fleet."""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

from controlplane.auth.caller import caller
from controlplane.gateway.admission.admission import Admission
from controlplane.gateway.cancel import Canceller
from controlplane.gateway.engines import Engines
from controlplane.gateway.live import LiveRequests, RequestKey
from controlplane.gateway.relay import Relay, not_found
from controlplane.gateway.tombstones import Tombstones
from controlplane.model import AdmissionSettings, Routes
from roundhouse.kit.clock import SystemClock
from roundhouse.kit.fields import FieldCheck
from roundhouse.kit.latest import Latest
from roundhouse.kit.names import ID_RULE, is_id
from roundhouse.kit.tasks import Background
from roundhouse.v1 import inference_service_pb2 as pb

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}\Z")
_LEAVE_S = 2.0  # on the way down, time for engines to hear that their clients are gone


class Gateway:
    """The requests of one gateway, which needs their deployment and id alone; engines check the rest."""

    def __init__(
        self,
        routes: Latest[Routes],
        relay: Relay,
        canceller: Canceller,
        tombstones: Tombstones,
        admission: Admission,
    ) -> None:
        self._routes, self._relay, self._canceller, self._tombstones = routes, relay, canceller, tombstones
        self.admission = admission  # tells who waits

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> None:
        """Relays the continuation of a prompt."""
        await self._start(request, "Generate", context)

    async def Chat(self, request: pb.ChatRequest, context: Any) -> None:
        """Relays the answer to a conversation."""
        await self._start(request, "Chat", context)

    async def CancelRequest(self, request: pb.CancelRequestRequest, context: Any) -> pb.CancelRequestResponse:
        """Cancels a request of this principal, from whichever connection."""
        key = _key(request, needs_id=True)
        routes = self._routes.get()
        if key.deployment not in routes.replicas:
            raise not_found(routes, key.deployment)
        receipt = await self._canceller.cancel(key, request.location, context.time_remaining())
        return pb.CancelRequestResponse(receipt=receipt)

    async def _start(self, request: pb.GenerateRequest | pb.ChatRequest, method: str, context: Any) -> None:
        request.request_id = request.request_id or uuid.uuid4().hex
        key = _key(request, needs_id=False)
        self._tombstones.check(key)
        await self._relay.relay(key, method, request, context)


@contextlib.asynccontextmanager
async def open_gateway(
    routes: Latest[Routes], *, gateway_id: str | None = None, settings: AdmissionSettings | None = None
) -> AsyncIterator[Gateway]:
    """Gives a gateway for the block. `routes` is all that it learns of the fleet."""
    clock = SystemClock()
    engines, live, tombstones = Engines(gateway_id or uuid.uuid4().hex), LiveRequests(clock), Tombstones(clock)
    admission = Admission(settings or AdmissionSettings(), routes.get, clock)
    canceller = Canceller(routes.get, engines, live, tombstones, admission)
    try:
        async with Background(grace_s=_LEAVE_S) as leaving:
            following = asyncio.create_task(_follow(routes, engines, live, admission), name="gateway routes")
            try:
                relay = Relay(routes.get, engines, live, canceller, leaving, admission)
                yield Gateway(routes, relay, canceller, tombstones, admission)
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
    finally:
        await engines.keep_only(frozenset())


async def _follow(routes: Latest[Routes], engines: Engines, live: LiveRequests, admission: Admission) -> None:
    """Lets go of engines that are gone, and lets in what those have room for that are there."""
    async for now in routes.watch():
        admission.look(now)
        present = [each for replicas in now.replicas.values() for each in replicas]
        live.forget_engines(frozenset(each.engine_uuid for each in present))
        await engines.keep_only(live.addresses() | {each.address for each in present})


def _key(request: pb.GenerateRequest | pb.ChatRequest | pb.CancelRequestRequest, *, needs_id: bool) -> RequestKey:
    check = FieldCheck()
    check.require(
        is_id(request.deployment), "deployment", f'"{request.deployment}" is not a deployment id: use {ID_RULE}'
    )
    known = bool(_REQUEST_ID.match(request.request_id))
    cure = "use 1 to 64 characters of [A-Za-z0-9._:-]" + ("" if needs_id else ", or leave it empty")
    check.require(known, "request_id", f'"{request.request_id}" is not a request id: {cure}')
    check.raise_if_any()
    return RequestKey(caller().principal, request.deployment, request.request_id)
