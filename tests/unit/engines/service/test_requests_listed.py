"""What is known of requests, while they run and after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from roundhouse.internal.hops import parse_location
from roundhouse.kit.channel import cancelling
from roundhouse.v1 import generation_pb2, receipt_pb2, request_pb2
from tests.support.clock import FakeClock
from tests.support.scripted_engine import IDENTITY, ScriptedEngine, events_of, refusal_of, scripted_engine

NOT_FOUND: tuple[object, ...] = (grpc.StatusCode.NOT_FOUND, "REQUEST_NOT_FOUND", [])
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine() as it:
        yield it


async def test_a_request_that_runs_says_where_and_how_far_it_is(engine: ScriptedEngine) -> None:
    engine.runner.hold()
    options = {"priority": 7, "labels": {"team": "blue"}, "on_disconnect": {"policy": "DISCONNECT_POLICY_CANCEL"}}
    call = engine.generate("a", request_id="mine", sampling={"n": 2, "max_tokens": 9}, options=options)
    async with cancelling(call):
        started = (await call.read()).events[0].started
        engine.runner.step()
        told = 0
        while told < 2:
            told += len((await call.read()).events)
        request = await engine.get("mine")
        assert (request.deployment, request.request_id, request.attempt) == ("chat", "mine", 1)
        assert request.state == request_pb2.REQUEST_STATE_RUNNING
        assert (request.replica, request.location) == (IDENTITY.replica, started.location)
        assert parse_location(request.location).engine_uuid == IDENTITY.engine_uuid
        assert [(each.choice, each.output_token_count) for each in request.positions] == [(0, 1), (1, 1)]
        assert (request.prompt_token_count, request.priority, request.follower_count) == (2, 7, 1)
        assert dict(request.labels) == {"team": "blue"}
        assert request.on_disconnect.policy == generation_pb2.DISCONNECT_POLICY_CANCEL
        assert request.arrival_time.seconds > 0
        assert not request.HasField("receipt")
        assert not request.finishes
        engine.runner.go()
        events = await events_of(call)
    request = await engine.get("mine")
    assert request.state == request_pb2.REQUEST_STATE_ENDED
    ends = [event.finished for event in events if event.HasField("finished")]  # in whichever order
    assert list(request.finishes) == sorted(ends, key=lambda each: each.choice)
    assert request.receipt == await engine.cancel("mine")
    assert list(request.positions) == list(request.receipt.positions)
    assert request.follower_count == 0


async def test_a_request_waits_until_it_has_a_place() -> None:
    async with scripted_engine(batch_size=1) as engine:
        engine.runner.hold()
        first = engine.generate("a", request_id="first")
        await first.read()
        await engine.runner.entered(1)
        second = engine.generate("a", request_id="second")
        async with cancelling(first), cancelling(second):
            await second.read()
            states = {each: (await engine.get(each)).state for each in ("first", "second")}
            assert states == {
                "first": request_pb2.REQUEST_STATE_RUNNING,
                "second": request_pb2.REQUEST_STATE_WAITING,
            }
            listed = await engine.list(states=["REQUEST_STATE_WAITING"])
            assert [each.request_id for each in listed.requests] == ["second"]
            engine.runner.go()


async def test_the_length_of_a_prompt_is_not_known_while_it_is_tokenized(engine: ScriptedEngine) -> None:
    engine.tokenizer.hold()
    call = engine.generate("x" * 5000, request_id="mine", sampling={"max_tokens": 1})
    await engine.tokenizer.entered()
    request = await engine.get("mine")
    assert request.state == request_pb2.REQUEST_STATE_WAITING
    assert not request.HasField("prompt_token_count")
    engine.tokenizer.go()
    await events_of(call)
    assert (await engine.get("mine")).prompt_token_count == 5001


async def test_one_that_failed_has_no_finishes() -> None:
    async with scripted_engine(lambda prompt, position: ValueError("broken") if position == 2 else 97) as engine:
        await refusal_of(engine.generate("a", request_id="mine"))
        request = await engine.get("mine")
        assert (request.state, list(request.finishes)) == (request_pb2.REQUEST_STATE_ENDED, [])
        assert request.receipt.outcome == receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED


async def test_one_that_was_cancelled_before_it_came_never_came(engine: ScriptedEngine) -> None:
    assert await refusal_of(asyncio.ensure_future(engine.get("mine"))) == NOT_FOUND
    receipt = await engine.cancel("mine")
    request = await engine.get("mine")
    assert request.state == request_pb2.REQUEST_STATE_NEVER_CAME
    assert (request.receipt, request.location, request.replica) == (receipt, "", "")
    assert not (await engine.list()).requests


async def test_requests_of_another_principal_are_not_there(engine: ScriptedEngine) -> None:
    await events_of(engine.generate("a", request_id="mine", sampling={"max_tokens": 1}))
    assert await refusal_of(asyncio.ensure_future(engine.get("mine", principal="other"))) == NOT_FOUND
    assert not (await engine.list(principal="other")).requests
    assert not (await engine.list(principal="loca")).requests


async def test_requests_are_listed_newest_first_in_pages() -> None:
    clock = FakeClock()
    async with scripted_engine(clock=clock) as engine:
        for number in range(7):
            clock.advance(number % 2)  # some come at the same time
            await events_of(engine.generate("a", request_id=f"r{number}", sampling={"max_tokens": 1}))
        seen: list[str] = []
        token = ""
        while True:
            page = await engine.list(page_size=3, page_token=token)
            seen += [each.request_id for each in page.requests]
            await events_of(engine.generate("a", request_id=f"later{len(seen)}", sampling={"max_tokens": 1}))
            token = page.next_page_token
            if not token:
                break
            clock.advance(1)
        assert seen == [f"r{number}" for number in range(6, -1, -1)]
        states = ["REQUEST_STATE_RUNNING", "REQUEST_STATE_WAITING"]
        assert not (await engine.list(states=states)).requests
        assert len((await engine.list(states=["REQUEST_STATE_ENDED"])).requests) == 10


async def test_a_page_that_holds_all_is_the_last(engine: ScriptedEngine) -> None:
    for number in range(2):
        await events_of(engine.generate("a", request_id=str(number), sampling={"max_tokens": 1}))
    page = await engine.list(page_size=2)
    assert (len(page.requests), page.next_page_token) == (2, "")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_size": 1001}, "page_size"),
        ({"page_token": "?"}, "page_token"),
        ({"page_token": "YWJj"}, "page_token"),
        ({"page_token": "_w"}, "page_token"),
        ({"deployment": ""}, "deployment"),
    ],
)
async def test_a_page_that_cannot_be_is_refused_by_name(
    engine: ScriptedEngine, fields: dict[str, Any], field: str
) -> None:
    assert await refusal_of(asyncio.ensure_future(engine.list(**fields))) == (*INVALID, [field])


async def test_another_deployment_is_not_found(engine: ScriptedEngine) -> None:
    refusal = await refusal_of(asyncio.ensure_future(engine.list(deployment="other")))
    assert refusal == (grpc.StatusCode.NOT_FOUND, "DEPLOYMENT_NOT_FOUND", [])


async def test_what_has_ended_is_listed_for_ten_minutes() -> None:
    clock = FakeClock()
    async with scripted_engine(clock=clock) as engine:
        await events_of(engine.generate("a", request_id="mine", sampling={"max_tokens": 1}))
        clock.advance(599)
        assert len((await engine.list()).requests) == 1
        clock.advance(1)
        assert not (await engine.list()).requests
        assert await refusal_of(asyncio.ensure_future(engine.get("mine"))) == NOT_FOUND
