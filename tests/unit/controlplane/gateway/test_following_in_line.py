"""A request that waits for its turn has several callers, and some leave."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest

from roundhouse.kit.channel import cancelling
from roundhouse.v1 import generation_pb2, inference_service_pb2, receipt_pb2, request_pb2
from tests.support.gateway_fronts import PATIENCE_S, Front, cluster

CLIENT, DISCONNECT = receipt_pb2.CANCEL_CAUSE_CLIENT, receipt_pb2.CANCEL_CAUSE_DISCONNECT
WAITING, ENDED = request_pb2.REQUEST_STATE_WAITING, request_pb2.REQUEST_STATE_ENDED
TTL_S = 0.05


def generate(front: Front, *, detaches: bool) -> Any:
    """Calls for `mine`, the same request each time."""
    request = inference_service_pb2.GenerateRequest(
        deployment="chat", request_id="mine", prompt=[{"text": "a"}], sampling={"max_tokens": 4}
    )
    if detaches:
        request.options.on_disconnect.policy = generation_pb2.DISCONNECT_POLICY_DETACH
        request.options.on_disconnect.ttl.FromNanoseconds(round(TTL_S * 1e9))
    return front.stub.Generate(request, timeout=PATIENCE_S)


def attach(front: Front) -> Any:
    request = inference_service_pb2.AttachRequest(deployment="chat", request_id="mine")
    return front.stub.Attach(request, timeout=PATIENCE_S)


async def events_of(call: Any) -> list[Any]:
    events: list[Any] = []
    while (message := await call.read()) is not grpc.aio.EOF:
        events += message.events
    return events


async def stays(front: Front, arrival: Any, seconds: float) -> None:
    """Looks for a while, and no fewer than ten times, whether `mine` keeps its place in the line."""
    end_s, looks = time.monotonic() + seconds, 0
    while looks < 10 or time.monotonic() < end_s:
        found = await front.get("mine")
        assert (found.state, found.arrival_time) == (WAITING, arrival)
        looks += 1


@pytest.mark.parametrize("attaches", [pytest.param(False, id="sent again"), pytest.param(True, id="attached")])
@pytest.mark.parametrize("detaches", [pytest.param(False, id="cancelled"), pytest.param(True, id="detached")])
async def test_a_request_keeps_its_place_in_the_line_for_one_who_follows_when_the_first_has_left(
    detaches: bool, attaches: bool
) -> None:
    async with cluster() as (engine, a, _), a.in_line("other"):
        first = generate(a, detaches=detaches)
        await a.until("mine", WAITING)
        arrival = (await a.get("mine")).arrival_time
        async with cancelling(attach(a) if attaches else generate(a, detaches=detaches)) as second:
            await stays(a, arrival, 0)
            first.cancel()
            await stays(a, arrival, 4 * TTL_S)
            engine.runner.go()
            assert "".join(each.delta.text for each in await events_of(second)) == "abcd"


@pytest.mark.parametrize("detaches", [pytest.param(False, id="cancelled"), pytest.param(True, id="detached")])
async def test_a_request_leaves_the_line_when_the_last_one_who_follows_has_left(detaches: bool) -> None:
    async with cluster() as (_, a, _b), a.in_line("other"):
        first = generate(a, detaches=detaches)
        await a.until("mine", WAITING)
        second, third = generate(a, detaches=detaches), attach(a)
        await stays(a, (await a.get("mine")).arrival_time, 0)
        for each in (first, third, second):
            each.cancel()
        await a.until("mine", ENDED)
        assert (await a.get("mine")).receipt.cause == DISCONNECT


async def test_whoever_is_attached_to_a_request_that_is_cancelled_in_the_line_is_told_so() -> None:
    async with cluster() as (_, a, _b), a.in_line("other"), cancelling(generate(a, detaches=False)) as first:
        await a.until("mine", WAITING)
        async with cancelling(attach(a)) as second:
            await stays(a, (await a.get("mine")).arrival_time, 0)
            assert (await a.cancel("mine")).cause == CLIENT
            for call in (first, second):
                ends = [each.finished for each in await events_of(call) if each.HasField("finished")]
                assert [(each.reason, each.cancel_cause) for each in ends] == [
                    (generation_pb2.FINISH_REASON_CANCELLED, CLIENT)
                ]
