"""Requests are cancelled while they have lost one engine and have no other yet, and what their receipts say."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from controlplane.model import Route
from roundhouse.v1 import generation_pb2, inference_service_pb2, receipt_pb2, request_pb2
from tests.support.between_engines import PROMPT, Heard, between, hands_over, has_no_room, tell
from tests.support.gateway_house import House, reason_of

OWN = "deployments/chat/replicas/0"
UNPROVEN = receipt_pb2.CANCEL_OUTCOME_UNPROVEN


@contextlib.asynccontextmanager
async def searching(own: Heard, *, is_there: bool) -> AsyncIterator[tuple[House, Any, list[Route]]]:
    """Gives a gateway that looks for another engine for `r`; is_there: whether the routes show that which it lost."""
    full = Heard("full", has_no_room)
    async with between(own, full) as (it, call, routes):
        tell(it, *routes[0 if is_there else 1 :])
        await full.was_asked.wait()
        yield it, call, routes


async def get(it: House) -> request_pb2.InferenceRequest:
    request = inference_service_pb2.GetRequestRequest(deployment="chat", request_id="r")
    response: inference_service_pb2.GetRequestResponse = await it.stub.GetRequest(request, timeout=5)
    return response.request


async def reasons_of(call: Any) -> list[int]:
    """Reads a stream to its end and returns why its choices ended."""
    reasons = []
    while (message := await call.read()) is not grpc.aio.EOF:
        reasons += [each.finished.reason for each in message.events if each.HasField("finished")]
    return reasons


async def test_a_cancel_proves_nothing_while_the_engine_that_was_lost_is_there_but_silent() -> None:
    own = Heard("own", hands_over, is_mute=True, is_hung=True)
    async with searching(own, is_there=True) as (it, call, routes):
        for _ in range(2):
            receipt = await it.cancel("r", timeout=1)
            assert (receipt.outcome, list(receipt.unreachable)) == (UNPROVEN, [OWN])
            assert receipt.level == receipt_pb2.CANCEL_LEVEL_UNSPECIFIED
        assert await reasons_of(call) == [generation_pb2.FINISH_REASON_CANCELLED]
        with pytest.raises(grpc.RpcError) as refusal:
            await get(it)
        assert reason_of(refusal.value) == (grpc.StatusCode.UNAVAILABLE, "INTERRUPTED")
        tell(it, routes[1])
        assert (await it.cancel("r", timeout=1)).outcome == receipt_pb2.CANCEL_OUTCOME_LOST


async def test_a_cancel_that_proved_nothing_is_proved_by_the_engine_once_it_answers() -> None:
    own = Heard("own", hands_over, is_mute=True)
    async with searching(own, is_there=True) as (it, call, _):
        assert (await it.cancel("r", timeout=1)).outcome == UNPROVEN
        await reasons_of(call)
        own.is_mute = False
        receipt = await it.cancel("r")
        assert (receipt.outcome, receipt.replica) == (receipt_pb2.CANCEL_OUTCOME_CANCELLED, "own")


@pytest.mark.parametrize("is_there", [pytest.param(True, id="it answers"), pytest.param(False, id="it is over")])
async def test_a_cancel_between_two_engines_is_proved_if_the_lost_one_has_it_no_more_and_stays_so(
    is_there: bool,
) -> None:
    own = Heard("own", hands_over, is_mute=not is_there)
    async with searching(own, is_there=is_there) as (it, call, _):
        own.has.clear()
        receipt = await it.cancel("r", timeout=2)
        assert (receipt.outcome, receipt.level, receipt.cause) == (
            receipt_pb2.CANCEL_OUTCOME_CANCELLED,
            receipt_pb2.CANCEL_LEVEL_STOPPED,
            receipt_pb2.CANCEL_CAUSE_CLIENT,
        )
        assert list(receipt.positions) == [receipt_pb2.ChoicePosition(choice=0, output_token_count=1)]
        assert (receipt.prompt_token_count, receipt.output_token_count) == (len(PROMPT), 1)
        assert (receipt.attempt, receipt.replica, list(receipt.unreachable)) == (1, OWN, [])
        assert await it.cancel("r", timeout=2) == receipt
        assert await reasons_of(call) == [generation_pb2.FINISH_REASON_CANCELLED]
        assert await it.cancel("r", timeout=2) == receipt
        told = await get(it)
        assert (told.state, told.attempt, told.receipt) == (request_pb2.REQUEST_STATE_ENDED, 1, receipt)
