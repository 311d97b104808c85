"""Clients that come back to a request which has ended, was lost, never came, or is on its way to its first engine."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from controlplane.model import Routes
from roundhouse.kit.errors import Unreachable
from roundhouse.v1 import errors_pb2, receipt_pb2, request_pb2
from tests.support.gateway_house import (
    Engine,
    House,
    breaks_after_the_first_token,
    house,
    reason_of,
    tells_its_name,
)

NOT_FOUND = grpc.StatusCode.NOT_FOUND, "REQUEST_NOT_FOUND"
ENDED, NEVER_CAME = request_pb2.REQUEST_STATE_ENDED, request_pb2.REQUEST_STATE_NEVER_CAME


def told(
    state: request_pb2.RequestState,
    *,
    attempt: int = 1,
    cause: receipt_pb2.CancelCause = receipt_pb2.CANCEL_CAUSE_UNSPECIFIED,
) -> request_pb2.InferenceRequest:
    receipt = receipt_pb2.CancelReceipt(request_id="r", cause=cause)
    return request_pb2.InferenceRequest(request_id="r", state=state, attempt=attempt, receipt=receipt)


async def refusal_of(it: House, *, location: str = "") -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as refusal:
        await it.attach("r", location=location)
    return reason_of(refusal.value)


@pytest.mark.parametrize(
    "known",
    [
        pytest.param(told(ENDED), id="it ended, and its events are not kept any more"),
        pytest.param(told(NEVER_CAME, attempt=0), id="it was cancelled before it came"),
        pytest.param(told(ENDED, cause=receipt_pb2.CANCEL_CAUSE_ORPHANED), id="it was given up, and nobody took it up"),
    ],
)
async def test_a_request_of_which_an_engine_keeps_the_receipt_alone_is_not_found(
    known: request_pb2.InferenceRequest,
) -> None:
    async with house(Engine("a", tells_its_name, known={"r": known}), Engine("b", tells_its_name)) as it:
        assert await refusal_of(it) == NOT_FOUND


async def test_a_request_that_was_given_up_may_be_at_an_engine_that_is_silent() -> None:
    given_up = told(ENDED, cause=receipt_pb2.CANCEL_CAUSE_HANDOVER)
    async with house(Engine("a", tells_its_name, known={"r": given_up})) as it:
        it.routes.set(Routes(it.routes.get().replicas, is_current=False))
        assert await refusal_of(it) == (grpc.StatusCode.UNAVAILABLE, "INTERRUPTED")


async def test_clients_that_come_back_to_a_request_that_was_lost_here_are_told_so() -> None:
    async with house(Engine("half", breaks_after_the_first_token)) as it:
        with pytest.raises(grpc.RpcError):
            await it.collect("r")
        it.routes.set(Routes({"chat": ()}))
        lost = grpc.StatusCode.ABORTED, "REQUEST_LOST"
        assert [*await asyncio.gather(refusal_of(it), refusal_of(it))] == [lost, lost]


async def test_a_request_that_is_at_no_engine_is_looked_for_a_few_times_in_growing_pauses() -> None:
    async with house(engine := Engine("a", tells_its_name)) as it:
        assert await refusal_of(it, location="at an engine of before") == NOT_FOUND
        assert 2 <= len(engine.asked) <= 9


class Dies:
    """An engine that refuses the first call, once the second has come to the gateway, and serves those after it."""

    def __init__(self) -> None:
        self.has_come, self.refuses = asyncio.Event(), asyncio.Event()

    async def __call__(self, engine: Engine, request: Any, context: Any) -> None:
        if len(engine.hops) > 1:
            await tells_its_name(engine, request, context)
            return
        self.has_come.set()
        await self.refuses.wait()
        raise Unreachable("going down: try again", reason=errors_pb2.ERROR_REASON_DRAINING)


async def ends_of_two_calls(it: House, engine: Engine, dies: Dies, *, is_gone: bool) -> list[Any]:
    """Returns how two calls of one request end if its only engine refuses the first, which the second waits for."""
    first = asyncio.create_task(it.collect("r"))
    await dies.has_come.wait()
    second = asyncio.create_task(it.collect("r"))
    await asyncio.sleep(0)  # begins it
    with pytest.raises(grpc.RpcError):  # calls of one connection come in order, so that the second has come by then
        await it.get("r")
    assert len(engine.hops) == 1
    if is_gone:
        it.routes.set(Routes({"chat": ()}))
    dies.refuses.set()
    ends = await asyncio.gather(first, second, return_exceptions=True)
    return [reason_of(each) if isinstance(each, grpc.RpcError) else each for each in ends]


async def test_of_two_calls_of_a_request_that_no_engine_takes_both_are_told_so() -> None:
    dies = Dies()
    async with house(engine := Engine("a", dies)) as it:
        untaken = grpc.StatusCode.UNAVAILABLE, "NO_READY_REPLICA"
        assert await ends_of_two_calls(it, engine, dies, is_gone=True) == [untaken, untaken]


async def test_a_call_finds_a_request_its_place_that_the_engine_did_not_take_from_the_call_before() -> None:
    dies = Dies()
    async with house(engine := Engine("a", dies)) as it:
        untaken = grpc.StatusCode.UNAVAILABLE, "NO_READY_REPLICA"
        assert await ends_of_two_calls(it, engine, dies, is_gone=False) == [untaken, "a"]
