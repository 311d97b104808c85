"""Two gateways before a real engine whose steps are held, so that requests wait in line."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc

from controlplane.gateway.service import open_gateway
from controlplane.model import NodeId, ReplicaUid, Route, Routes
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.latest import Latest
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.v1 import inference_service_pb2, inference_service_pb2_grpc, request_pb2
from tests.support.gateway_house import DESCRIPTOR
from tests.support.scripted_engine import IDENTITY, ScriptedEngine, scripted_engine

PATIENCE_S = 20.0
ROOM = 2  # of an engine that runs one at a time, with what it is to have at hand


@dataclass(frozen=True)
class Front:
    """One gateway, as a client has it."""

    routes: Latest[Routes]
    stub: Any

    def generate(self, request_id: str, text: str = "a", max_tokens: int = 4) -> Any:
        request = inference_service_pb2.GenerateRequest(
            deployment="chat", request_id=request_id, prompt=[{"text": text}], sampling={"max_tokens": max_tokens}
        )
        return self.stub.Generate(request, timeout=PATIENCE_S)

    async def text(self, request_id: str) -> str:
        async with cancelling(self.generate(request_id)) as call:
            return "".join([event.delta.text async for message in call for event in message.events])

    async def cancel(self, request_id: str) -> Any:
        request = inference_service_pb2.CancelRequestRequest(deployment="chat", request_id=request_id)
        return (await self.stub.CancelRequest(request, timeout=PATIENCE_S)).receipt

    async def get(self, request_id: str) -> Any:
        request = inference_service_pb2.GetRequestRequest(deployment="chat", request_id=request_id)
        return (await self.stub.GetRequest(request, timeout=PATIENCE_S)).request

    async def list(self) -> Any:
        request = inference_service_pb2.ListRequestsRequest(deployment="chat")
        return list((await self.stub.ListRequests(request, timeout=PATIENCE_S)).requests)

    async def until(self, request_id: str, state: request_pb2.RequestState) -> None:
        """Waits until a request does that; each look is a call, which lets others go first."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(grpc.RpcError):
                    if (await self.get(request_id)).state == state:
                        return

    @contextlib.asynccontextmanager
    async def in_line(self, request_id: str) -> AsyncIterator[Any]:
        """Gives the call of a request that waits behind others, which stay for the block."""
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(ROOM):
                before = await stack.enter_async_context(cancelling(self.generate("", max_tokens=1000)))
                await before.read()
            call = await stack.enter_async_context(cancelling(self.generate(request_id)))
            await self.until(request_id, request_pb2.REQUEST_STATE_WAITING)
            yield call


@contextlib.asynccontextmanager
async def fronts(*addresses: Route) -> AsyncIterator[tuple[Front, Front]]:
    """Gives two gateways before the same engines."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for name in ("a", "b"):
            routes = Latest(Routes({"chat": addresses}))
            gateway = await stack.enter_async_context(open_gateway(routes, gateway_id=name))
            serving = await stack.enter_async_context(
                serve(Listen("127.0.0.1", 0), [Service(DESCRIPTOR, gateway)], grace_s=0)
            )
            channel = await stack.enter_async_context(open_channel(serving.address))
            made.append(Front(routes, inference_service_pb2_grpc.InferenceServiceStub(channel)))
        yield made[0], made[1]


@contextlib.asynccontextmanager
async def cluster() -> AsyncIterator[tuple[ScriptedEngine, Front, Front]]:
    """Gives two gateways before a real engine whose steps are held."""
    async with scripted_engine() as engine:
        engine.runner.hold()
        uuid, secret = IDENTITY.engine_uuid, IDENTITY.engine_key
        uid = ReplicaUid(IDENTITY.replica_uid)
        route = Route("chat", 0, uid, 1, NodeId("n"), engine.address, uuid, secret, True, 0, 0, max_running_count=1)
        async with fronts(route) as (a, b):
            yield engine, a, b
            engine.runner.go()  # or the gateways would wait to hear that those have ended which were left
