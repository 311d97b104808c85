"""Clients of a soak: each sends one request after another, and most read them to their end.

Some cancel by id, some just leave, some read slowly. What goes wrong beyond that is an error, and kept in words.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import grpc

from benchmarks.support.token_reader import METHOD, request
from benchmarks.support.token_source import DEPLOYMENT
from roundhouse.kit.channel import cancelling
from roundhouse.v1 import generation_pb2, inference_service_pb2, receipt_pb2

Fate = Literal["read", "cancel", "leave", "read slowly"]
FATES: Sequence[tuple[Fate, float]] = (("read", 0.80), ("cancel", 0.10), ("leave", 0.05), ("read slowly", 0.05))
RATE = 100.0  # tokens a second of each stream
FEWEST, MOST = 20, 600  # tokens of a stream
SLOW_RATE = 2_000.0  # so that far more comes than is read
PAUSE_S = 0.05  # of one who reads slowly, behind each message
ERRORS_KEPT = 20
_CANCELLED = (receipt_pb2.CANCEL_OUTCOME_CANCELLED, receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED)
_ENDS = (generation_pb2.FINISH_REASON_LENGTH, generation_pb2.FINISH_REASON_CANCELLED)
_CancelRequest = inference_service_pb2.CancelRequestRequest


class Wrong(Exception):
    """Something came that should not have."""


class Users:
    """All of them, and what became of their requests."""

    def __init__(
        self, channels: Sequence[grpc.aio.Channel], slow: grpc.aio.Channel, seed: int, *, most_tokens: int = MOST
    ) -> None:
        """slow: for those who read slowly; its windows are small, so that what they do not read is held elsewhere."""
        self._calls: list[Any] = [each.unary_stream(METHOD) for each in channels]
        self._slow: Any = slow.unary_stream(METHOD)
        self._cancel: Any = channels[0].unary_unary(
            METHOD.replace("Generate", "CancelRequest"),
            request_serializer=_CancelRequest.SerializeToString,
            response_deserializer=inference_service_pb2.CancelRequestResponse.FromString,
        )
        self._seed, self._most_tokens = seed, most_tokens
        self.requests: Counter[str] = Counter()  # that have ended, by fate
        self.tokens = 0
        self.error_count = 0
        self.errors: list[str] = []

    async def run(self, number: int, ending: asyncio.Event) -> None:
        """Sends requests until it is said to end, and reads the last one as the others."""
        chance = random.Random(f"{self._seed}/{number}")
        call = self._calls[number % len(self._calls)]
        while not ending.is_set():
            [fate] = chance.choices([each for each, _ in FATES], [share for _, share in FATES])
            count = chance.randint(FEWEST, self._most_tokens)
            try:
                await self._request(self._slow if fate == "read slowly" else call, fate, count, chance)
            except (grpc.RpcError, Wrong) as error:
                self.error_count += 1
                if len(self.errors) < ERRORS_KEPT:
                    self.errors.append(f"{fate}: {error}"[:300])
                await asyncio.sleep(0.1)
            self.requests[fate] += 1

    async def _request(self, call: Any, fate: Fate, count: int, chance: random.Random) -> None:
        rate = SLOW_RATE if fate == "read slowly" else RATE
        name = f"soak-{chance.getrandbits(64):x}"
        body = request(name, 1, rate, count)
        stop_at = chance.randrange(count)  # where one who cancels or leaves has had enough
        position, finished = 0, generation_pb2.Finished()
        cancel: asyncio.Task[None] | None = None
        async with cancelling(call(body)) as stream:
            while (message := await stream.read()) is not grpc.aio.EOF:
                for event in inference_service_pb2.GenerateResponse.FromString(message).events:
                    if event.HasField("delta"):
                        position = self._behind(position, event.delta)
                    elif event.HasField("finished"):
                        finished = event.finished
                if fate == "read slowly":
                    await asyncio.sleep(PAUSE_S)
                elif position > stop_at and fate == "leave":
                    return
                elif position > stop_at and fate == "cancel" and cancel is None:
                    cancel = asyncio.create_task(self._cancelled(body))
        if cancel is not None:
            await cancel
        if finished.output_token_count != position or finished.reason not in _ENDS:
            raise Wrong(f"{position} tokens came, and the end was {finished}")
        if finished.reason == generation_pb2.FINISH_REASON_LENGTH and position != count:
            raise Wrong(f"{position} tokens came of {count}")
        if finished.reason == generation_pb2.FINISH_REASON_CANCELLED and fate != "cancel":
            raise Wrong("it was cancelled by nobody")

    def _behind(self, position: int, delta: generation_pb2.Delta) -> int:
        if delta.first_position != position:
            raise Wrong(f"position {delta.first_position} came behind {position} tokens")
        self.tokens += len(delta.token_ids)
        return position + len(delta.token_ids)

    async def _cancelled(self, body: bytes) -> None:
        name = inference_service_pb2.GenerateRequest.FromString(body).request_id
        response = await self._cancel(_CancelRequest(deployment=DEPLOYMENT, request_id=name), timeout=30)
        if response.receipt.outcome not in _CANCELLED:
            raise Wrong(f"the receipt of a cancel says {response.receipt.outcome}")
