"""Relays one request: to a ready replica, its answer back as bytes, and the client's leaving on to the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import structlog

from controlplane.auth.caller import caller
from controlplane.gateway.cancel import Canceller
from controlplane.gateway.engines import Engines, passed_on
from controlplane.gateway.live import LiveRequests, RequestKey
from controlplane.gateway.router import Flight, Router
from controlplane.gateway.routing.asked import Asked
from controlplane.model import Route, Routes
from roundhouse.internal.hops import LOCATION_KEY, REQUEST_ID_KEY
from roundhouse.kit.channel import cancelling
from roundhouse.kit.errors import NotFound, NotReady, Resource, RoundhouseError, Unreachable
from roundhouse.kit.status import error_of
from roundhouse.kit.tasks import Background
from roundhouse.v1 import errors_pb2

log = structlog.get_logger()

MAX_ATTEMPTS = 3  # before the first token; a fleet of which three replicas just died is better told of
RETRY_AFTER_S = 1.0  # agents report every second
# The call may be ended by its deadline a moment before the clock says so; the engine keeps the same deadline itself.
DEADLINE_TOLERANCE_S = 0.05
_FAULTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)  # of no caller
_PASSED_BACK = (REQUEST_ID_KEY, LOCATION_KEY)


class Relay:
    """Relays requests for one gateway."""

    def __init__(
        self,
        routes: Callable[[], Routes],
        engines: Engines,
        live: LiveRequests,
        router: Router,
        canceller: Canceller,
        background: Background,
    ) -> None:
        self._routes, self._engines, self._live, self._router = routes, engines, live, router
        self._canceller, self._background = canceller, background

    async def relay(self, key: RequestKey, method: str, body: bytes, asked: Asked, context: Any) -> None:
        """Streams the answer of a replica to the client. asked: what of `body` decides which.

        A replica that turns out to be gone before its first message is replaced by another one, as far as retries are
        left; after that the stream ends with UNAVAILABLE (ENGINE_LOST). However the client leaves, the engine is told.
        """
        passed = passed_on(context.invocation_metadata())
        with self._live.keep(key):
            tried: set[str] = set()
            for attempt in range(1, MAX_ATTEMPTS + 1):
                route = self._pick(key.deployment, asked, tried)
                tried.add(route.engine_uuid)
                call = self._engines.stream(
                    route,
                    method,
                    body,
                    principal=key.principal,
                    tenant=caller().tenant,
                    attempt=attempt,
                    timeout_s=context.time_remaining(),
                    passed=passed,
                )
                self._live.move(key, route)
                with self._router.at(route, asked) as flight:
                    async with cancelling(call):
                        if await self._stream(key, route, call, context, flight, is_last=attempt == MAX_ATTEMPTS):
                            return

    async def _stream(
        self,
        key: RequestKey,
        route: Route,
        call: grpc.aio.UnaryStreamCall[bytes, bytes],
        context: Any,
        flight: Flight,
        *,
        is_last: bool,
    ) -> bool:
        """Returns whether the answer is complete; false: nothing was sent and another replica may be asked."""
        has_sent = False
        try:
            message = await call.read()
            self._router.succeeded(route)
            await context.send_initial_metadata(
                [(name, value) for name, value in await call.initial_metadata() if name in _PASSED_BACK]
            )
            while message is not grpc.aio.EOF:
                has_sent = True
                flight.told(1)  # at least; more while the engine waits for us
                await context.write(message)
                message = await call.read()
        except asyncio.CancelledError:
            # The deadline of the call travels with it, and the engine keeps it itself.
            remaining_s = context.time_remaining()
            if remaining_s is None or remaining_s > DEADLINE_TOLERANCE_S:
                self._background.start(self._canceller.leave(key, route), name=f"cancel {key.request_id}")
            raise
        except grpc.RpcError as error:
            ours = error_of(error)
            if not _is_lost(error, ours):
                self._judge(route, error.code())
                raise
            what = "engine lost" if has_sent else "engine takes no requests"
            log.warning(what, replica=_name(route), engine=route.engine_uuid, request_id=key.request_id)
            self._router.failed(route)
            if has_sent:
                self._live.lose(key, route)
                raise _lost(key, route) from error
            if is_last or not self._router.may_retry(key.deployment):
                raise _untaken(key) from error
            return False
        return True

    def _judge(self, route: Route, code: grpc.StatusCode) -> None:
        """Notes what an error says of the engine that it came from."""
        if code in _FAULTS:
            self._router.failed(route, is_certain=False)
        elif code is not grpc.StatusCode.DEADLINE_EXCEEDED:  # which may be said here as well, and says nothing
            self._router.succeeded(route)

    def _pick(self, deployment: str, asked: Asked, tried: set[str]) -> Route:
        routes = self._routes()
        found = routes.replicas.get(deployment)
        if found is None:
            raise not_found(routes, deployment)
        if deployment in routes.deleting:
            raise NotReady(
                f'deployment "{deployment}" is being deleted: wait until it is gone, then create it again',
                reason=errors_pb2.ERROR_REASON_DEPLOYMENT_DELETING,
            )
        route = self._router.pick(deployment, asked, tried)
        if route is None:
            raise Unreachable(
                f'deployment "{deployment}" has no ready replica: wait for one, ListReplicas says what they are doing',
                reason=errors_pb2.ERROR_REASON_NO_READY_REPLICA,
                retry_after_s=RETRY_AFTER_S,
            )
        return route


def not_found(routes: Routes, deployment: str) -> RoundhouseError:
    """Returns the error of a request for a deployment that is not among the routes."""
    if not routes.is_current:
        return Unreachable(
            f'whether deployment "{deployment}" exists is not known, as the control plane is not heard: try again',
            reason=errors_pb2.ERROR_REASON_INTERRUPTED,
            retry_after_s=RETRY_AFTER_S,
        )
    return NotFound(
        f'deployment "{deployment}" does not exist: check the name, or create it',
        resource=Resource("roundhouse.v1.Deployment", f"deployments/{deployment}"),
    )


def _is_lost(error: grpc.RpcError, ours: RoundhouseError) -> bool:
    """Tells whether the engine is gone or refuses everybody, as against refusing this request."""
    if error.code() is grpc.StatusCode.CANCELLED:
        return True  # not by us, so by a server that went down with the call accepted
    return isinstance(ours, Unreachable)


def _untaken(key: RequestKey) -> Unreachable:
    return Unreachable(
        f'replicas of deployment "{key.deployment}" did not take the request, one after another: try again',
        reason=errors_pb2.ERROR_REASON_NO_READY_REPLICA,
        retry_after_s=RETRY_AFTER_S,
    )


def _lost(key: RequestKey, route: Route) -> Unreachable:
    return Unreachable(
        f'the engine of "{_name(route)}" was lost while it ran request "{key.request_id}": send it again',
        reason=errors_pb2.ERROR_REASON_ENGINE_LOST,
        metadata={"replica": f"deployments/{route.deployment}/replicas/{route.index}"},
    )


def _name(route: Route) -> str:
    return f"{route.deployment}-{route.index}"
