"""Finds the engine that goes on with a request whose engine is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace

import grpc

from controlplane.gateway.asking import asked_of
from controlplane.gateway.live import LiveRequests
from controlplane.gateway.opened import Opened, Opener, is_lost
from controlplane.gateway.record import Request
from controlplane.gateway.routing.asked import Asked
from controlplane.gateway.stream import Lost, Tombstoned
from controlplane.model import Route, Routes
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import DeadlineExceeded
from roundhouse.kit.latest import Latest, first_of
from roundhouse.kit.status import error_of
from roundhouse.v1 import errors_pb2, generation_pb2, inference_service_pb2

PATIENCE_S = 60.0  # an engine that died is back by then, if its model is not large
SHORT_PATIENCE_S = 5.0  # while there are replicas, and all that could be asked compute something else
AGAIN_S = 0.25
SAME_S = 1.0  # for the engine itself to answer, if it was only the connection that broke
THERE_S = 30.0  # for one that has begun with it just now, and computes what was told already

Remaining = Callable[[], float | None]


class Continuing:
    """Goes on with one request at other engines."""

    def __init__(
        self, routes: Latest[Routes], live: LiveRequests, opener: Opener, clock: Clock, remaining_s: Remaining
    ) -> None:
        """remaining_s: until the call's deadline, where that bounds the request."""
        self._routes, self._live, self._opener = routes, live, opener
        self._clock, self._remaining_s = clock, remaining_s

    async def find(self, lost: Lost) -> Opened:
        """Returns the stream that goes on. Raises Tombstoned, or the error of the loss if nobody goes on in time."""
        began_s = self._clock.monotonic()
        with self._live.between(self._opener.key) as withdrawn:
            if lost.is_drained and (opened := await self._after(lost)) is not None:
                return opened
            while True:
                newer = self._routes.newer()
                opened, differ = await self._round(lost)
                if withdrawn.is_set():
                    if opened is not None:
                        await opened.close()
                    raise Tombstoned
                if opened is not None:
                    return opened
                self._check_time(lost, began_s, SHORT_PATIENCE_S if differ else PATIENCE_S)
                await first_of([newer, withdrawn], most_s=AGAIN_S)

    def _check_time(self, lost: Lost, began_s: float, patience_s: float) -> None:
        now_s = self._clock.monotonic()
        left_s = lost.record.left_s(now_s)
        if left_s is not None and left_s <= 0:
            raise DeadlineExceeded("the deadline passed while no engine had the request: allow more time")
        if now_s - began_s >= patience_s or not self._is_wanted():
            raise lost.error

    async def _round(self, lost: Lost) -> tuple[Opened | None, bool]:
        """Asks everybody once, the engine itself first: if it lives, it was the way to it that was lost."""
        is_there = any(each.engine_uuid == lost.route.engine_uuid for each in self._present())
        if is_there and not lost.is_drained:
            opened = await self._attach(lost, lost.route, SAME_S)
            if opened is not None:
                return opened, False
        return await self._ask_all(lost)

    async def _after(self, lost: Lost) -> Opened | None:
        """Follows the next run of the request, if it was for that one that its engine has given this one up."""
        opened = await self._attach(lost, lost.route, SAME_S)
        if opened is not None and opened.run_attempt <= lost.attempt:
            await opened.close()
            return None
        return opened

    async def _ask_all(self, lost: Lost) -> tuple[Opened | None, bool]:
        """Returns the stream, else whether there are engines that compute something else."""
        differ = False
        policies = [generation_pb2.FAILOVER_POLICY_EXACT_ONLY]
        if lost.record.options.failover == generation_pb2.FAILOVER_POLICY_APPROXIMATE_OK:
            policies.append(generation_pb2.FAILOVER_POLICY_APPROXIMATE_OK)  # only if nobody is equal
        for policy in policies:
            request = lost.record.resuming(policy, self._clock.monotonic())
            asked = replace(
                asked_of(request), fingerprint=lost.record.fingerprint, rendezvous_key=self._opener.key.request_id
            )
            for route in self._order(lost, asked):
                try:
                    opened = await self._ask(lost, route, request, asked)
                except grpc.RpcError as error:
                    ours = error_of(error)
                    differs = ours.own_reason == errors_pb2.ERROR_REASON_FINGERPRINT_DIFFERS
                    is_full = ours.own_reason == errors_pb2.ERROR_REASON_QUEUE_FULL
                    if not (differs or is_full or is_lost(error, ours)):
                        raise
                    differ = differ or differs
                else:
                    if opened is not None:
                        return opened, False
        return None, differ

    async def _ask(self, lost: Lost, route: Route, request: Request, asked: Asked) -> Opened | None:
        try:
            return await self._open(lost, route, request, asked, lost.attempt + 1)
        except grpc.RpcError as error:
            reason = error_of(error).own_reason
            if reason == errors_pb2.ERROR_REASON_REQUEST_TOMBSTONED:
                raise Tombstoned from error
            if reason != errors_pb2.ERROR_REASON_REQUEST_EXISTS:
                raise
        # Another stream of it came first. Where that one does not have what this one lacks, it follows this one.
        return await self._attach(lost, route, THERE_S) or await self._open(
            lost, route, request, asked, lost.attempt + 2
        )

    async def _open(self, lost: Lost, route: Route, request: Request, asked: Asked, attempt: int) -> Opened:
        return await self._opener.open(
            route,
            lost.record.method,
            request.SerializeToString(),
            attempt=attempt,
            timeout_s=self._remaining_s(),
            asked=asked,
            words=lost.record.words,
        )

    async def _attach(self, lost: Lost, route: Route, most_s: float) -> Opened | None:
        """Follows the run that an engine has, if it has one of this very request."""
        key = self._opener.key
        request = inference_service_pb2.AttachRequest(
            deployment=key.deployment, request_id=key.request_id, after=lost.record.positions()
        )
        try:
            async with asyncio.timeout(most_s):
                opened = await self._opener.open(
                    route,
                    "Attach",
                    request.SerializeToString(),
                    attempt=lost.attempt,
                    timeout_s=self._remaining_s(),
                )
        except (grpc.RpcError, TimeoutError):
            return None
        if opened.first is not None and lost.record.is_of(opened.first.kept):
            return opened
        await opened.close()
        return None

    def _order(self, lost: Lost, asked: Asked) -> Iterator[Route]:
        """Yields whom to ask: two gateways that know the same of the fleet ask in the same order."""
        deployment, own = self._opener.key.deployment, lost.route.engine_uuid
        tried = {own}
        while (route := self._opener.router.pick(deployment, asked, tried)) is not None:
            tried.add(route.engine_uuid)
            yield route
        # The engine itself goes last, if it lives after all and it was the way to it that was lost.
        if not lost.is_drained:
            yield from (each for each in self._present() if each.engine_uuid == own and each.is_ready)

    def _present(self) -> tuple[Route, ...]:
        return self._routes.get().replicas.get(self._opener.key.deployment, ())

    def _is_wanted(self) -> bool:
        routes, deployment = self._routes.get(), self._opener.key.deployment
        return not routes.is_current or (deployment in routes.replicas and deployment not in routes.deleting)
