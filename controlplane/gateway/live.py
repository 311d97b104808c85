"""The requests that this gateway keeps: where each one runs, and which were lost with their engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from controlplane.model import Route

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
    """Requests being relayed and where they are. One writer: the gateway's event loop."""

    def __init__(self) -> None:
        self._kept: dict[RequestKey, _Kept] = {}
        self._lost: OrderedDict[RequestKey, Route] = OrderedDict()

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

    def move(self, key: RequestKey, route: Route) -> None:
        """Notes that a kept request is at `route` from now on."""
        kept = self._kept[key]
        kept.route = route
        kept.placed.set()

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
