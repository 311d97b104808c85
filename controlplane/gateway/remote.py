"""The routes of a control plane in another process, followed for as long as the gateway lives.

Nothing depends on the session: while there is none the gateway goes on with what it knows, and calls again, for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import grpc
import structlog

from controlplane.feed import Copy
from controlplane.gateway.memory import aged, joined
from controlplane.model import Routes
from roundhouse.internal.v1 import fleet_service_pb2 as pb
from roundhouse.internal.v1 import fleet_service_pb2_grpc
from roundhouse.kit.authorized import Authorized
from roundhouse.kit.backoff import Backoff
from roundhouse.kit.channel import cancelling
from roundhouse.kit.latest import Latest
from roundhouse.kit.status import error_of

log = structlog.get_logger()

SILENCE_S = 7.0  # the control plane speaks every 2 s
# For so long after a session began, engines of nodes that the control plane has not heard of are called as before:
# agents are back within seconds. A node that takes longer counts as lost, and no new request goes there.
HELD_S = 15.0
AGAIN = Backoff(first_s=0.2, cap_s=5.0, jitter=0.5)
_REFUSALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


class Callers(Protocol):
    """Who wants to know who may call."""

    def take(self, told: pb.Callers) -> None:
        """Takes in what the control plane says of that now."""

    def refused(self) -> None:
        """Takes in that the control plane serves this gateway no more for who it is."""


class RemoteRoutes:
    """Keeps `routes` as the control plane tells them. Not current before it has, and while it does not.

    channel: carries what this gateway is known by. callers: is told of them as soon as the control plane tells.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel | Authorized,
        callers: Callers,
        *,
        gateway_id: str,
        random: Callable[[], float],
        now_s: Callable[[], float],
        silence_s: float = SILENCE_S,
    ) -> None:
        self._stub = fleet_service_pb2_grpc.FleetServiceStub(channel)
        self._callers = callers
        self._request = pb.WatchRoutesRequest(gateway_id=gateway_id)
        self._random, self._now_s, self._silence_s = random, now_s, silence_s
        self._failures = 0  # since the control plane last said something
        self.routes: Latest[Routes] = Latest(Routes({}, is_current=False))

    async def run(self) -> None:
        """Calls again whenever the session ends, until cancelled."""
        last_reason = ""
        while True:
            try:
                await self._session()
            except (grpc.RpcError, TimeoutError, _Ended) as error:
                reason = self._reason(error)
                if reason != last_reason or not self._failures:
                    log.warning("control plane does not answer; the gateway goes on with what it knows", reason=reason)
                last_reason = reason
                if isinstance(error, grpc.RpcError) and error.code() in _REFUSALS:
                    self._callers.refused()
            self._set(aged(self.routes.get()))
            await asyncio.sleep(AGAIN.delay_s(self._failures, self._random()))
            self._failures += 1

    async def _session(self) -> None:
        before, copy = self.routes.get(), Copy()
        begin_s: float | None = None  # of what it tells
        async with cancelling(self._stub.WatchRoutes(self._request)) as call:
            while True:
                async with asyncio.timeout(self._silence_s):
                    message = await call.read()
                if message is grpc.aio.EOF:
                    raise _Ended
                for event in message.events:
                    if event.WhichOneof("event") == "callers":
                        self._callers.take(event.callers)
                    routes = copy.take(event)
                    if routes is not None:
                        begin_s = self._now_s() if begin_s is None else begin_s
                        is_held = self._now_s() - begin_s < HELD_S
                        self._heard(joined(routes, before) if is_held else routes)

    def _heard(self, routes: Routes) -> None:
        if not self.routes.get().is_current:
            log.info("following the control plane", deployments=len(routes.replicas))
        self._failures = 0
        self._set(routes)

    def _set(self, routes: Routes) -> None:
        if routes != self.routes.get():
            self.routes.set(routes)

    def _reason(self, error: Exception) -> str:
        if isinstance(error, grpc.RpcError):
            return str(error_of(error))
        return (
            f"it has been silent for {self._silence_s:g} s" if isinstance(error, TimeoutError) else "it ended the call"
        )


class _Ended(Exception):
    """The control plane ended the call with OK, which it never should."""
