"""An engine that hangs holds up nobody whose request another one has."""

from __future__ import annotations

import asyncio
import time

import pytest

from controlplane.gateway.polling import ANSWER_S
from roundhouse.v1 import receipt_pb2, request_pb2
from tests.support.gateway_house import Engine, house, tells_its_name

RUNNING, ENDED = request_pb2.REQUEST_STATE_RUNNING, request_pb2.REQUEST_STATE_ENDED
CANCELLED = receipt_pb2.CANCEL_OUTCOME_CANCELLED


def known(state: request_pb2.RequestState, attempt: int = 1) -> request_pb2.InferenceRequest:
    return request_pb2.InferenceRequest(request_id="r", state=state, attempt=attempt)


@pytest.mark.parametrize("state", [request_pb2.REQUEST_STATE_WAITING, RUNNING])
async def test_what_one_engine_has_is_told_without_another_that_hangs(state: request_pb2.RequestState) -> None:
    engines = [Engine("a", tells_its_name, is_hung=True), Engine("b", tells_its_name, known={"r": known(state)})]
    async with house(*engines) as it:
        begin_s = time.monotonic()
        assert (await it.get("r")).state == state
        assert time.monotonic() - begin_s < ANSWER_S / 2
        assert engines[0].asked == ["r"]


async def test_a_request_that_has_ended_at_one_engine_may_run_at_another_that_is_waited_for() -> None:
    engines = [Engine("a", tells_its_name, is_hung=True), Engine("b", tells_its_name, known={"r": known(ENDED)})]
    async with house(*engines) as it:
        begin_s = time.monotonic()
        assert (await it.get("r", timeout=1)).state == ENDED
        assert time.monotonic() - begin_s > 0.4


async def test_of_two_engines_that_run_an_id_the_later_run_is_told() -> None:
    engines = [Engine(name, tells_its_name, known={"r": known(RUNNING, n)}) for n, name in enumerate("abc", 1)]
    async with house(*engines, Engine("d", tells_its_name, is_hung=True)) as it:
        assert (await it.get("r")).attempt == 3


async def test_a_cancel_is_proved_without_an_engine_that_hangs_which_finds_it_when_it_goes_on() -> None:
    hangs, runs = Engine("a", tells_its_name, is_mute=True), Engine("b", tells_its_name, has={"r"})
    async with house(hangs, runs) as it:
        begin_s = time.monotonic()
        receipt = await it.cancel("r")
        assert (receipt.outcome, receipt.replica) == (CANCELLED, "b")
        assert time.monotonic() - begin_s < ANSWER_S / 2
        hangs.released.set()
        assert await asyncio.wait_for(hangs.cancelled.get(), 10) == "r"


async def test_a_cancel_waits_for_an_engine_that_may_run_what_has_ended_at_another() -> None:
    hangs, ended = Engine("a", tells_its_name, is_mute=True, has={"r"}), Engine("b", tells_its_name, finished={"r"})
    async with house(hangs, ended) as it:
        cancelling = asyncio.create_task(it.cancel("r"))
        await asyncio.wait_for(hangs.cancels.get(), 10)
        hangs.released.set()
        receipt = await cancelling
        assert (receipt.outcome, receipt.replica) == (CANCELLED, "a")
