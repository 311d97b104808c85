"""A real gateway in front of engines that do as a script says, and a client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from controlplane.auth.caller import Caller
from controlplane.auth.gate import Guard
from controlplane.auth.methods import Role
from controlplane.gateway.service import open_gateway
from controlplane.model import NodeId, ReplicaUid, Route, Routes
from controlplane.routing_policies import RoutingPolicy
from roundhouse.internal.hops import HOP_KEY
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.errors import AlreadyExists, NoCapacity, NotFound, Unreachable
from roundhouse.kit.latest import Latest
from roundhouse.kit.metadata import metadata_value
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.kit.status import error_of, reason_name
from roundhouse.v1 import (
    errors_pb2,
    generation_pb2,
    inference_service_pb2,
    inference_service_pb2_grpc,
    receipt_pb2,
    request_pb2,
)

DESCRIPTOR = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"]
ROUNDING_S = 0.1  # a time of 10 to 100 s travels in tenths of a second, rounded up: 20.001 s arrives as 20.1 s
MUCH = 300  # messages of 1,000 characters, more than a client's window holds
Script = Callable[["Engine", Any, Any], Awaitable[None]]


def text(piece: str) -> inference_service_pb2.GenerateResponse:
    event = generation_pb2.GenerationEvent(delta=generation_pb2.Delta(text=piece))
    return inference_service_pb2.GenerateResponse(events=[event])


async def tells_its_name(engine: Engine, request: Any, context: Any) -> None:
    await context.write(text(engine.name))


async def never_ends(engine: Engine, request: Any, context: Any) -> None:
    await context.write(text(engine.name))
    await asyncio.Event().wait()


async def never_ends_but_knows_ids(engine: Engine, request: Any, context: Any) -> None:
    if len(engine.hops) > 1:
        raise AlreadyExists("it exists: choose another id", reason=errors_pb2.ERROR_REASON_REQUEST_EXISTS)
    await never_ends(engine, request, context)


async def breaks_after_the_first_token(engine: Engine, request: Any, context: Any) -> None:
    await context.write(text(engine.name))
    raise Unreachable("going down: try again", reason=errors_pb2.ERROR_REASON_DRAINING)


async def refuses_everybody(engine: Engine, request: Any, context: Any) -> None:
    raise Unreachable("draining: try again", reason=errors_pb2.ERROR_REASON_DRAINING)


async def breaks(engine: Engine, request: Any, context: Any) -> None:
    raise RuntimeError("out of order")


async def is_full(engine: Engine, request: Any, context: Any) -> None:
    raise NoCapacity("the queue is full: wait", reason=errors_pb2.ERROR_REASON_QUEUE_FULL, retry_after_s=2)


@dataclass
class Engine:
    """An engine that does as its script says, and remembers what reached it."""

    name: str
    script: Script
    hops: list[hop_pb2.Hop] = field(default_factory=list)
    metadata: list[Any] = field(default_factory=list)
    remaining_s: list[float | None] = field(default_factory=list)
    cancels: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    causes: list[int] = field(default_factory=list)
    cancelled_by: list[str] = field(default_factory=list)
    has: set[str] = field(default_factory=set)
    finished: set[str] = field(default_factory=set)
    kept: dict[str, receipt_pb2.CancelReceipt] = field(default_factory=dict)  # that gateways left here
    deposits: asyncio.Queue[receipt_pb2.CancelReceipt] = field(default_factory=asyncio.Queue)
    is_mute: bool = False  # it answers no cancel, until it is `released`
    released: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Queue[str] = field(default_factory=asyncio.Queue)  # by calls that have not ended before
    known: dict[str, request_pb2.InferenceRequest] = field(default_factory=dict)  # by GetRequest; Attach has none
    asked: list[str] = field(default_factory=list)  # by GetRequest, for what
    is_hung: bool = False  # it answers no GetRequest

    async def Generate(self, request: Any, context: Any) -> None:
        packed = metadata_value(context.invocation_metadata(), HOP_KEY)
        assert isinstance(packed, bytes)
        self.hops.append(hop_pb2.Hop.FromString(packed))
        self.metadata.append(context.invocation_metadata())
        self.remaining_s.append(context.time_remaining())
        self.has.add(request.request_id)
        await context.send_initial_metadata([("roundhouse-location", f"at-{self.name}"), ("secret", "x")])
        await self.script(self, request, context)

    async def Attach(self, request: Any, context: Any) -> None:
        raise _unknown(request.request_id)

    async def GetRequest(self, request: Any, context: Any) -> Any:
        self.asked.append(request.request_id)
        if self.is_hung:
            await asyncio.Event().wait()
        if request.request_id not in self.known:
            raise _unknown(request.request_id)
        return inference_service_pb2.GetRequestResponse(request=self.known[request.request_id])

    async def CancelRequest(self, request: Any, context: Any) -> Any:
        packed = metadata_value(context.invocation_metadata(), HOP_KEY)
        assert isinstance(packed, bytes)
        hop = hop_pb2.Hop.FromString(packed)
        if hop.HasField("unserved"):
            self.deposits.put_nowait(hop.unserved)
            if self.is_mute:
                await asyncio.Event().wait()
            self.kept[request.request_id] = hop.unserved
            return inference_service_pb2.CancelRequestResponse(receipt=hop.unserved)
        self.causes.append(hop.cancel_cause)
        self.cancelled_by.append(hop.principal)
        self.cancels.put_nowait(request.request_id)
        if self.is_mute:
            await self.released.wait()
        self.cancelled.put_nowait(request.request_id)
        outcome = receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED
        if request.request_id in self.has:
            outcome = receipt_pb2.CANCEL_OUTCOME_CANCELLED
        elif request.request_id in self.finished:
            outcome = receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
        elif request.request_id in self.kept:
            return inference_service_pb2.CancelRequestResponse(receipt=self.kept[request.request_id])
        receipt = receipt_pb2.CancelReceipt(request_id=request.request_id, outcome=outcome, replica=self.name)
        receipt.attempt = int(outcome != receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED)
        if outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED:
            receipt.cause = hop.cancel_cause or receipt_pb2.CANCEL_CAUSE_CLIENT
        return inference_service_pb2.CancelRequestResponse(receipt=receipt)


def _unknown(request_id: str) -> NotFound:
    return NotFound(f'request "{request_id}" is not known', reason=errors_pb2.ERROR_REASON_REQUEST_NOT_FOUND)


@dataclass
class House:
    """A gateway, its engines, and a client."""

    routes: Latest[Routes]
    stub: Any
    address: str

    def request(self, request_id: str = "", deployment: str = "chat") -> inference_service_pb2.GenerateRequest:
        return inference_service_pb2.GenerateRequest(deployment=deployment, request_id=request_id)

    async def collect(self, request_id: str = "", **options: Any) -> str:
        return await self.answer(self.request(request_id), **options)

    async def answer(self, request: inference_service_pb2.GenerateRequest, **options: Any) -> str:
        async with cancelling(self.stub.Generate(request, **options)) as call:
            return "".join([event.delta.text async for message in call for event in message.events])

    async def attach(self, request_id: str, *, location: str = "") -> str:
        request = inference_service_pb2.AttachRequest(deployment="chat", request_id=request_id, location=location)
        async with cancelling(self.stub.Attach(request)) as call:
            return "".join([event.delta.text async for message in call for event in message.events])

    async def get(self, request_id: str, *, timeout: float | None = None) -> request_pb2.InferenceRequest:
        request = inference_service_pb2.GetRequestRequest(deployment="chat", request_id=request_id)
        response: inference_service_pb2.GetRequestResponse = await self.stub.GetRequest(request, timeout=timeout)
        return response.request

    async def cancel(
        self, request_id: str, *, location: str = "", timeout: float | None = None, metadata: Any = None
    ) -> receipt_pb2.CancelReceipt:
        request = inference_service_pb2.CancelRequestRequest(
            deployment="chat", request_id=request_id, location=location
        )
        response: inference_service_pb2.CancelRequestResponse = await self.stub.CancelRequest(
            request, timeout=timeout, metadata=metadata
        )
        return response.receipt


def route(index: int, address: str, *, ready: bool = True) -> Route:
    return Route("chat", index, ReplicaUid(f"r{index}"), 1, NodeId("a"), address, f"e{index}", b"key", ready, 0, 0)


CALLERS = {
    "secret-a": Caller("ada", Role.INFERENCE, tenant="blue"),
    "secret-b": Caller("bob", Role.INFERENCE),
}


class Doorman:
    """Knows two callers, and no nodes."""

    def find(self, secret: str) -> Caller | None:
        return CALLERS.get(secret)

    def of(self, node: str) -> int:
        raise AssertionError(f"node {node} calls a gateway")


def as_caller(secret: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {secret}")]


@contextlib.asynccontextmanager
async def house(
    *engines: Engine, ready: bool = True, gate: Guard | None = None, policy: RoutingPolicy = "power_of_two"
) -> AsyncIterator[House]:
    async with contextlib.AsyncExitStack() as stack:
        addresses = []
        for each in engines:
            serving = await stack.enter_async_context(
                serve(Listen("127.0.0.1", 0), [Service(DESCRIPTOR, each)], grace_s=0)
            )
            addresses.append(serving.address)
        found = tuple(route(i, each, ready=ready) for i, each in enumerate(addresses))
        routes = Latest(Routes({"chat": found}, policies={"chat": policy}))
        gateway = await stack.enter_async_context(open_gateway(routes, gateway_id="g"))
        front = await stack.enter_async_context(
            serve(Listen("127.0.0.1", 0), [Service(DESCRIPTOR, gateway)], grace_s=0, gate=gate)
        )
        channel = await stack.enter_async_context(open_channel(front.address))
        yield House(routes, inference_service_pb2_grpc.InferenceServiceStub(channel), front.address)


def reason_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    return error.code(), reason_name(error_of(error).own_reason)
