"""The requests that this gateway keeps: where each one runs, and which were lost with their engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from controlplane.gateway.pick import Flight
from controlplane.model import Route
from roundhouse.kit.clock import Clock

# An engine that took no request, or was lost with one, is asked last for so long. Reports say within seconds that it is
# gone; where none arrive, as when the control plane is away, every request would try first where nobody answers.
SHUNNED_S = 5.0
LOST_KEPT = 10_000  # as many as an engine keeps receipts


@dataclass(frozen=True, slots=True)
class RequestKey:
    """What names a request: the same id of another principal, or at another deployment, is another request."""

    principal: str
    deployment: str
    request_id: str


class _Kept:
    """A request that is relayed, to one client or several."""

    def __init__(self) -> None:
        self.follower_count = 0
        self.route: Route | None = None
        self.placed = asyncio.Event()


class LiveRequests:
    """Requests being relayed and the engines they are at. One writer: the gateway's event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.flights: dict[str, Flight] = {}
        self._shunned: dict[str, float] = {}  # until when, by engine uuid
        self._kept: dict[RequestKey, _Kept] = {}
        self._lost: OrderedDict[RequestKey, Route] = OrderedDict()
        self._picks = 0

    @contextlib.contextmanager
    def keep(self, key: RequestKey, *, is_new: bool) -> Iterator[None]:
        """Keeps a request for the block, beside whoever else follows it."""
        kept = self._kept.setdefault(key, _Kept())
        kept.follower_count += 1
        if is_new:
            self._lost.pop(key, None)  # the id names another request from now on
        try:
            yield
        finally:
            kept.follower_count -= 1
            if not kept.follower_count:
                del self._kept[key]
            kept.placed.set()  # whoever waits for that learns that it is not

    @contextlib.contextmanager
    def at(self, key: RequestKey, route: Route) -> Iterator[None]:
        """Notes that a kept request is at `route` for the block."""
        self._picks += 1
        kept = self._kept[key]
        kept.route = route
        kept.placed.set()
        self._fly(route, +1, self._picks)
        try:
            yield
        finally:
            self._fly(route, -1, self.flights[route.engine_uuid].last_pick)

    async def placed(self, key: RequestKey) -> Route | None:
        """Returns where a request is that others of this gateway follow; None if there is none."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        await kept.placed.wait()
        return kept.route if key in self._kept else None

    def where(self, key: RequestKey) -> Route | None:
        """Returns where a request is now, or was when its engine was lost."""
        kept = self._kept.get(key)
        return (None if kept is None else kept.route) or self._lost.get(key)

    def is_live(self, key: RequestKey) -> bool:
        """Tells whether the request is being relayed."""
        return key in self._kept

    def addresses(self) -> frozenset[str]:
        """Returns the addresses of the engines that have a request of this gateway."""
        return frozenset(kept.route.address for kept in self._kept.values() if kept.route is not None)

    def lose(self, key: RequestKey, route: Route) -> None:
        """Notes that the request ended with its engine; the newest 10,000 are remembered."""
        self._lost[key] = route
        while len(self._lost) > LOST_KEPT:
            self._lost.popitem(last=False)

    def shun(self, route: Route) -> None:
        """Notes that an engine did not take a request, or was lost with one."""
        self._shunned[route.engine_uuid] = self._clock.monotonic() + SHUNNED_S

    def shunned(self) -> frozenset[str]:
        """Returns the engines, by uuid, that are asked last for now."""
        now_s = self._clock.monotonic()
        for engine in [each for each, until_s in self._shunned.items() if until_s <= now_s]:
            del self._shunned[engine]
        return frozenset(self._shunned)

    def forget_engines(self, present: frozenset[str]) -> None:
        """Drops what is known of engines that are gone and have no request here."""
        for engine in [each for each, flight in self.flights.items() if each not in present and flight.count == 0]:
            del self.flights[engine]

    def _fly(self, route: Route, change: int, pick: int) -> None:
        flight = self.flights.get(route.engine_uuid, Flight())
        self.flights[route.engine_uuid] = Flight(flight.count + change, pick)
