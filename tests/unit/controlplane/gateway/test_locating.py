"""Clients that come back to a request which has ended, was lost, never came, or is on its way to its first engine."""

from __future__ import annotations

import grpc
import pytest

from controlplane.model import Routes
from roundhouse.v1 import receipt_pb2, request_pb2
from tests.support.gateway_house import (
    Engine,
    House,
    house,
    reason_of,
    tells_its_name,
)

NOT_FOUND = grpc.StatusCode.NOT_FOUND, "REQUEST_NOT_FOUND"
ENDED, NEVER_CAME = request_pb2.REQUEST_STATE_ENDED, request_pb2.REQUEST_STATE_NEVER_CAME


def told(
    state: request_pb2.RequestState, *, attempt: int = 1, cause: receipt_pb2.CancelCause = 0
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
