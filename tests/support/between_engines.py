"""A request whose engine gives it up while a gateway relays it, among engines that do as a script says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import grpc

from controlplane.model import Route, Routes
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.channel import cancelling
from roundhouse.kit.errors import NotReady, Unreachable
from roundhouse.v1 import errors_pb2, generation_pb2, inference_service_pb2
from tests.support.gateway_house import Engine, House, house, is_full

PATIENCE_S = 20.0
PROMPT = [7, 8, 9]


def first_message(attempt: int, position: int) -> inference_service_pb2.GenerateResponse:
    """Returns what an engine tells a gateway first: that it runs, what to keep, and a token."""
    resume = generation_pb2.Resume(prompt_token_ids={"ids": PROMPT}, seed=4, fingerprint="f")
    request = inference_service_pb2.GenerateRequest(deployment="chat", request_id="r", options={"resume": resume})
    started = generation_pb2.Started(attempt=attempt)
    delta = generation_pb2.Delta(first_position=position, token_ids=[position], text=str(position))
    events = [generation_pb2.GenerationEvent(started=started), generation_pb2.GenerationEvent(delta=delta)]
    message = hop_pb2.KeptResponse(events=events, kept=hop_pb2.Kept(generate=request))
    return inference_service_pb2.GenerateResponse.FromString(message.SerializeToString())


@dataclass
class Heard(Engine):
    """An engine that is told when to give its request up, and tells when it was asked to take one."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)


async def hands_over(engine: Any, request: Any, context: Any) -> None:
    await context.write(first_message(1, 0))
    await engine.go.wait()
    raise Unreachable("it goes on elsewhere: attach", reason=errors_pb2.ERROR_REASON_HANDED_OVER)


async def differs(engine: Engine, request: Any, context: Any) -> None:
    raise NotReady("it is another: pick another", reason=errors_pb2.ERROR_REASON_FINGERPRINT_DIFFERS)


async def has_no_room(engine: Any, request: Any, context: Any) -> None:
    engine.has.discard(request.request_id)
    engine.was_asked.set()
    await is_full(engine, request, context)


async def goes_on(engine: Engine, request: Any, context: Any) -> None:
    await context.write(first_message(2, 1))
    usage = generation_pb2.GenerationEvent(usage=generation_pb2.Usage(output_token_count=2))
    await context.write(inference_service_pb2.GenerateResponse(events=[usage]))


def tell(it: House, *routes: Route) -> None:
    it.routes.set(Routes({"chat": routes}))


@contextlib.asynccontextmanager
async def between(own: Heard, *others: Engine) -> AsyncIterator[tuple[House, Any, list[Route]]]:
    """Gives a gateway that relays `r`, whose engine gives it up, and all routes, of which it knows that one's alone."""
    async with house(own, *others) as it:
        routes = [replace(each, fingerprint="f") for each in it.routes.get().replicas["chat"]]
        tell(it, routes[0])
        async with cancelling(it.stub.Generate(it.request("r"), timeout=PATIENCE_S)) as call:
            await call.read()
            own.go.set()
            yield it, call, routes


async def rest_of(call: Any) -> str:
    text = ""
    while (message := await call.read()) is not grpc.aio.EOF:
        text += "".join(event.delta.text for event in message.events)
    return text
