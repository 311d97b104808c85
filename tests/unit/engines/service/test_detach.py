"""Requests that outlive the calls that follow them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from roundhouse.v1 import generation_pb2, receipt_pb2
from tests.support.clock import FakeClock
from tests.support.scripted_engine import ScriptedEngine, refusal_of, scripted_engine, text_of

KEY = "local/mine"
NOT_FOUND: tuple[object, ...] = (grpc.StatusCode.NOT_FOUND, "REQUEST_NOT_FOUND", [])


def detached(ttl_s: float | None = None, **options: Any) -> dict[str, Any]:
    on_disconnect: dict[str, Any] = {"policy": "DISCONNECT_POLICY_DETACH"}
    if ttl_s is not None:
        on_disconnect["ttl"] = {"nanos": round(ttl_s % 1 * 1e9), "seconds": int(ttl_s)}
    return {"on_disconnect": on_disconnect, **options}


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine() as it:
        yield it


async def begun(engine: ScriptedEngine, options: dict[str, Any], **fields: Any) -> Any:
    engine.runner.hold()
    call = engine.generate("a", request_id="mine", options=options, sampling={"max_tokens": 8}, **fields)
    await call.read()
    engine.runner.step()
    await call.read()
    return call


@pytest.mark.parametrize("keeper", ["", "gateway-1"], ids=["a client", "a gateway"])
async def test_it_goes_on_when_nobody_follows_it(engine: ScriptedEngine, keeper: str) -> None:
    call = await begun(engine, detached(), keeper=keeper)
    call.cancel()
    await engine.followed("mine", 0)
    engine.runner.go()
    await engine.all_ended()
    assert await text_of(engine.attach("mine", {0: 1})) == "bcdefgh"
    assert (await engine.cancel("mine")).cause == receipt_pb2.CANCEL_CAUSE_UNSPECIFIED


async def test_the_deadline_of_its_call_ends_the_call_alone(engine: ScriptedEngine) -> None:
    call = await begun(engine, detached(), timeout=0.3)
    assert (await refusal_of(call))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    await engine.followed("mine", 0)
    engine.runner.go()
    assert await text_of(engine.attach("mine")) == "abcdefgh"


async def test_its_own_duration_bounds_it(engine: ScriptedEngine) -> None:
    call = await begun(engine, detached(max_duration={"nanos": 100_000_000}))
    call.cancel()
    await engine.cancelled(KEY)
    engine.runner.go()
    await engine.all_ended()
    assert (await engine.cancel("mine")).cause == receipt_pb2.CANCEL_CAUSE_DEADLINE
    assert (await refusal_of(engine.attach("mine")))[0] is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("keeper", ["", "gateway-1"], ids=["a client", "a gateway"])
async def test_it_is_cancelled_when_its_time_alone_is_over(engine: ScriptedEngine, keeper: str) -> None:
    call = await begun(engine, detached(0.05), keeper=keeper)
    call.cancel()
    await engine.cancelled(KEY)
    engine.runner.go()
    await engine.all_ended()
    receipt = await engine.cancel("mine")
    assert (receipt.outcome, receipt.cause) == (
        receipt_pb2.CANCEL_OUTCOME_CANCELLED,
        receipt_pb2.CANCEL_CAUSE_DISCONNECT,
    )


async def test_one_who_attaches_stops_the_clock(engine: ScriptedEngine) -> None:
    call = await begun(engine, detached(1.0))
    call.cancel()
    await engine.followed("mine", 0)
    attached = engine.attach("mine")
    await attached.read()
    loop = asyncio.get_running_loop()
    passed = loop.create_future()
    loop.call_later(1.1, passed.set_result, None)
    await passed  # the time in which it would have been cancelled
    engine.runner.go()
    assert await text_of(attached) == "abcdefgh"


async def test_a_gateway_whose_client_has_left_starts_the_clock(engine: ScriptedEngine) -> None:
    call = await begun(engine, detached(0.05), keeper="gateway-1", facts={"follower": "one"})
    receipt = await engine.cancel("mine", follower="one", cancel_cause=receipt_pb2.CANCEL_CAUSE_DISCONNECT)
    assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_UNPROVEN
    await engine.cancelled(KEY)
    engine.runner.go()
    await engine.all_ended()
    assert (await engine.cancel("mine")).cause == receipt_pb2.CANCEL_CAUSE_DISCONNECT
    call.cancel()


async def test_who_wants_it_to_end_cancels_it(engine: ScriptedEngine) -> None:
    call = await begun(engine, detached())
    call.cancel()
    await engine.followed("mine", 0)
    asking = asyncio.ensure_future(engine.cancel("mine"))
    await engine.cancelled(KEY)
    engine.runner.go()
    assert (await asking).outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
    await engine.all_ended()


async def test_its_end_is_kept_for_as_long_as_it_asked() -> None:
    clock = FakeClock()
    async with scripted_engine(clock=clock) as engine:
        for ttl_s, request_id in ((3600, "long"), (5, "short")):
            options, sampling = detached(ttl_s), {"max_tokens": 2}
            assert (
                await text_of(engine.generate("a", request_id=request_id, options=options, sampling=sampling)) == "ab"
            )
        clock.advance(6)
        assert await refusal_of(engine.attach("short")) == NOT_FOUND
        clock.advance(3590)
        assert await text_of(engine.attach("long")) == "ab"
        clock.advance(5)
        assert await refusal_of(engine.attach("long")) == NOT_FOUND


async def test_its_time_alone_is_shown_also_where_it_did_not_ask_for_one(engine: ScriptedEngine) -> None:
    shown: list[generation_pb2.OnDisconnect] = []
    for options in (detached(), detached(5), {"on_disconnect": {"policy": "DISCONNECT_POLICY_CANCEL"}}, {}):
        request_id = str(len(shown))
        await text_of(engine.generate("a", request_id=request_id, options=options, sampling={"max_tokens": 1}))
        shown.append((await engine.get(request_id)).on_disconnect)
    detach = generation_pb2.DISCONNECT_POLICY_DETACH
    assert [(each.policy, each.ttl.seconds) for each in shown[:2]] == [(detach, 60), (detach, 5)]
    assert not any(each.HasField("ttl") for each in shown[2:])


async def test_it_outlives_its_call_while_its_prompt_is_tokenized(engine: ScriptedEngine) -> None:
    engine.tokenizer.hold()
    call = engine.generate("x" * 5000, request_id="mine", options=detached(), sampling={"max_tokens": 3})
    await engine.tokenizer.entered()
    call.cancel()
    await engine.followed("mine", 0)
    engine.tokenizer.go()
    assert await text_of(engine.attach("mine")) == "xyz"
