"""Finds the engine that goes on with a request whose engine is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from itertools import count

import grpc

from controlplane.gateway.live import Break, LiveRequests
from controlplane.gateway.opened import Opened, Opener, is_lost
from controlplane.gateway.search import Search, Terms
from controlplane.gateway.stream import Lost, Tombstoned
from controlplane.model import Route, Routes
from roundhouse.kit.backoff import Backoff
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import DeadlineExceeded
from roundhouse.kit.latest import Latest, first_of
from roundhouse.kit.status import error_of
from roundhouse.v1 import errors_pb2, inference_service_pb2

PATIENCE_S = 60.0  # an engine that died is back by then, if its model is not large
SHORT_PATIENCE_S = 5.0  # while there are replicas, and all that could be asked compute something else
# From one round, in which all are asked, to the next. Not less often: an engine ends an orphan after 10 s.
AGAIN = Backoff(first_s=0.25, cap_s=2.0, jitter=0.5)
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
        search = Search(lost, self._opener.key.request_id, self._clock.monotonic())
        record = lost.record
        at = Break(lost.route, lost.attempt, record.reached(), record.prompt_token_count)
        with self._live.between(self._opener.key, at) as withdrawn:
            opened = await self._after(lost) if lost.is_drained else None
            for attempt in count():
                opened = opened or await self._rounds(search, withdrawn, AGAIN.delay_s(attempt, random.random()))
                if opened is not None or withdrawn.is_set():
                    break
                search.begin_round()
        if withdrawn.is_set():
            if opened is not None:
                await opened.close()
            raise Tombstoned
        assert opened is not None
        return opened

    async def _rounds(self, search: Search, withdrawn: asyncio.Event, pause_s: float) -> Opened | None:
        """Asks everybody once, and then, for a while, whoever becomes ready. Raises what ends the search."""
        newer = self._routes.newer()
        opened = await self._round(search)
        until_s = self._clock.monotonic() + pause_s
        while opened is None and not withdrawn.is_set():
            left_s = min(self._left_s(search), until_s - self._clock.monotonic())
            if left_s <= 0:
                return None
            await first_of([newer, withdrawn], most_s=left_s)
            newer = self._routes.newer()
            if self._present() is not search.seen and not withdrawn.is_set():
                opened = await self._round(search)
        return opened

    def _left_s(self, search: Search) -> float:
        """Returns for how long the search may go on; raises what ends it if that is over."""
        lost, now_s = search.lost, self._clock.monotonic()
        left_s = lost.record.left_s(now_s)
        if left_s is not None and left_s <= 0:
            raise DeadlineExceeded("the deadline passed while no engine had the request: allow more time")
        patience_s = SHORT_PATIENCE_S if search.is_hopeless(self._present()) else PATIENCE_S
        if now_s - search.began_s >= patience_s or not self._is_wanted():
            raise lost.error
        patience_s -= now_s - search.began_s
        return patience_s if left_s is None else min(left_s, patience_s)

    async def _round(self, search: Search) -> Opened | None:
        """Asks whoever is due, the engine itself first: if it lives, it was the way to it that was lost."""
        lost, present = search.lost, self._present()
        search.see(present)
        is_there = any(each.engine_uuid == search.own for each in present)
        if is_there and not lost.is_drained and not search.is_own_tried:
            search.is_own_tried = True
            opened = await self._attach(lost, lost.route, SAME_S)
            if opened is not None:
                return opened
        for terms in search.terms:
            for route in self._order(search, terms):
                opened = await self._try(search, terms, route)
                if opened is not None:
                    return opened
        return None

    async def _after(self, lost: Lost) -> Opened | None:
        """Follows the next run of the request, if it was for that one that its engine has given this one up."""
        opened = await self._attach(lost, lost.route, SAME_S)
        if opened is not None and opened.run_attempt <= lost.attempt:
            await opened.close()
            return None
        return opened

    async def _try(self, search: Search, terms: Terms, route: Route) -> Opened | None:
        """Returns the stream; None if the engine cannot go on with it, or not now."""
        try:
            return await self._ask(search, terms, route)
        except grpc.RpcError as error:
            ours = error_of(error)
            if ours.own_reason == errors_pb2.ERROR_REASON_FINGERPRINT_DIFFERS:
                terms.differing.add(route.engine_uuid)
            elif ours.own_reason != errors_pb2.ERROR_REASON_QUEUE_FULL and not is_lost(error, ours):
                raise
            return None

    async def _ask(self, search: Search, terms: Terms, route: Route) -> Opened | None:
        lost = search.lost
        try:
            return await self._open(search, terms, route, lost.attempt + 1)
        except grpc.RpcError as error:
            reason = error_of(error).own_reason
            if reason == errors_pb2.ERROR_REASON_REQUEST_TOMBSTONED:
                raise Tombstoned from error
            if reason != errors_pb2.ERROR_REASON_REQUEST_EXISTS:
                raise
        # Another stream of it came first. Where that one does not have what this one lacks, it follows this one.
        return await self._attach(lost, route, THERE_S) or await self._open(search, terms, route, lost.attempt + 2)

    async def _open(self, search: Search, terms: Terms, route: Route, attempt: int) -> Opened:
        record = search.lost.record
        return await self._opener.open(
            route,
            record.method,
            search.body(terms, self._clock.monotonic()),
            attempt=attempt,
            timeout_s=self._remaining_s(),
            asked=search.asked(terms),
            words=record.words,
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

    def _order(self, search: Search, terms: Terms) -> Iterator[Route]:
        """Yields whom to ask: two gateways that know the same of the fleet ask in the same order."""
        own = search.own
        while any(terms.is_due(each) for each in search.ready(self._present()) if each.engine_uuid != own):
            passed_over = terms.tried | terms.differing | {own}
            route = self._opener.router.pick(self._opener.key.deployment, search.asked(terms), passed_over)
            if route is None:
                break
            terms.tried.add(route.engine_uuid)
            yield route
        # The engine itself goes last, if it lives after all and it was the way to it that was lost.
        for route in search.ready(self._present()):
            if route.engine_uuid == own and terms.is_due(route):
                terms.tried.add(own)
                yield route

    def _present(self) -> tuple[Route, ...]:
        return self._routes.get().replicas.get(self._opener.key.deployment, ())

    def _is_wanted(self) -> bool:
        routes, deployment = self._routes.get(), self._opener.key.deployment
        return not routes.is_current or (deployment in routes.replicas and deployment not in routes.deleting)
