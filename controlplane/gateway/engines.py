"""Calls to engines: one channel each, and on every call the metadata that proves for whom it is meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from controlplane.model import Route
from roundhouse.internal.hops import HOP_KEY
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.channel import open_channel
from roundhouse.v1 import inference_service_pb2, receipt_pb2

_SERVICE = "/roundhouse.v1.InferenceService/"
# Of a client's metadata, what is the transport's own or ours to set does not travel on.
_OWN_PREFIXES = ("roundhouse-", "grpc-", ":")
_OWN_KEYS = frozenset({"user-agent", "te", "content-type", "authorization"})

Metadata = Sequence[tuple[str, str | bytes]]


class Engines:
    """Channels to engines, by address."""

    def __init__(self, gateway_id: str) -> None:
        self._gateway_id = gateway_id
        self._channels: dict[str, grpc.aio.Channel] = {}

    def stream(
        self,
        route: Route,
        method: str,
        body: bytes,
        *,
        principal: str,
        tenant: str,
        attempt: int,
        timeout_s: float | None,
        passed: Metadata,
    ) -> grpc.aio.UnaryStreamCall[bytes, bytes]:
        """Starts `Generate` or `Chat` at an engine; requests and responses stay bytes."""
        call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel(route).unary_stream(_SERVICE + method)
        return call(
            body, timeout=timeout_s, metadata=[*passed, self._hop(route, principal, tenant=tenant, attempt=attempt)]
        )

    async def cancel(
        self,
        route: Route,
        request: inference_service_pb2.CancelRequestRequest,
        *,
        principal: str,
        cause: receipt_pb2.CancelCause,
        timeout_s: float,
    ) -> inference_service_pb2.CancelRequestResponse:
        """Cancels a request at an engine; raises grpc.RpcError if the engine does not answer."""
        call: grpc.aio.UnaryUnaryMultiCallable[Any, inference_service_pb2.CancelRequestResponse]
        call = self._channel(route).unary_unary(
            _SERVICE + "CancelRequest",
            request_serializer=inference_service_pb2.CancelRequestRequest.SerializeToString,
            response_deserializer=inference_service_pb2.CancelRequestResponse.FromString,
        )
        return await call(request, timeout=timeout_s, metadata=[self._hop(route, principal, cause=cause)])

    async def keep_only(self, addresses: frozenset[str]) -> None:
        """Closes the channels to all other addresses."""
        # All at once: while one is being closed, a call may begin on another.
        closing = [self._channels.pop(each) for each in tuple(self._channels) if each not in addresses]
        for channel in closing:
            await channel.close()

    def _channel(self, route: Route) -> grpc.aio.Channel:
        if route.address not in self._channels:
            self._channels[route.address] = open_channel(route.address)
        return self._channels[route.address]

    def _hop(
        self,
        route: Route,
        principal: str,
        *,
        tenant: str = "",
        attempt: int = 0,
        cause: receipt_pb2.CancelCause | None = None,
    ) -> tuple[str, bytes]:
        hop = hop_pb2.Hop(
            engine_uuid=route.engine_uuid,
            engine_key=route.engine_key,
            principal=principal,
            tenant=tenant,
            attempt=attempt,
            keeper=self._gateway_id,
            cancel_cause=cause,
        )
        return HOP_KEY, hop.SerializeToString()


def passed_on(metadata: Metadata | None) -> Metadata:
    """Returns what of a client's metadata travels on to the engine."""
    return [(key, value) for key, value in metadata or () if not key.startswith(_OWN_PREFIXES) and key not in _OWN_KEYS]
