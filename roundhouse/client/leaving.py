"""Ends requests that their callers have left: in the background, and in bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import random

from roundhouse.client.connection import Connection
from roundhouse.kit.backoff import Backoff
from roundhouse.kit.errors import RoundhouseError, Unreachable
from roundhouse.kit.tasks import Background
from roundhouse.v1 import inference_service_pb2, receipt_pb2
from roundhouse.v1.inference_service_pb2_grpc import InferenceServiceStub

LEAVE_S = 2.0  # what does not get through in that time ends by itself, when nobody has followed it for a while
_BACKOFF = Backoff(first_s=0.05, cap_s=0.5, jitter=0.5)

ComingReceipt = asyncio.Future[receipt_pb2.CancelReceipt | None]


class Leaving:
    """Sends cancels over a connection. Its end waits for those that are on their way."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._background = Background(grace_s=LEAVE_S)

    def cancel(self, request: inference_service_pb2.CancelRequestRequest, sent_to: int) -> ComingReceipt:
        """Returns what will hold the receipt; None if there is none in time.

        sent_to: the place of the address where the request was sent. It may wait in a line there, of which no other
        gateway knows.
        """
        coming: ComingReceipt = asyncio.get_running_loop().create_future()
        self._background.start(self._cancel(request, sent_to, coming), f"leave {request.request_id}")
        return coming

    async def close(self) -> None:
        """Waits for what is on its way."""
        await self._background.__aexit__(None, None, None)

    async def _cancel(
        self, request: inference_service_pb2.CancelRequestRequest, sent_to: int, coming: ComingReceipt
    ) -> None:
        receipt = None
        try:
            with contextlib.suppress(RoundhouseError, TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    receipt = await self._send(request, sent_to)
        finally:
            if not coming.done():
                coming.set_result(receipt)

    async def _send(self, request: inference_service_pb2.CancelRequestRequest, place: int) -> receipt_pb2.CancelReceipt:
        failures = 0
        while True:
            try:
                stub = self._connection.stub(InferenceServiceStub)
                response: inference_service_pb2.CancelRequestResponse = await self._connection.unary(
                    stub.CancelRequest, request, LEAVE_S, first=place
                )
            except Unreachable:
                place = self._connection.move_on(place)
                await asyncio.sleep(_BACKOFF.delay_s(failures, random.random()))
                failures += 1
            else:
                return response.receipt
