"""Serves `InferenceService` for the whole fleet."""

from __future__ import annotations

import contextlib
import random
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

from controlplane.auth.caller import caller
from controlplane.gateway.admission.admission import Admission
from controlplane.gateway.cancel import Canceller
from controlplane.gateway.depositing import Depositing
from controlplane.gateway.engines import Engines
from controlplane.gateway.live import LiveRequests, RequestKey
from controlplane.gateway.lookup import Lookup
from controlplane.gateway.placing import not_found
from controlplane.gateway.relay import Relay
from controlplane.gateway.router import Router
from controlplane.gateway.tombstones import Tombstones
from controlplane.model import AdmissionSettings, Routes
from roundhouse.internal.request_pages import parse_page_token
from roundhouse.kit.clock import SystemClock
from roundhouse.kit.fields import FieldCheck
from roundhouse.kit.latest import Latest
from roundhouse.kit.names import ID_RULE, is_id
from roundhouse.kit.tasks import Background, looping
from roundhouse.v1 import inference_service_pb2 as pb

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}\Z")
MAX_PAGE_SIZE = 1000
_LEAVE_S = 2.0  # on the way down, time for engines to hear that their clients are gone, and of what ended in the line


_Named = pb.GenerateRequest | pb.ChatRequest | pb.AttachRequest | pb.GetRequestRequest | pb.CancelRequestRequest


class Gateway:
    """The requests of one gateway, which needs their deployment and id alone; engines check the rest."""

    def __init__(
        self,
        routes: Latest[Routes],
        relay: Relay,
        canceller: Canceller,
        lookup: Lookup,
        tombstones: Tombstones,
        admission: Admission,
        depositing: Depositing,
    ) -> None:
        self._routes, self._relay, self._tombstones, self._depositing = routes, relay, tombstones, depositing
        self._canceller, self._lookup = canceller, lookup
        self.admission = admission  # tells who waits

    @contextlib.asynccontextmanager
    async def ending(self) -> AsyncIterator[None]:
        """Leaving the block says that the gateway is about to end: its requests are left for another to take up."""
        try:
            yield
        finally:
            self._relay.end()
            self._depositing.end()

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> None:
        """Relays the continuation of a prompt."""
        await self._start(request, "Generate", context)

    async def Chat(self, request: pb.ChatRequest, context: Any) -> None:
        """Relays the answer to a conversation."""
        await self._start(request, "Chat", context)

    async def Attach(self, request: pb.AttachRequest, context: Any) -> None:
        """Relays a request that runs or ended lately."""
        await self._relay.attach(self._known_key(request), request, context)

    async def GetRequest(self, request: pb.GetRequestRequest, context: Any) -> pb.GetRequestResponse:
        """Tells what is known of a request."""
        key = self._known_key(request)
        found = await self._lookup.get(key, request.location, context.time_remaining())
        return pb.GetRequestResponse(request=found)

    async def ListRequests(self, request: pb.ListRequestsRequest, context: Any) -> pb.ListRequestsResponse:
        """Lists the requests of this principal at a deployment."""
        check = FieldCheck()
        _check_deployment(check, request.deployment)
        in_range = 0 <= request.page_size <= MAX_PAGE_SIZE
        what = f"{request.page_size} is out of range: use 0 to {MAX_PAGE_SIZE}"
        check.require(in_range, "page_size", what)
        try:
            parse_page_token(request.page_token) if request.page_token else None
        except ValueError:
            check.require(False, "page_token", "is not one that this method has given: leave it out")
        check.raise_if_any()
        self._require(request.deployment)
        return await self._lookup.list(caller().principal, request, context.time_remaining())

    async def CancelRequest(self, request: pb.CancelRequestRequest, context: Any) -> pb.CancelRequestResponse:
        """Cancels a request of this principal, from whichever connection."""
        key = self._known_key(request)
        receipt = await self._canceller.cancel(key, request.location, context.time_remaining())
        return pb.CancelRequestResponse(receipt=receipt)

    async def _start(self, request: pb.GenerateRequest | pb.ChatRequest, method: str, context: Any) -> None:
        request.request_id = request.request_id or uuid.uuid4().hex
        key = _key(request, needs_id=False)
        self._tombstones.check(key)
        await self._relay.start(key, method, request, context)

    def _known_key(self, request: pb.AttachRequest | pb.GetRequestRequest | pb.CancelRequestRequest) -> RequestKey:
        key = _key(request, needs_id=True)
        self._require(key.deployment)
        return key

    def _require(self, deployment: str) -> None:
        routes = self._routes.get()
        if deployment not in routes.replicas:
            raise not_found(routes, deployment)


@contextlib.asynccontextmanager
async def open_gateway(
    routes: Latest[Routes], *, gateway_id: str | None = None, settings: AdmissionSettings | None = None
) -> AsyncIterator[Gateway]:
    """Gives a gateway for the block. `routes` is all that it learns of the fleet."""
    clock = SystemClock()
    engines, live, tombstones = Engines(gateway_id or uuid.uuid4().hex), LiveRequests(), Tombstones(clock)
    router = Router(routes.get, clock, random.random)
    try:
        async with Background(grace_s=_LEAVE_S) as leaving, Background() as keeping:
            depositing = Depositing(routes.get, engines, leaving, random.random)
            admission = Admission(settings or AdmissionSettings(), routes.get, clock, deposit=depositing.start)
            canceller = Canceller(routes.get, engines, live, tombstones, admission, depositing, leaving)
            lookup = Lookup(routes.get, engines, live, tombstones, admission)
            relay = Relay(
                routes,
                engines,
                live,
                router,
                canceller,
                lookup,
                admission,
                clock,
                leaving=leaving,
                keeping=keeping,
            )
            following = {"gateway routes": lambda: _follow(routes, engines, live, router, admission)}
            async with looping(following):
                yield Gateway(routes, relay, canceller, lookup, tombstones, admission, depositing)
    finally:
        await engines.keep_only(frozenset())


async def _follow(
    routes: Latest[Routes], engines: Engines, live: LiveRequests, router: Router, admission: Admission
) -> None:
    """Greets engines that are new and lets in what those have room for; lets go of those that are gone."""
    async for now in routes.watch():
        present = [each for replicas in now.replicas.values() for each in replicas]
        router.follow()
        admission.look(now)
        await engines.keep_only(live.addresses() | {each.address for each in present})


def _key(request: _Named, *, needs_id: bool) -> RequestKey:
    check = FieldCheck()
    _check_deployment(check, request.deployment)
    known = bool(_REQUEST_ID.match(request.request_id))
    cure = "use 1 to 64 characters of [A-Za-z0-9._:-]" + ("" if needs_id else ", or leave it empty")
    check.require(known, "request_id", f'"{request.request_id}" is not a request id: {cure}')
    check.raise_if_any()
    return RequestKey(caller().principal, request.deployment, request.request_id)


def _check_deployment(check: FieldCheck, deployment: str) -> None:
    check.require(is_id(deployment), "deployment", f'"{deployment}" is not a deployment id: use {ID_RULE}')
