"""Relays one request: to a ready replica, its answer back as bytes, and the client's leaving on to the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import structlog

from controlplane.auth.caller import caller
from controlplane.gateway.admission.admission import Admission, Ticket, Withdrawn
from controlplane.gateway.admission.costs import cost_of, usage_in
from controlplane.gateway.admission.ending import deadline_of, shorten, withdrawn
from controlplane.gateway.cancel import Canceller
from controlplane.gateway.engines import Engines, passed_on
from controlplane.gateway.live import LiveRequests, RequestKey
from controlplane.gateway.pick import pick
from controlplane.model import Route, Routes
from roundhouse.internal.hops import LOCATION_KEY, REQUEST_ID_KEY
from roundhouse.kit.channel import cancelling
from roundhouse.kit.errors import NotFound, NotReady, Resource, RoundhouseError, Unreachable
from roundhouse.kit.status import error_of
from roundhouse.kit.tasks import Background
from roundhouse.v1 import errors_pb2
from roundhouse.v1.inference_service_pb2 import ChatRequest, GenerateRequest

log = structlog.get_logger()

MAX_ATTEMPTS = 3  # before the first token; a fleet of which three replicas just died is better told of
RETRY_AFTER_S = 1.0  # agents report every second
# The call may be ended by its deadline a moment before the clock says so; the engine keeps the same deadline itself.
DEADLINE_TOLERANCE_S = 0.05
_PASSED_BACK = (REQUEST_ID_KEY, LOCATION_KEY)


class Relay:
    """Relays requests for one gateway."""

    def __init__(
        self,
        routes: Callable[[], Routes],
        engines: Engines,
        live: LiveRequests,
        canceller: Canceller,
        background: Background,
        admission: Admission,
    ) -> None:
        self._routes, self._engines, self._live = routes, engines, live
        self._canceller, self._background, self._admission = canceller, background, admission

    async def relay(self, key: RequestKey, method: str, request: GenerateRequest | ChatRequest, context: Any) -> None:
        """Streams the answer of a replica to the client, once it is its turn.

        A replica that turns out to be gone before its first message is replaced by another one; after that the stream
        ends with UNAVAILABLE (ENGINE_LOST). However the client leaves, the engine is told.
        """
        with self._live.keep(key):
            self._replicas(key.deployment)  # or there is nothing to wait for
            ticket = self._admission.admitted(
                key,
                cost_of(request),
                tenant=caller().tenant,
                priority=request.options.priority,
                deadline_s=deadline_of(request, context.time_remaining()),
            )
            try:
                async with ticket:
                    shorten(request, ticket.waited_s)
                    await self._attempt(key, method, request.SerializeToString(), context, ticket)
            except Withdrawn as ended:
                await context.send_initial_metadata([(REQUEST_ID_KEY, key.request_id)])
                await context.write(withdrawn(request, ended.receipt, ticket.waited_s))

    async def _attempt(self, key: RequestKey, method: str, body: bytes, context: Any, ticket: Ticket) -> None:
        passed = passed_on(context.invocation_metadata())
        tried: set[str] = set()
        for attempt in range(1, MAX_ATTEMPTS + 1):
            route = self._pick(key.deployment, tried)
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
            with self._live.at(key, route):
                async with cancelling(call):
                    may_retry = attempt < MAX_ATTEMPTS
                    if await self._stream(key, route, call, context, ticket, may_retry=may_retry):
                        return

    async def _stream(
        self,
        key: RequestKey,
        route: Route,
        call: grpc.aio.UnaryStreamCall[bytes, bytes],
        context: Any,
        ticket: Ticket,
        *,
        may_retry: bool,
    ) -> bool:
        """Returns whether the answer is complete; false: nothing was sent and another replica may be asked."""
        has_sent, count = False, 0
        last: Any = b""
        try:
            message = await call.read()
            await context.send_initial_metadata(
                [(name, value) for name, value in await call.initial_metadata() if name in _PASSED_BACK]
            )
            while message is not grpc.aio.EOF:
                has_sent = True
                await context.write(message)
                ticket.spent(count)  # of a token each, at least
                count += 1
                last = message
                message = await call.read()
            if (usage := usage_in(last)) is not None:
                ticket.spent(usage.output_token_count, usage.prompt_token_count)
        except asyncio.CancelledError:
            # The deadline of the call travels with it, and the engine keeps it itself.
            remaining_s = context.time_remaining()
            if remaining_s is None or remaining_s > DEADLINE_TOLERANCE_S:
                self._background.start(self._canceller.leave(key, route), name=f"cancel {key.request_id}")
            raise
        except grpc.RpcError as error:
            ours = error_of(error)
            if not _is_lost(error, ours):
                raise
            what = "engine lost" if has_sent else "engine takes no requests"
            log.warning(what, replica=_name(route), engine=route.engine_uuid, request_id=key.request_id)
            self._live.shun(route)
            if has_sent:
                self._live.lose(key, route)
                raise _lost(key, route) from error
            if not may_retry:
                raise _untaken(key) from error
            return False
        return True

    def _replicas(self, deployment: str) -> Sequence[Route]:
        """Returns the replicas of a deployment; raises unless one is ready."""
        routes = self._routes()
        found = routes.replicas.get(deployment)
        if found is None:
            raise not_found(routes, deployment)
        if deployment in routes.deleting:
            raise NotReady(
                f'deployment "{deployment}" is being deleted: wait until it is gone, then create it again',
                reason=errors_pb2.ERROR_REASON_DEPLOYMENT_DELETING,
            )
        if not any(each.is_ready for each in found):
            raise _unready(deployment)
        return found

    def _pick(self, deployment: str, tried: set[str]) -> Route:
        found = self._replicas(deployment)
        route = pick(found, self._live.flights, tried=tried, shunned=self._live.shunned())
        if route is None:
            raise _unready(deployment)
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


def _unready(deployment: str) -> Unreachable:
    return Unreachable(
        f'deployment "{deployment}" has no ready replica: wait for one, ListReplicas says what they are doing',
        reason=errors_pb2.ERROR_REASON_NO_READY_REPLICA,
        retry_after_s=RETRY_AFTER_S,
    )


def _untaken(key: RequestKey) -> Unreachable:
    return Unreachable(
        f'{MAX_ATTEMPTS} replicas of deployment "{key.deployment}" one after another did not take the request: '
        "try again",
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
