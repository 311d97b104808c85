"""Calls to engines: one channel each, and on every call the metadata that proves for whom it is meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

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

# What an engine may send of a stream before it is read, in bytes: some tokens. While this gateway is behind, all that
# comes waits in the engine's outbox, which makes one message of it; a large window would fill with small ones.
# Probes of the bandwidth would widen it. A message that is larger has what it takes as soon as it is waited for.
_SMALL_WINDOW = (("grpc.http2.lookahead_bytes", 512), ("grpc.http2.bdp_probe", 0))

Metadata = Sequence[tuple[str, str | bytes]]
Stream = grpc.aio.UnaryStreamCall[bytes, bytes]
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Party:
    """On whose behalf an engine is called, and by which call."""

    principal: str
    tenant: str = ""
    follower: str = ""  # names the call among those that follow a request
    passed: Metadata = ()  # of the client's metadata, what travels on


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
        party: Party,
        *,
        attempt: int,
        timeout_s: float | None,
        words: bytes = b"",
    ) -> Stream:
        """Starts `Generate`, `Chat` or `Attach` at an engine; requests and responses stay bytes.

        words: of the first run, if this is not it.
        """
        call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel(route).unary_stream(_SERVICE + method)
        hop = self._hop(route, party)
        hop.attempt, hop.wants_kept, hop.words = attempt, True, words
        return call(body, timeout=timeout_s, metadata=[*party.passed, (HOP_KEY, hop.SerializeToString())])

    async def cancel(
        self,
        route: Route,
        request: inference_service_pb2.CancelRequestRequest,
        party: Party,
        *,
        cause: receipt_pb2.CancelCause,
        timeout_s: float,
    ) -> inference_service_pb2.CancelRequestResponse:
        """Cancels a request at an engine; raises grpc.RpcError if the engine does not answer."""
        hop = self._hop(route, party)
        hop.cancel_cause = cause
        answer: type[inference_service_pb2.CancelRequestResponse] = inference_service_pb2.CancelRequestResponse
        return await self._unary(route, "CancelRequest", request, answer, hop, timeout_s)

    async def deposit(
        self, route: Route, receipt: receipt_pb2.CancelReceipt, party: Party, *, timeout_s: float
    ) -> None:
        """Has an engine keep the receipt of a request that ended elsewhere; raises grpc.RpcError if it does not."""
        hop = self._hop(route, party)
        hop.unserved.CopyFrom(receipt)
        request = inference_service_pb2.CancelRequestRequest(
            deployment=receipt.deployment, request_id=receipt.request_id
        )
        await self._unary(route, "CancelRequest", request, inference_service_pb2.CancelRequestResponse, hop, timeout_s)

    async def get(
        self, route: Route, request: inference_service_pb2.GetRequestRequest, party: Party, *, timeout_s: float
    ) -> inference_service_pb2.GetRequestResponse:
        """Asks an engine for a request; raises grpc.RpcError if it does not have it, or does not answer."""
        hop = self._hop(route, party)
        return await self._unary(route, "GetRequest", request, inference_service_pb2.GetRequestResponse, hop, timeout_s)

    async def list(
        self, route: Route, request: inference_service_pb2.ListRequestsRequest, party: Party, *, timeout_s: float
    ) -> inference_service_pb2.ListRequestsResponse:
        """Asks an engine for its requests; raises grpc.RpcError if it does not answer."""
        hop = self._hop(route, party)
        return await self._unary(
            route, "ListRequests", request, inference_service_pb2.ListRequestsResponse, hop, timeout_s
        )

    async def keep_only(self, addresses: frozenset[str]) -> None:
        """Closes the channels to all other addresses."""
        # All at once: while one is being closed, a call may begin on another.
        closing = [self._channels.pop(each) for each in tuple(self._channels) if each not in addresses]
        for channel in closing:
            await channel.close()

    async def _unary(
        self, route: Route, method: str, request: Any, answer: type[Answer], hop: hop_pb2.Hop, timeout_s: float
    ) -> Answer:
        kind: Any = answer
        call: grpc.aio.UnaryUnaryMultiCallable[Any, Answer] = self._channel(route).unary_unary(
            _SERVICE + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=kind.FromString,
        )
        return await call(request, timeout=timeout_s, metadata=[(HOP_KEY, hop.SerializeToString())])

    def _channel(self, route: Route) -> grpc.aio.Channel:
        if route.address not in self._channels:
            self._channels[route.address] = open_channel(route.address, options=_SMALL_WINDOW)
        return self._channels[route.address]

    def _hop(self, route: Route, party: Party) -> hop_pb2.Hop:
        return hop_pb2.Hop(
            engine_uuid=route.engine_uuid,
            engine_key=route.engine_key,
            principal=party.principal,
            tenant=party.tenant,
            keeper=self._gateway_id,
            follower=party.follower,
        )


def passed_on(metadata: Metadata | None) -> Metadata:
    """Returns what of a client's metadata travels on to the engine."""
    return [(key, value) for key, value in metadata or () if not key.startswith(_OWN_PREFIXES) and key not in _OWN_KEYS]
