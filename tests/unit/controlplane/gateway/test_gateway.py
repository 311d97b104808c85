"""Requests pass through a gateway over real gRPC, to engines that do as a script says."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import Any

import grpc
import pytest

from controlplane.auth.gate import Guard
from controlplane.gateway.routing.breaker import FIRST_OPEN_S, LEAST_COUNT
from controlplane.gateway.routing.budget import FLOOR_PER_S, MOST, RETRY_FRACTION
from controlplane.model import Routes
from roundhouse.internal.hops import HOP_KEY
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.clock import SystemClock
from roundhouse.kit.errors import Unreachable
from roundhouse.kit.metadata import metadata_value
from roundhouse.kit.status import error_of
from roundhouse.v1 import errors_pb2, inference_service_pb2_grpc, receipt_pb2
from tests.support.gateway_house import (
    CALLERS,
    MUCH,
    ROUNDING_S,
    Doorman,
    Engine,
    as_caller,
    breaks,
    breaks_after_the_first_token,
    house,
    is_full,
    never_ends,
    never_ends_but_knows_ids,
    reason_of,
    refuses_everybody,
    route,
    tells_its_name,
    text,
)


async def test_a_request_reaches_its_engine_with_identity_deadline_and_metadata_but_not_our_reserved_keys() -> None:
    engine = Engine("one", tells_its_name)
    async with house(engine) as it:
        forged = hop_pb2.Hop(engine_key=b"forged", principal="root").SerializeToString()
        metadata = [("traceparent", "00-1"), (HOP_KEY, forged), ("roundhouse-other", "x")]
        assert await it.collect(metadata=metadata, timeout=20) == "one"
    [hop] = engine.hops
    assert (hop.engine_uuid, hop.engine_key, hop.principal, hop.keeper, hop.attempt) == ("e0", b"key", "local", "g", 1)
    assert metadata_value(engine.metadata[0], "traceparent") == "00-1"
    assert metadata_value(engine.metadata[0], "roundhouse-other") is None
    assert engine.remaining_s[0] is not None
    assert 0 < engine.remaining_s[0] <= 20 + 2 * ROUNDING_S  # to the gateway, and on from there


async def test_the_client_learns_the_location_and_nothing_else_of_the_engine() -> None:
    async with house(Engine("one", tells_its_name)) as it:
        call = it.stub.Generate(it.request())
        assert metadata_value(await call.initial_metadata(), "roundhouse-location") == "at-one"
        assert metadata_value(await call.initial_metadata(), "secret") is None
        call.cancel()


async def test_requests_in_flight_are_spread_over_the_replicas() -> None:
    engines = [Engine(name, never_ends) for name in "abc"]
    async with house(*engines, policy="least_loaded") as it, contextlib.AsyncExitStack() as calls:
        seen = []
        for _ in range(6):
            call = await calls.enter_async_context(cancelling(it.stub.Generate(it.request())))
            seen.append((await call.read()).events[0].delta.text)
        assert sorted(seen) == ["a", "a", "b", "b", "c", "c"]


async def test_an_engine_that_refuses_before_its_first_message_is_replaced_by_another() -> None:
    engines = [Engine("bad", refuses_everybody), Engine("good", tells_its_name)]
    async with house(*engines) as it:
        assert await it.collect("r") == "good"
    assert [hop.attempt for each in engines for hop in each.hops] in ([1, 2], [1])


async def test_an_engine_that_is_not_there_is_replaced_by_another() -> None:
    async with house(Engine("good", tells_its_name)) as it:
        present = it.routes.get().replicas["chat"]
        it.routes.set(Routes({"chat": (*present, route(7, "127.0.0.1:1"))}))
        assert [await it.collect() for _ in range(4)] == ["good"] * 4


async def test_engines_that_did_not_take_a_request_are_asked_last_by_the_next() -> None:
    bad = [Engine(name, refuses_everybody) for name in "abc"]
    async with house(*bad, Engine("good", tells_its_name)) as it:
        present = it.routes.get().replicas["chat"]
        it.routes.set(Routes({"chat": present[:3]}))
        begin_s = time.monotonic()
        with pytest.raises(grpc.RpcError) as refusal:  # which takes three attempts
            await it.collect()
        assert reason_of(refusal.value) == (grpc.StatusCode.UNAVAILABLE, "NO_READY_REPLICA")
        assert [len(each.hops) for each in bad] == [1, 1, 1]
        it.routes.set(Routes({"chat": present}))
        assert [await it.collect() for _ in range(5)] == ["good"] * 5
        probed = (time.monotonic() - begin_s) // FIRST_OPEN_S  # where the machine is slow
        assert all(len(each.hops) <= 1 + probed for each in bad)


async def test_when_all_fail_retries_are_a_share_of_what_comes() -> None:
    bad = [Engine(name, refuses_everybody) for name in "abc"]
    async with house(*bad) as it:
        begin_s = time.monotonic()
        for _ in range(60):
            with pytest.raises(grpc.RpcError) as refusal:
                await it.collect()
            assert reason_of(refusal.value) == (grpc.StatusCode.UNAVAILABLE, "NO_READY_REPLICA")
        floor = FLOOR_PER_S * (time.monotonic() - begin_s)
    assert 60 + MOST <= sum(len(each.hops) for each in bad) <= 60 * (1 + RETRY_FRACTION) + MOST + floor


async def test_an_engine_that_refuses_what_a_caller_asks_gets_the_next_request_all_the_same() -> None:
    async with house(Engine("full", is_full)) as it:
        present = it.routes.get().replicas["chat"]
        for _ in range(20):
            with pytest.raises(grpc.RpcError):
                await it.collect()
        it.routes.set(Routes({"chat": (*present, replace(route(1, "127.0.0.1:1"), waiting_count=99))}))
        with pytest.raises(grpc.RpcError) as refusal:
            await it.collect()
        assert reason_of(refusal.value) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")


async def test_an_engine_that_breaks_on_every_request_is_asked_last() -> None:
    broken, good = Engine("broken", breaks), Engine("good", tells_its_name)
    async with house(broken, good, policy="round_robin") as it:
        for _ in range(12):
            with contextlib.suppress(grpc.RpcError):
                await it.collect()
        assert len(broken.hops) == LEAST_COUNT


async def test_requests_of_a_session_go_to_one_engine_and_so_do_prompts_that_begin_alike() -> None:
    engines = [Engine(name, tells_its_name) for name in "abcd"]
    async with house(*engines) as it:
        for number in range(4):
            request = it.request()
            request.options.session_key = f"session {number}"
            assert len({await it.answer(request) for _ in range(6)}) == 1
        front = "a long story that comes before every question " * 100
        answers = set()
        for number in range(6):
            request = it.request()
            request.prompt.add(text=front)
            request.prompt.add(text=f"question {number}")
            answers.add(await it.answer(request))
        assert len(answers) == 1


async def test_an_engine_lost_in_mid_stream_ends_the_stream_with_engine_lost_and_what_came_stays() -> None:
    half = Engine("half", breaks_after_the_first_token, is_mute=True)
    async with house(half, Engine("other", tells_its_name)) as it:
        present = it.routes.get().replicas["chat"]
        it.routes.set(Routes({"chat": (present[0],)}))
        call = it.stub.Generate(it.request("r"))
        assert (await call.read()).events[0].delta.text == "half"
        with pytest.raises(grpc.RpcError) as refusal:
            await call.read()
        assert reason_of(refusal.value) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_LOST")
        it.routes.set(Routes({"chat": (present[1],)}))
        assert (await it.cancel("r", timeout=1)).outcome == receipt_pb2.CANCEL_OUTCOME_LOST


async def breaks_after_much(engine: Engine, request: Any, context: Any) -> None:
    for _ in range(MUCH):
        await context.write(text("x" * 1000))
    raise Unreachable("going down: try again", reason=errors_pb2.ERROR_REASON_DRAINING)


async def test_all_that_came_before_an_error_reaches_a_client_that_reads_slowly() -> None:
    small = [("grpc.http2.lookahead_bytes", 4096), ("grpc.http2.bdp_probe", 0)]
    async with house(Engine("much", breaks_after_much)) as it, open_channel(it.address, options=small) as channel:
        stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
        count = 0

        async def read_slowly() -> None:
            nonlocal count
            async for message in stub.Generate(it.request()):
                count += sum(len(event.delta.text) for event in message.events)
                await asyncio.sleep(0.002)

        with pytest.raises(grpc.RpcError) as error:
            await read_slowly()
        assert reason_of(error.value) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_LOST")
        assert count == MUCH * 1000


async def test_a_refusal_of_the_request_itself_passes_through_with_its_details() -> None:
    engines = [Engine("full", is_full), Engine("too", is_full)]
    async with house(*engines) as it:
        with pytest.raises(grpc.RpcError) as refusal:
            await it.collect()
        assert reason_of(refusal.value) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert error_of(refusal.value).retry_after_s == 2
    assert sum(len(each.hops) for each in engines) == 1


async def test_a_request_whose_id_is_in_use_goes_to_the_engine_that_has_it_which_may_refuse_it() -> None:
    engines = [Engine(name, never_ends_but_knows_ids) for name in "abc"]
    async with house(*engines) as it:
        first = it.stub.Generate(it.request("same"))
        await first.read()
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as refusal:
                await it.collect("same")
            assert reason_of(refusal.value) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_EXISTS")
        assert not first.done()
        first.cancel()
    assert sorted(len(each.hops) for each in engines) == [0, 0, 4]


async def test_replicas_that_all_refuse_are_not_called_lost() -> None:
    async with house(*[Engine(name, refuses_everybody) for name in "abc"]) as it:
        with pytest.raises(grpc.RpcError) as refusal:
            await it.collect("r")
    assert reason_of(refusal.value) == (grpc.StatusCode.UNAVAILABLE, "NO_READY_REPLICA")
    assert error_of(refusal.value).retry_after_s is not None


@pytest.mark.parametrize(
    ("routes", "request_id", "deployment", "want"),
    [
        pytest.param(Routes({}), "", "chat", ("NOT_FOUND", "DEPLOYMENT_NOT_FOUND"), id="unknown deployment"),
        pytest.param(Routes({"chat": ()}), "", "chat", ("UNAVAILABLE", "NO_READY_REPLICA"), id="no replica"),
        pytest.param(
            Routes({"chat": ()}, frozenset({"chat"})),
            "",
            "chat",
            ("FAILED_PRECONDITION", "DEPLOYMENT_DELETING"),
            id="being deleted",
        ),
        pytest.param(
            Routes({}, is_current=False), "", "chat", ("UNAVAILABLE", "INTERRUPTED"), id="unknown while nobody tells"
        ),
        pytest.param(Routes({}), "", "", ("INVALID_ARGUMENT", "FIELD_INVALID"), id="no deployment named"),
        pytest.param(Routes({}), "", "deployments/chat", ("INVALID_ARGUMENT", "FIELD_INVALID"), id="a name, not an id"),
        pytest.param(Routes({}), "a b", "chat", ("INVALID_ARGUMENT", "FIELD_INVALID"), id="a request id with a space"),
    ],
)
async def test_a_request_that_cannot_be_routed_is_refused(
    routes: Routes, request_id: str, deployment: str, want: tuple[str, str]
) -> None:
    async with house() as it:
        it.routes.set(routes)
        with pytest.raises(grpc.RpcError) as refusal:
            await it.stub.Generate(it.request(request_id, deployment)).read()
        code, reason = reason_of(refusal.value)
        assert (code.name, reason) == want


async def test_an_engine_learns_whose_a_request_is_and_not_by_which_token() -> None:
    engine = Engine("one", tells_its_name)
    async with house(engine, gate=Guard(Doorman(), Doorman(), SystemClock())) as it:
        for secret in CALLERS:
            await it.collect(metadata=as_caller(secret))
    assert [(hop.principal, hop.tenant) for hop in engine.hops] == [("ada", "blue"), ("bob", "")]
    assert [metadata_value(each, "authorization") for each in engine.metadata] == [None, None]
