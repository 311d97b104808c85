"""Calls to one life of an engine. Each names the life and shows its key, so nothing else can be mistaken for it."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from roundhouse.internal.hops import HOP_KEY
from roundhouse.internal.v1 import engine_service_pb2, engine_service_pb2_grpc, hop_pb2
from roundhouse.kit.channel import open_channel
from roundhouse.kit.times import to_duration

_DRAIN_ANSWER_S = 2.0  # beyond the grace, for cancelling what is left and for the answer


class EngineCalls:
    """A channel to the engine at `address`, for as long as the block lasts."""

    def __init__(self, address: str, engine_uuid: str, key: bytes) -> None:
        self._channel = open_channel(address)
        self._stub = engine_service_pb2_grpc.EngineServiceStub(self._channel)
        hop = hop_pb2.Hop(engine_uuid=engine_uuid, engine_key=key)
        self._metadata = ((HOP_KEY, hop.SerializeToString()),)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def describe(self, timeout_s: float) -> engine_service_pb2.DescribeResponse:
        """Asks the engine who it is; waits for it to be reachable. Raises grpc.RpcError."""
        answer: engine_service_pb2.DescribeResponse = await self._stub.Describe(
            engine_service_pb2.DescribeRequest(), timeout=timeout_s, wait_for_ready=True, metadata=self._metadata
        )
        return answer

    def watch(self, period_s: float) -> Any:
        """Returns a call that streams the engine's status."""
        request = engine_service_pb2.WatchRequest(period=to_duration(period_s))
        return self._stub.Watch(request, metadata=self._metadata)

    async def drain(self, grace_s: float, *, hands_over: bool = False) -> engine_service_pb2.DrainResponse:
        """Returns once the engine has no request left, in little more than `grace_s`. Raises grpc.RpcError."""
        request = engine_service_pb2.DrainRequest(grace=to_duration(grace_s), hands_over=hands_over)
        answer: engine_service_pb2.DrainResponse = await self._stub.Drain(
            request, timeout=grace_s + _DRAIN_ANSWER_S, metadata=self._metadata
        )
        return answer
