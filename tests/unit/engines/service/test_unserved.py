"""Receipts of requests that ended while they waited at a gateway, which leaves them here for others to find."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from engines.service.requests import Memory
from roundhouse.v1 import receipt_pb2, request_pb2
from tests.support.clock import FakeClock
from tests.support.scripted_engine import ScriptedEngine, events_of, refusal_of, scripted_engine, text_of

CLIENT = receipt_pb2.CANCEL_CAUSE_CLIENT
DISCONNECT = receipt_pb2.CANCEL_CAUSE_DISCONNECT
DEADLINE = receipt_pb2.CANCEL_CAUSE_DEADLINE
EVICTED = receipt_pb2.CANCEL_CAUSE_EVICTED
CAUSES = [
    pytest.param(CLIENT, id="cancelled"),
    pytest.param(DISCONNECT, id="left"),
    pytest.param(DEADLINE, id="too late"),
    pytest.param(EVICTED, id="put out"),
]
TOMBSTONED: tuple[object, ...] = (grpc.StatusCode.ABORTED, "REQUEST_TOMBSTONED", [])
NOT_FOUND: tuple[object, ...] = (grpc.StatusCode.NOT_FOUND, "REQUEST_NOT_FOUND", [])


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine() as it:
        yield it


def receipt_of(
    cause: receipt_pb2.CancelCause, request_id: str = "mine", *, time_s: int = 1000
) -> receipt_pb2.CancelReceipt:
    """Returns the receipt of a request with two choices, as a gateway writes it."""
    is_cancelled = cause in (CLIENT, DISCONNECT)
    return receipt_pb2.CancelReceipt(
        deployment="chat",
        request_id=request_id,
        outcome=receipt_pb2.CANCEL_OUTCOME_CANCELLED if is_cancelled else receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED,
        level=receipt_pb2.CANCEL_LEVEL_STOPPED,
        cause=cause,
        positions=[receipt_pb2.ChoicePosition(choice=0), receipt_pb2.ChoicePosition(choice=1)],
        output_token_count=0,
        receipt_time={"seconds": time_s},
    )


async def deposit(
    engine: ScriptedEngine, receipt: receipt_pb2.CancelReceipt, principal: str = "local"
) -> receipt_pb2.CancelReceipt:
    answer: receipt_pb2.CancelReceipt = await engine.cancel(receipt.request_id, unserved=receipt, principal=principal)
    return answer


@pytest.mark.parametrize("cause", CAUSES)
async def test_a_receipt_that_is_left_here_is_what_everybody_is_told(
    engine: ScriptedEngine, cause: receipt_pb2.CancelCause
) -> None:
    receipt = receipt_of(cause)
    assert await deposit(engine, receipt) == receipt
    assert await engine.cancel("mine") == receipt
    request = await engine.get("mine")
    assert (request.state, request.receipt) == (request_pb2.REQUEST_STATE_ENDED, receipt)
    assert (request.deployment, request.request_id) == ("chat", "mine")
    assert (request.attempt, request.location, request.replica) == (0, "", "")
    assert list(request.positions) == list(receipt.positions)
    assert list((await engine.list()).requests) == [request]
    assert await refusal_of(engine.attach("mine")) == NOT_FOUND


async def test_one_whose_receipt_says_that_it_was_cancelled_is_refused_for_as_long_as_that_is_kept() -> None:
    clock = FakeClock()
    async with scripted_engine(clock=clock) as engine:
        await deposit(engine, receipt_of(CLIENT))
        clock.advance(599)
        assert await refusal_of(engine.generate(request_id="mine")) == TOMBSTONED
        clock.advance(1)
        assert await refusal_of(asyncio.ensure_future(engine.get("mine"))) == NOT_FOUND
        assert await text_of(engine.generate("a", request_id="mine", sampling={"max_tokens": 2})) == "ab"


@pytest.mark.parametrize("cause", CAUSES[1:])
async def test_one_that_waited_in_vain_may_come_again_and_then_its_own_end_is_told(
    engine: ScriptedEngine, cause: receipt_pb2.CancelCause
) -> None:
    await deposit(engine, receipt_of(cause))
    assert await text_of(engine.generate("a", request_id="mine", sampling={"max_tokens": 2})) == "ab"
    receipt = await engine.cancel("mine")
    assert (receipt.attempt, receipt.output_token_count) == (1, 2)
    (request,) = (await engine.list()).requests
    assert (request.attempt, request.receipt) == (1, receipt)


async def test_one_that_waited_in_vain_is_refused_for_a_minute_once_it_is_cancelled() -> None:
    clock = FakeClock()
    async with scripted_engine(clock=clock) as engine:
        receipt = receipt_of(DISCONNECT)
        await deposit(engine, receipt)
        assert await engine.cancel("mine") == receipt
        assert await refusal_of(engine.generate(request_id="mine")) == TOMBSTONED
        assert (await engine.get("mine")).receipt == receipt
        clock.advance(60)
        assert await text_of(engine.generate("a", request_id="mine", sampling={"max_tokens": 2})) == "ab"


@pytest.mark.parametrize("cause", CAUSES)
async def test_a_request_that_runs_is_not_touched(engine: ScriptedEngine, cause: receipt_pb2.CancelCause) -> None:
    engine.runner.hold()
    call = engine.generate("a", request_id="mine", sampling={"max_tokens": 3})
    await call.read()
    answer = await deposit(engine, receipt_of(cause))
    assert (answer.outcome, answer.attempt) == (receipt_pb2.CANCEL_OUTCOME_UNPROVEN, 1)
    assert (await engine.get("mine")).attempt == 1
    engine.runner.go()
    assert await text_of(call) == "abc"
    assert (await engine.cancel("mine")).output_token_count == 3


@pytest.mark.parametrize("cause", CAUSES)
async def test_a_request_that_has_run_keeps_its_receipt(engine: ScriptedEngine, cause: receipt_pb2.CancelCause) -> None:
    await events_of(engine.generate("a", request_id="mine", sampling={"max_tokens": 1}))
    receipt = await engine.cancel("mine")
    assert await deposit(engine, receipt_of(cause)) == receipt
    assert await engine.cancel("mine") == receipt
    assert [each.attempt for each in (await engine.list()).requests] == [1]


async def test_of_several_for_one_id_the_newest_is_kept_and_that_of_a_cancel_for_good(engine: ScriptedEngine) -> None:
    old, new, cancel, last = (
        receipt_of(cause, time_s=time_s) for time_s, cause in enumerate((EVICTED, DISCONNECT, CLIENT, DEADLINE))
    )
    assert await deposit(engine, new) == new
    assert await deposit(engine, old) == new
    assert await deposit(engine, cancel) == cancel
    assert await deposit(engine, last) == cancel
    assert await engine.cancel("mine") == cancel
    assert len((await engine.list()).requests) == 1


async def test_a_receipt_tells_another_principal_nothing(engine: ScriptedEngine) -> None:
    await deposit(engine, receipt_of(CLIENT), principal="other")
    assert await refusal_of(asyncio.ensure_future(engine.get("mine"))) == NOT_FOUND
    assert not (await engine.list()).requests
    assert await text_of(engine.generate("a", request_id="mine", sampling={"max_tokens": 2})) == "ab"


async def test_however_many_are_left_here_those_of_requests_that_ran_stay() -> None:
    async with scripted_engine(memory=Memory(receipt_limit=2)) as engine:
        await events_of(engine.generate("a", request_id="ran", sampling={"max_tokens": 1}))
        for number in range(3):
            await deposit(engine, receipt_of(EVICTED, str(number), time_s=number))
        assert {each.request_id for each in (await engine.list()).requests} == {"ran", "1", "2"}
