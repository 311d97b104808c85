"""Clients that cancel what they have sent, at any time and in every way, and check what they are told of it."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import grpc

from benchmarks.support.soak_users import ERRORS_KEPT, Wrong
from roundhouse.kit.channel import cancelling
from roundhouse.kit.status import error_of, reason_name
from roundhouse.v1 import generation_pb2, inference_service_pb2, receipt_pb2
from roundhouse.v1.inference_service_pb2_grpc import InferenceServiceStub

Way = Literal["cancel", "cancel twice", "leave", "cancel before", "cancel after"]
WAYS: Sequence[tuple[Way, float]] = (
    ("cancel", 0.65),
    ("cancel twice", 0.10),
    ("leave", 0.15),
    ("cancel before", 0.05),
    ("cancel after", 0.05),
)
LONGEST_S = 0.4  # from when a request is sent until it is cancelled
MOST_PROMPT, MOST_CHOICES, MOST_TOKENS, FEW_TOKENS = 48, 4, 1_500, 4
TIMEOUT_S = 60.0
_Outcome = receipt_pb2.CancelOutcome
_CANCELLED = receipt_pb2.CANCEL_OUTCOME_CANCELLED
_FINISHED = receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
_NOT_ARRIVED = receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED


@dataclass(frozen=True, slots=True)
class Cancel:
    """How long a cancel of a request that ran or waited took."""

    took_s: float  # from the call to the receipt
    engine_s: float  # the engine's part of that, by the receipt
    step_s: float  # the longest step meanwhile


class Cancellers:
    """All of them, and what their receipts said.

    channels: to gateways; a request goes through one of them, and its cancel through any.
    """

    def __init__(self, channels: Sequence[grpc.aio.Channel], deployment: str, vocabulary: int, seed: int) -> None:
        self._stubs: list[Any] = [InferenceServiceStub(each) for each in channels]
        self._deployment, self._vocabulary, self._seed = deployment, vocabulary, seed
        self.ways: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.steps_after: Counter[int] = Counter()
        self._timings: list[tuple[float, float, float]] = []  # a cancel's call, its receipt, and the engine's part
        self._steps: list[tuple[float, float]] = []  # when a step's tokens came, and how long it took
        self.freed_blocks = 0
        self.error_count = 0
        self.errors: list[str] = []

    async def run(self, number: int, count: int) -> None:
        """Sends and cancels requests, one after the other."""
        chance = random.Random(f"{self._seed}/{number}")
        for turn in range(count):
            [way] = chance.choices([each for each, _ in WAYS], [share for _, share in WAYS])
            try:
                await self._turn(way, f"cancel-{self._seed}-{number}-{turn}", chance)
            except (grpc.RpcError, Wrong) as error:
                self.error_count += 1
                if len(self.errors) < ERRORS_KEPT:
                    self.errors.append(f"{way}: {error}"[:400])
            self.ways[way] += 1

    async def _turn(self, way: Way, request_id: str, chance: random.Random) -> None:
        stub = chance.choice(self._stubs)
        request = self._request(request_id, chance, FEW_TOKENS if way == "cancel after" else MOST_TOKENS)
        if way == "cancel before":
            self._check(await self._cancel(request_id, chance), {_NOT_ARRIVED})
            await self._is_refused(stub, request)
            return
        read = asyncio.create_task(self._read(stub, request))
        try:
            if way == "cancel after":
                told = await read
                self._check(await self._cancel(request_id, chance), {_FINISHED}, told)
                return
            await asyncio.sleep(chance.uniform(0, LONGEST_S))
            if way == "leave":
                read.cancel()
                await asyncio.wait([read])
                self._check(await self._cancel(request_id, chance), {_CANCELLED, _FINISHED, _NOT_ARRIVED})
                return
            receipt = await self._timed(request_id, chance)
            if receipt.outcome == _NOT_ARRIVED:  # it was on its way, and is refused where it comes to
                with contextlib.suppress(grpc.RpcError):
                    await read
                self._check(receipt, {_NOT_ARRIVED})
                return
            self._check(receipt, {_CANCELLED, _FINISHED}, await read)
            if way == "cancel twice" and await self._cancel(request_id, chance) != receipt:
                raise Wrong(f"a second cancel gives another receipt than {receipt}")
        finally:
            read.cancel()
            await asyncio.gather(read, return_exceptions=True)

    def _request(self, request_id: str, chance: random.Random, tokens: int) -> inference_service_pb2.GenerateRequest:
        ids = [chance.randrange(self._vocabulary) for _ in range(chance.randint(1, MOST_PROMPT))]
        return inference_service_pb2.GenerateRequest(
            deployment=self._deployment,
            request_id=request_id,
            prompt=[generation_pb2.ContentPart(token_ids={"ids": ids})],
            sampling=generation_pb2.SamplingParams(
                max_tokens=tokens, n=chance.randint(1, MOST_CHOICES), seed=chance.randrange(1000), ignore_eos=True
            ),
        )

    async def _read(self, stub: Any, request: inference_service_pb2.GenerateRequest) -> int:
        """Returns how many tokens came. Reads to the end."""
        count = 0
        async with cancelling(stub.Generate(request, timeout=TIMEOUT_S)) as call:
            while (message := await call.read()) is not grpc.aio.EOF:
                count += sum(len(event.delta.token_ids) for event in message.events)
        return count

    async def _is_refused(self, stub: Any, request: inference_service_pb2.GenerateRequest) -> None:
        try:
            await self._read(stub, request)
        except grpc.RpcError as error:
            if reason_name(error_of(error).own_reason) == "REQUEST_TOMBSTONED":
                return
            raise
        raise Wrong("it was served though it had been cancelled before it came")

    async def _cancel(self, request_id: str, chance: random.Random) -> receipt_pb2.CancelReceipt:
        request = inference_service_pb2.CancelRequestRequest(deployment=self._deployment, request_id=request_id)
        response = await chance.choice(self._stubs).CancelRequest(request, timeout=TIMEOUT_S)
        receipt: receipt_pb2.CancelReceipt = response.receipt
        return receipt

    async def _timed(self, request_id: str, chance: random.Random) -> receipt_pb2.CancelReceipt:
        begin_s = time.perf_counter()
        receipt = await self._cancel(request_id, chance)
        end_s = time.perf_counter()
        if receipt.outcome == _CANCELLED:
            self._timings.append((begin_s, end_s, receipt.elapsed.ToNanoseconds() / 1e9))
        return receipt

    async def mark_steps(self, ended: asyncio.Event) -> None:
        """Follows requests that nobody cancels: each step brings a token of theirs."""
        number, waiting = 0, asyncio.create_task(ended.wait())
        chance = random.Random(self._seed)
        try:
            while not ended.is_set():
                request = self._request(f"steps-{self._seed}-{number}", chance, MOST_TOKENS)
                request.sampling.n = 1
                marking = asyncio.create_task(self._mark(request))
                await asyncio.wait([marking, waiting], return_when=asyncio.FIRST_COMPLETED)
                marking.cancel()
                await asyncio.gather(marking, return_exceptions=True)
                number += 1
        finally:
            waiting.cancel()

    async def _mark(self, request: inference_service_pb2.GenerateRequest) -> None:
        last_s: float | None = None
        async with cancelling(self._stubs[0].Generate(request, timeout=TIMEOUT_S)) as call:
            while (message := await call.read()) is not grpc.aio.EOF:
                now_s = time.perf_counter()
                count = sum(len(event.delta.token_ids) for event in message.events)
                if count and last_s is not None:
                    self._steps.append((now_s, (now_s - last_s) / count))
                last_s = now_s if count else last_s

    def cancels(self) -> Sequence[Cancel]:
        """Returns those whose steps are known."""
        found = []
        for begin_s, end_s, engine_s in self._timings:
            first = bisect.bisect(self._steps, (begin_s, 0.0))
            last = bisect.bisect(self._steps, (end_s, 0.0))
            during = [step_s for _, step_s in self._steps[first : last + 1]]
            if during:
                found.append(Cancel(end_s - begin_s, engine_s, max(during)))
        return found

    def _check(self, receipt: receipt_pb2.CancelReceipt, may_be: set[_Outcome], told: int | None = None) -> None:
        """Notes a receipt; raises Wrong if it does not add up. told: how many tokens were read."""
        self.outcomes[_Outcome.Name(receipt.outcome).removeprefix("CANCEL_OUTCOME_")] += 1
        if receipt.outcome not in may_be:
            raise Wrong(f"the receipt says {receipt}")
        if told is not None and receipt.output_token_count != told:
            raise Wrong(f"{told} tokens were told, and the receipt says {receipt}")
        if receipt.level != receipt_pb2.CANCEL_LEVEL_FREED:
            return
        freed = receipt.free_block_count - receipt.free_block_count_before
        if freed != receipt.freed_block_count or not 0 <= receipt.free_block_count <= receipt.total_block_count:
            raise Wrong(f"the blocks do not add up: {receipt}")
        if receipt.HasField("steps_after"):
            self.steps_after[receipt.steps_after] += 1
            if receipt.steps_after > 1:
                raise Wrong(f"it was computed for {receipt.steps_after} steps more: {receipt}")
        self.freed_blocks += freed
