"""Serves `FleetService`: gateways in processes of their own follow the routes here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from controlplane import feed
from controlplane.api.paging import fitting
from controlplane.auth.known import Known, callers_message
from controlplane.model import Routes
from roundhouse.internal.v1.fleet_service_pb2 import RoutesEvent, WatchRoutesRequest, WatchRoutesResponse
from roundhouse.kit.latest import Latest, first_of
from roundhouse.kit.pace import Pace
from roundhouse.v1.watch_pb2 import Bookmark

log = structlog.get_logger()

BEAT_S = 2.0  # three misses, and a gateway calls again
_MOST = 1000  # deployments in one message
_UNTOLD: Any = object()  # what a gateway knows at first of those who may call
# A deployment of a thousand replicas takes 150 kB, and every report changes one of them.
_PACE = Pace(most_fraction=0.05, cap_s=1.0)


class FleetApi:
    """The methods of `FleetService`.

    known: whom the control plane knows by their tokens; None if nobody is asked. count_gateways: is told how many
    gateways there are, the one in this process among them, whenever that changes.
    """

    def __init__(
        self,
        routes: Latest[Routes],
        known: Latest[Known] | None = None,
        *,
        count_gateways: Callable[[int], None] = lambda _: None,
        beat_s: float = BEAT_S,
    ) -> None:
        self._routes, self._known, self._beat_s = routes, known, beat_s
        self._count_gateways = count_gateways
        self._gateway_count = 1

    async def WatchRoutes(self, request: WatchRoutesRequest, context: Any) -> None:
        """Streams the routes, and who may call, at the pace of the gateway that reads them."""
        log.info("gateway connected", gateway=request.gateway_id)
        self._count(+1)
        try:
            await self._stream(context)
        finally:
            self._count(-1)
            log.info("gateway disconnected", gateway=request.gateway_id)

    def _count(self, change: int) -> None:
        self._gateway_count += change
        self._count_gateways(self._gateway_count)

    async def _stream(self, context: Any) -> None:
        now_s = asyncio.get_running_loop().time
        sources: list[Latest[Any]] = [self._routes, *([self._known] if self._known else [])]
        told, told_known = Routes({}), _UNTOLD
        while True:
            newer = [each.newer() for each in sources]
            routes, known = self._routes.get(), self._known.get() if self._known else None
            if routes.is_current:  # else this process has just started, and does not know what is stored
                begin_s = now_s()
                events = [*feed.changes(told, routes), RoutesEvent(bookmark=Bookmark())]
                if told_known != known:
                    events.insert(0, RoutesEvent(callers=callers_message(known)))
                worked_s = now_s() - begin_s
                await _write(context, events)
                told, told_known = routes, known
                await asyncio.sleep(_PACE.rest_s(worked_s))
            await first_of(newer, most_s=self._beat_s)


async def _write(context: Any, events: Sequence[RoutesEvent]) -> None:
    sent_count = 0
    while sent_count < len(events):
        part = list(fitting(events[sent_count : sent_count + _MOST], _MOST))
        await context.write(WatchRoutesResponse(events=part))
        sent_count += len(part)
