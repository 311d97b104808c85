"""Tells over `grpc.health.v1` what serves. Every watcher follows by itself: one that leaves takes nothing along.

The servicer of grpcio-health-checking drops what its other watchers wait on as soon as one of them leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2

from roundhouse.kit.latest import Latest
from roundhouse.kit.service import Context, Service

_messages: Any = health_pb2  # only newer versions of grpcio-health-checking describe `List` and its messages
_status = health_pb2.HealthCheckResponse
_DESCRIPTOR: ServiceDescriptor = _messages.DESCRIPTOR.services_by_name["Health"]


class Health:
    """What is known of each service by its full name; the server as a whole has the empty name."""

    def __init__(self) -> None:
        self._statuses: Latest[Mapping[str, int]] = Latest({})
        self._has_ended = False

    def set(self, service: str, is_serving: bool) -> None:
        """Makes a service known, or says anew whether it serves. After `end` it does nothing."""
        status, known = _status.SERVING if is_serving else _status.NOT_SERVING, self._statuses.get()
        if not self._has_ended and known.get(service) != status:  # else watchers would be woken for nothing
            self._statuses.set({**known, service: status})

    def end(self) -> None:
        """Says of every service, for good, that it does not serve."""
        self._has_ended = True
        self._statuses.set(dict.fromkeys(self._statuses.get(), _status.NOT_SERVING))

    def service(self) -> Service:
        """Returns what a server registers."""
        return Service(_DESCRIPTOR, self)

    async def Check(self, request: Any, context: Context) -> Any:  # noqa: N802 - named by the contract
        """Answers at once; NOT_FOUND for a service that is not known."""
        status = self._statuses.get().get(request.service)
        if status is None:  # the name is not quoted: trailing metadata has less room than a name may take
            await context.abort(grpc.StatusCode.NOT_FOUND, "this server has no such service: ask its reflection")
        return _status(status=status)

    async def Watch(self, request: Any, context: Context) -> None:  # noqa: N802 - named by the contract
        """Writes at once and whenever it changed; a service that is not known may become so. Never ends by itself."""
        told = None
        async for statuses in self._statuses.watch():
            status = statuses.get(request.service, _status.SERVICE_UNKNOWN)
            if status != told:
                await context.write(_status(status=status))
                told = status

    async def List(self, request: Any, context: Context) -> Any:  # noqa: ARG002, N802 - named by the contract
        """Answers with all at once. Called only where the descriptor has it."""
        statuses = {name: _status(status=status) for name, status in self._statuses.get().items()}
        return _messages.HealthListResponse(statuses=statuses)
