"""Relays requests: to a ready replica, its answer back as bytes, and the client's leaving on to the engine."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import structlog

from controlplane.auth.caller import caller
from controlplane.gateway.admission.admission import DEADLINE_TOLERANCE_S, Admission, Withdrawn
from controlplane.gateway.admission.costs import cost_of
from controlplane.gateway.admission.ending import deadline_of, shorten, ttl_of, withdrawn
from controlplane.gateway.asking import asked_of
from controlplane.gateway.cancel import Canceller
from controlplane.gateway.continuing import Continuing, Remaining
from controlplane.gateway.engines import Engines, Party, passed_on
from controlplane.gateway.live import LiveRequests, RequestKey
from controlplane.gateway.locating import Locating
from controlplane.gateway.lookup import Lookup
from controlplane.gateway.opened import Opened, Opener, is_lost
from controlplane.gateway.outlet import Outlet, Stalled
from controlplane.gateway.placing import Placing
from controlplane.gateway.record import Request
from controlplane.gateway.router import Router
from controlplane.gateway.stream import RequestStream
from controlplane.model import Route, Routes
from roundhouse.internal.hops import REQUEST_ID_KEY
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import RoundhouseError
from roundhouse.kit.latest import Latest
from roundhouse.kit.status import error_of
from roundhouse.kit.tasks import Background
from roundhouse.v1 import errors_pb2, generation_pb2, inference_service_pb2, receipt_pb2

log = structlog.get_logger()

_LOST = (errors_pb2.ERROR_REASON_ENGINE_LOST, errors_pb2.ERROR_REASON_DRAINING)
Run = Callable[[RequestStream, Continuing, Outlet], Coroutine[Any, Any, None]]
_DETACH = generation_pb2.DISCONNECT_POLICY_DETACH


class Relay:
    """Relays requests for one gateway."""

    def __init__(
        self,
        routes: Latest[Routes],
        engines: Engines,
        live: LiveRequests,
        router: Router,
        canceller: Canceller,
        lookup: Lookup,
        admission: Admission,
        clock: Clock,
        *,
        leaving: Background,
        keeping: Background,
    ) -> None:
        """leaving: tells engines of clients that left. keeping: goes on with requests that their clients have left."""
        self._routes, self._engines, self._live, self._clock = routes, engines, live, clock
        self._router, self._canceller, self._lookup = router, canceller, lookup
        self._admission, self._leaving, self._keeping = admission, leaving, keeping
        self._is_ending = False

    def end(self) -> None:
        """Says that this gateway is about to end: requests that lose it are left for another one to take up."""
        self._is_ending = True

    async def start(self, key: RequestKey, method: str, request: Request, context: Any) -> None:
        """Streams the answer of a replica to the client once it is its turn, and of another one if that is lost.

        The id of a request that this gateway relays leads to the engine that has it; that one knows if it is the same.
        However the client leaves, the engine is told.
        """
        is_detached = request.options.on_disconnect.policy == _DETACH
        remaining_s = _unbounded if is_detached else context.time_remaining
        opener = self._opener(key, context)
        placing = Placing(self._routes.get, opener, remaining_s)

        async def run(stream: RequestStream, continuing: Continuing, outlet: Outlet) -> None:
            is_placed_by_another = self._live.is_being_placed(key)
            there = await self._live.claim(key)
            if there is not None:
                await stream.run(lambda: self._join(opener, there, method, request, remaining_s), continuing.find)
                return
            placing.is_begun = True
            try:
                cancelled = self._cancelled(key) if is_placed_by_another else None
                if cancelled is not None:
                    await _tell_withdrawn(outlet, cancelled, 0.0, request)
                else:
                    await self._start(placing, request, method, stream, continuing, outlet, remaining_s)
            finally:
                self._live.release(key)

        alone_s = ttl_of(request.options.on_disconnect) if is_detached else None
        is_new = not self._live.is_live(key)
        await self._serve(opener, run, context, remaining_s, is_new=is_new, alone_s=alone_s, placing=placing)

    async def _start(
        self,
        placing: Placing,
        request: Request,
        method: str,
        stream: RequestStream,
        continuing: Continuing,
        outlet: Outlet,
        remaining_s: Remaining,
    ) -> None:
        """Streams a request that no engine has, once it is its turn."""
        placing.require()
        key, asked = placing.opener.key, asked_of(request)
        ticket = self._admission.admitted(
            key,
            cost_of(request),
            tenant=placing.opener.party.tenant,
            priority=request.options.priority,
            deadline_s=deadline_of(request, remaining_s()),
        )
        try:
            async with ticket:
                shorten(request, ticket.waited_s)
                body = request.SerializeToString()
                await stream.run(lambda: placing.open(method, body, asked), continuing.find, ticket.spent)
        except Withdrawn as ended:
            await _tell_withdrawn(outlet, ended.receipt, ticket.waited_s, request)

    async def _join(
        self, opener: Opener, route: Route, method: str, request: Request, remaining_s: Remaining
    ) -> Opened:
        """Has the engine that has a request say whether it is this one, and follows it there or where it has gone."""
        try:
            return await opener.open(route, method, request.SerializeToString(), attempt=1, timeout_s=remaining_s())
        except grpc.RpcError as error:
            if not is_lost(error, error_of(error)):
                raise
        target = inference_service_pb2.AttachRequest(deployment=opener.key.deployment, request_id=opener.key.request_id)
        return await Locating(opener, self._live, self._lookup, self._clock).open(target)

    async def attach(self, key: RequestKey, request: inference_service_pb2.AttachRequest, context: Any) -> None:
        """Streams a request from where it is, behind what its client has."""
        opener = self._opener(key, context)
        locating = Locating(opener, self._live, self._lookup, self._clock)

        async def run(stream: RequestStream, continuing: Continuing, outlet: Outlet) -> None:
            is_placed_by_another = self._live.is_being_placed(key)
            await self._live.placed(key)  # it may be waiting for its turn here
            cancelled = self._cancelled(key) if is_placed_by_another else None
            if cancelled is not None:
                await _tell_withdrawn(outlet, cancelled, 0.0)
                return
            await stream.run(lambda: locating.open(request), continuing.find)

        await self._serve(opener, run, context, _unbounded, is_new=False, alone_s=None)

    async def _serve(
        self,
        opener: Opener,
        run: Run,
        context: Any,
        remaining_s: Remaining,
        *,
        is_new: bool,
        alone_s: float | None,
        placing: Placing | None = None,
    ) -> None:
        """alone_s: how long the request may wait for its turn once its client has left; None if not at all.

        placing: what finds it a place, if it may have none.
        """
        key, outlet = opener.key, Outlet(context)
        stream = RequestStream(outlet, self._clock.monotonic, opener.judge)
        continuing = Continuing(self._routes, self._live, opener, self._clock, remaining_s)
        with contextlib.ExitStack() as held:
            held.enter_context(self._live.keep(key, is_new=is_new))
            work = self._run(key, stream, outlet, run(stream, continuing, outlet))
            running = asyncio.create_task(work, name=f"relay {key.request_id}")
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                outlet.close()
                if (alone_s is not None or stream.policy == _DETACH) and not self._is_ending:
                    opener.when_left = lambda route: self._leave(opener, route)
                    work = self._kept(key, running, held.pop_all(), alone_s, placing)
                    self._keeping.start(work, name=f"keep {key.request_id}")
                    self._leave(opener, self._live.where(key))
                    raise
                bound_s = remaining_s()  # the engine keeps the same deadline itself
                has_left = not self._is_ending and (bound_s is None or bound_s > DEADLINE_TOLERANCE_S)
                if has_left and self._waits(key, placing):
                    work = self._lent(opener, running, held.pop_all())
                    self._keeping.start(work, name=f"keep {key.request_id} for others")
                    raise
                running.cancel()
                if has_left:
                    self._leave(opener, self._live.where(key))
                await asyncio.wait([running])
                raise
            try:
                running.result()
            except Stalled:
                self._leave(opener, self._live.where(key))
                raise

    async def _run(
        self, key: RequestKey, stream: RequestStream, outlet: Outlet, work: Coroutine[Any, Any, None]
    ) -> None:
        try:
            await work
            await outlet.flush()
        except RoundhouseError as error:
            if error.own_reason in _LOST and stream.route is not None:
                self._live.lose(key, stream.route)
            raise

    async def _kept(
        self,
        key: RequestKey,
        running: asyncio.Task[None],
        held: contextlib.ExitStack,
        alone_s: float | None,
        placing: Placing | None,
    ) -> None:
        """Waits for the end of a request that its client has left, and holds what it holds until then.

        Where it runs, its engine keeps the time that it has alone; where it waits, nobody else does.
        """
        with held:
            try:
                await asyncio.wait([running], timeout=alone_s)
                if self._waits(key, placing) and not running.done():
                    await self._outlast(key, running, until_placed=True)
                if self._live.where(key) is not None or running.done():
                    await running
            except (grpc.RpcError, RoundhouseError) as error:
                log.info("a request that was left by its client has failed", error=str(error))
            finally:
                running.cancel()
                await asyncio.wait([running])

    async def _lent(self, opener: Opener, running: asyncio.Task[None], held: contextlib.ExitStack) -> None:
        """Goes on with a request that waits for its turn, for others who follow it: its own client has left.

        Also when it runs, until those have left: were it told to its engine before they are there, that would end it.
        """
        with held:
            try:
                await self._outlast(opener.key, running, until_placed=False)
                if running.done():
                    await running
                else:
                    self._leave(opener, self._live.where(opener.key))
            except (grpc.RpcError, RoundhouseError) as error:
                log.info("a request that went on for others has failed", error=str(error))
            finally:
                running.cancel()
                await asyncio.wait([running])

    async def _outlast(self, key: RequestKey, running: asyncio.Task[None], *, until_placed: bool) -> None:
        """Waits until a request has ended or nobody else wants it any more, or until it has a place."""
        with self._live.lapsing(key):
            waiting = [asyncio.create_task(self._live.unwanted(key), name=f"unwanted {key.request_id}")]
            if until_placed:
                waiting.append(asyncio.create_task(self._live.placed(key), name=f"placed {key.request_id}"))
            try:
                await asyncio.wait([running, *waiting], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in waiting:
                    each.cancel()

    def _waits(self, key: RequestKey, placing: Placing | None) -> bool:
        """Tells whether it is this call of a request that waits for its turn."""
        return placing is not None and placing.is_begun and self._live.where(key) is None

    def _cancelled(self, key: RequestKey) -> receipt_pb2.CancelReceipt | None:
        """Returns the receipt of a request that was cancelled here while it waited, by its caller's own word."""
        unserved = self._admission.receipt(key)
        return unserved if unserved is not None and unserved.cause == receipt_pb2.CANCEL_CAUSE_CLIENT else None

    def _leave(self, opener: Opener, route: Route | None) -> None:
        if route is not None:
            work = self._canceller.leave(opener.key, route, opener.party)
            self._leaving.start(work, name=f"leave {opener.key.request_id}")

    def _opener(self, key: RequestKey, context: Any) -> Opener:
        passed = passed_on(context.invocation_metadata())
        party = Party(key.principal, caller().tenant, follower=uuid.uuid4().hex, passed=passed)
        return Opener(self._engines, self._live, self._router, key, party)


async def _tell_withdrawn(
    outlet: Outlet, receipt: receipt_pb2.CancelReceipt, waited_s: float, request: Request | None = None
) -> None:
    """request: what was asked; if that is not known here, all choices are told that were to be computed."""
    outlet.begin([(REQUEST_ID_KEY, receipt.request_id)])
    await outlet.put(withdrawn(receipt, waited_s, request))


def _unbounded() -> None:
    """Says that no deadline of a call bounds the request."""
