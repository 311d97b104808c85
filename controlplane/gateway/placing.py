"""Gives a request to a replica that takes it."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import structlog

from controlplane.gateway.live import RequestKey
from controlplane.gateway.opened import Opened, Opener, is_lost
from controlplane.gateway.routing.asked import Asked
from controlplane.gateway.whereabouts import name
from controlplane.model import Route, Routes
from roundhouse.kit.errors import NotFound, NotReady, Resource, RoundhouseError, Unreachable
from roundhouse.kit.status import error_of
from roundhouse.v1 import errors_pb2

log = structlog.get_logger()

MAX_ATTEMPTS = 3  # before the first token; a fleet of which three replicas just died is better told of
RETRY_AFTER_S = 1.0  # agents report every second


class Placing:
    """Finds an engine for one request that none has yet."""

    def __init__(
        self,
        routes: Callable[[], Routes],
        opener: Opener,
        remaining_s: Callable[[], float | None],
    ) -> None:
        self._routes, self.opener, self._remaining_s = routes, opener, remaining_s
        self.is_begun = False  # it is this call that finds the request its place, and not another one of the same id

    async def open(self, method: str, body: bytes, asked: Asked) -> Opened:
        """Returns the stream of a replica that took the request.

        asked: what of `body` decides which. A replica that turns out to be gone is replaced by another one, as far as
        retries are left. Raises what refuses the request itself.
        """
        tried: set[str] = set()
        for attempt in range(1, MAX_ATTEMPTS + 1):
            route = self._pick(asked, tried)
            tried.add(route.engine_uuid)
            try:
                return await self.opener.open(
                    route,
                    method,
                    body,
                    attempt=attempt,
                    timeout_s=self._remaining_s(),
                    asked=asked,
                )
            except grpc.RpcError as error:
                if not is_lost(error, error_of(error)):
                    raise
                log.warning(
                    "engine takes no requests",
                    replica=name(route.deployment, route.index),
                    engine=route.engine_uuid,
                    request_id=self.opener.key.request_id,
                )
                if attempt == MAX_ATTEMPTS or not self.opener.router.may_retry(route.deployment):
                    raise _untaken(self.opener.key) from error
        raise AssertionError("unreachable")

    def require(self) -> None:
        """Raises unless a replica of the deployment is ready: else there is nothing to wait for."""
        deployment, routes = self.opener.key.deployment, self._routes()
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

    def _pick(self, asked: Asked, tried: set[str]) -> Route:
        self.require()
        deployment = self.opener.key.deployment
        route = self.opener.router.pick(deployment, asked, tried)
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


def _unready(deployment: str) -> Unreachable:
    return Unreachable(
        f'deployment "{deployment}" has no ready replica: wait for one, ListReplicas says what they are doing',
        reason=errors_pb2.ERROR_REASON_NO_READY_REPLICA,
        retry_after_s=RETRY_AFTER_S,
    )


def _untaken(key: RequestKey) -> Unreachable:
    return Unreachable(
        f'replicas of deployment "{key.deployment}" did not take the request, one after another: try again',
        reason=errors_pb2.ERROR_REASON_NO_READY_REPLICA,
        retry_after_s=RETRY_AFTER_S,
    )
