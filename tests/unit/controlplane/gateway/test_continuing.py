"""Requests lose their engine, and a gateway looks for another one, among engines that do as a script says."""

from __future__ import annotations

import asyncio
import contextlib
import time
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
LEAST_PAUSE_S = 0.125  # between two rounds


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
class Leaving(Engine):
    """An engine that gives its request up once it is told to."""

    go: asyncio.Event = field(default_factory=asyncio.Event)


async def hands_over(engine: Any, request: Any, context: Any) -> None:
    await context.write(first_message(1, 0))
    await engine.go.wait()
    raise Unreachable("it goes on elsewhere: attach", reason=errors_pb2.ERROR_REASON_HANDED_OVER)


async def differs(engine: Engine, request: Any, context: Any) -> None:
    raise NotReady("it is another: pick another", reason=errors_pb2.ERROR_REASON_FINGERPRINT_DIFFERS)


async def goes_on(engine: Engine, request: Any, context: Any) -> None:
    await context.write(first_message(2, 1))
    usage = generation_pb2.GenerationEvent(usage=generation_pb2.Usage(output_token_count=2))
    await context.write(inference_service_pb2.GenerateResponse(events=[usage]))


def tell(it: House, *routes: Route) -> None:
    it.routes.set(Routes({"chat": routes}))


@contextlib.asynccontextmanager
async def between(*others: Engine) -> AsyncIterator[tuple[House, Any, list[Route]]]:
    """Gives a gateway that relays `r`, whose engine gives it up as soon as routes are told, and all routes."""
    own = Leaving("own", hands_over)
    async with house(own, *others) as it:
        routes = [replace(each, fingerprint="f") for each in it.routes.get().replicas["chat"]]
        tell(it, routes[0])
        async with cancelling(it.stub.Generate(it.request("r"), timeout=PATIENCE_S)) as call:
            await call.read()
            own.go.set()
            yield it, call, routes


async def told_often(it: House, *routes: Route) -> None:
    """Reports come, thick and fast, that say something new of the same replicas; each is taken in."""
    for number in range(30):
        tell(it, *[replace(each, running_count=number) for each in routes])
        await it.cancel(f"other-{number}")


async def rest_of(call: Any) -> str:
    text = ""
    while (message := await call.read()) is not grpc.aio.EOF:
        text += "".join(event.delta.text for event in message.events)
    return text


async def test_an_engine_that_is_known_to_compute_something_else_is_not_asked() -> None:
    other, equal = Engine("other", differs), Engine("equal", goes_on)
    async with between(other, equal) as (it, call, (_, one, same)):
        newer = replace(one, fingerprint="g")
        await told_often(it, newer)
        tell(it, newer, same)
        assert await rest_of(call) == "1"
    assert (len(other.hops), len(equal.hops)) == (0, 1)


async def test_an_engine_that_says_that_it_computes_something_else_is_not_asked_again() -> None:
    unknown, equal = Engine("unknown", differs), Engine("equal", goes_on)
    async with between(unknown, equal) as (it, call, (_, one, same)):
        silent = replace(one, fingerprint="")
        await told_often(it, silent)
        tell(it, silent, same)
        assert await rest_of(call) == "1"
    assert (len(unknown.hops), len(equal.hops)) == (1, 1)


async def test_engines_are_not_asked_once_more_whenever_something_is_reported() -> None:
    full, equal = Engine("full", is_full), Engine("equal", goes_on)
    async with between(full, equal) as (it, call, (_, one, same)):
        begin_s = time.monotonic()
        await told_often(it, one)
        asked, rounds = len(full.hops), 1 + (time.monotonic() - begin_s) / LEAST_PAUSE_S
        tell(it, one, same)
        assert await rest_of(call) == "1"
    assert 1 <= asked <= rounds


async def test_an_engine_that_is_ready_once_more_is_asked_once_more() -> None:
    full = Engine("full", is_full)
    async with between(full) as (it, call, (_, one)):
        await told_often(it, one)
        full.script = goes_on
        tell(it, replace(one, is_ready=False))
        await it.cancel("other")
        tell(it, one)
        assert await rest_of(call) == "1"
