"""Chooses the replica for a request. Pure: no clock, no I/O, no logging."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from controlplane.model import Route


@dataclass(frozen=True, slots=True)
class Flight:
    """What this gateway itself knows of an engine: its requests there now, and the number of its last pick."""

    count: int = 0
    last_pick: int = 0


_NONE = Flight()


def pick(
    routes: Iterable[Route],
    flights: Mapping[str, Flight],
    *,
    tried: Collection[str] = (),
    shunned: Collection[str] = (),
) -> Route | None:
    """Returns the least loaded ready replica that was not tried yet; None if there is none.

    `flights`, `tried` and `shunned` are by engine uuid. Those that are shunned go last. What this gateway has at an
    engine is exact, and counts first; what was reported is up to two seconds old and decides between equals, where a
    count that is stale is taken for any number; among equals still, the one picked longest ago goes first.
    """

    def load(route: Route) -> tuple[bool, int, float, int, str]:
        flight = flights.get(route.engine_uuid, _NONE)
        reported = math.inf if route.is_stale else route.running_count + route.waiting_count
        return route.engine_uuid in shunned, flight.count, reported, flight.last_pick, route.replica_uid

    ready = [each for each in routes if each.is_ready and each.engine_uuid not in tried]
    return min(ready, key=load, default=None)
