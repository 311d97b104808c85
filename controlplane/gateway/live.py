"""The requests that this gateway keeps: where each one runs, and which were lost with their engine."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from controlplane.model import Route
from roundhouse.kit.errors import AlreadyExists
from roundhouse.v1 import errors_pb2

LOST_KEPT = 10_000  # as many as an engine keeps receipts


@dataclass(frozen=True, slots=True)
class RequestKey:
    """What names a request: the same id of another principal, or at another deployment, is another request."""

    principal: str
    deployment: str
    request_id: str


class LiveRequests:
    """Requests being relayed and where they are. One writer: the gateway's event loop."""

    def __init__(self) -> None:
        self._routes: dict[RequestKey, Route | None] = {}
        self._lost: OrderedDict[RequestKey, Route] = OrderedDict()

    @contextlib.contextmanager
    def keep(self, key: RequestKey) -> Iterator[None]:
        """Keeps a request for the block; raises AlreadyExists if its id is in use."""
        if key in self._routes:
            raise AlreadyExists(
                f'request "{key.request_id}" is running at deployment "{key.deployment}": '
                "choose another request_id, or leave it empty",
                reason=errors_pb2.ERROR_REASON_REQUEST_EXISTS,
            )
        self._routes[key] = None
        self._lost.pop(key, None)  # the id names another request from now on
        try:
            yield
        finally:
            del self._routes[key]

    def move(self, key: RequestKey, route: Route) -> None:
        """Notes that a kept request is at `route` from now on."""
        self._routes[key] = route

    def where(self, key: RequestKey) -> Route | None:
        """Returns where a request is now, or was when its engine was lost."""
        return self._routes.get(key) or self._lost.get(key)

    def is_live(self, key: RequestKey) -> bool:
        """Tells whether the request is being relayed."""
        return key in self._routes

    def addresses(self) -> frozenset[str]:
        """Returns the addresses of the engines that have a request of this gateway."""
        return frozenset(route.address for route in self._routes.values() if route is not None)

    def lose(self, key: RequestKey, route: Route) -> None:
        """Notes that the request ended with its engine; the newest 10,000 are remembered."""
        self._lost[key] = route
        while len(self._lost) > LOST_KEPT:
            self._lost.popitem(last=False)
