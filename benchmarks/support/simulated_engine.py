"""An engine that computes nothing: each sequence in its batch gets a token a step, and every step takes the same time.

Real on the wire, so that a gateway in front of it is measured as it is. Needs nothing but gRPC.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from roundhouse.internal.hops import HOP_KEY
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.fields import invalid
from roundhouse.kit.metadata import metadata_value
from roundhouse.kit.times import from_duration
from roundhouse.v1 import generation_pb2, receipt_pb2
from roundhouse.v1 import inference_service_pb2 as pb

PROMPT_WEIGHT, OUTPUT_WEIGHT = 1, 4  # as engines and gateways weigh them


class _Sequence:
    """A request, from its arrival to its end."""

    def __init__(self, tenant: str, prompt: int, output: int) -> None:
        self.tenant, self.prompt, self.output = tenant, prompt, output
        self.unread = prompt  # of the prompt
        self.count = 0  # of the output
        self.is_cancelled = False
        self.stepped = asyncio.Event()

    @property
    def is_over(self) -> bool:
        return self.is_cancelled or self.count == self.output


class SimulatedEngine:
    """The methods of `InferenceService` that a gateway calls. `served` counts weighted tokens by tenant.

    batch: sequences that run at a time. prompt_tokens: that a step reads at the most, over all sequences.
    """

    def __init__(self, *, batch: int, step_s: float, prompt_tokens: int) -> None:
        self._batch, self._step_s, self._prompt_tokens = batch, step_s, prompt_tokens
        self._waiting: deque[_Sequence] = deque()
        self._running: list[_Sequence] = []
        self._all: dict[str, _Sequence] = {}
        self.served: dict[str, int] = {}
        self.most_waiting = 0
        self.longest_prompt = 10**9  # tokens; longer ones are refused
        self.step_count = 0
        self.max_durations_s: list[float] = []  # of the requests that came, 0 for those that said none

    async def run(self) -> None:
        """Takes steps until cancelled; one that is late is made up for, so that the rate is what was asked for."""
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        while True:
            next_s = max(next_s + self._step_s, loop.time() - 10 * self._step_s)
            await asyncio.sleep(next_s - loop.time())
            self._step()

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> None:  # noqa: N802 - named by the contract
        """Streams as many tokens as are asked for, one a message."""
        packed = metadata_value(context.invocation_metadata(), HOP_KEY)
        hop = hop_pb2.Hop.FromString(packed if isinstance(packed, bytes) else b"")
        prompt = sum(len(part.token_ids.ids) for part in request.prompt)
        if prompt > self.longest_prompt:
            raise invalid("prompt", f"{prompt} tokens are more than {self.longest_prompt}: shorten it")
        sequence = self._all[request.request_id] = _Sequence(hop.tenant, prompt, request.sampling.max_tokens)
        self._waiting.append(sequence)
        self.max_durations_s.append(from_duration(request.options.max_duration))
        try:
            started = generation_pb2.Started(request_id=request.request_id, prompt_token_count=prompt)
            await context.write(pb.GenerateResponse(events=[generation_pb2.GenerationEvent(started=started)]))
            told = 0
            while told < sequence.count or not sequence.is_over:
                await sequence.stepped.wait()
                sequence.stepped.clear()
                if told < sequence.count:
                    delta = generation_pb2.Delta(first_position=told, token_ids=range(told, sequence.count))
                    told = sequence.count
                    await context.write(pb.GenerateResponse(events=[generation_pb2.GenerationEvent(delta=delta)]))
            usage = generation_pb2.Usage(prompt_token_count=prompt, output_token_count=told)
            await context.write(pb.GenerateResponse(events=[generation_pb2.GenerationEvent(usage=usage)]))
        finally:
            sequence.is_cancelled = True
            del self._all[request.request_id]

    async def CancelRequest(self, request: pb.CancelRequestRequest, _: Any) -> pb.CancelRequestResponse:  # noqa: N802
        """Ends a request before the next step."""
        sequence = self._all.get(request.request_id)
        outcome = receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED
        if sequence is not None:
            sequence.is_cancelled = True
            sequence.stepped.set()
            outcome = receipt_pb2.CANCEL_OUTCOME_CANCELLED
        return pb.CancelRequestResponse(
            receipt=receipt_pb2.CancelReceipt(outcome=outcome, attempt=int(sequence is not None))
        )

    def finish(self) -> None:
        """Lets all that run or wait come to their end with their next token."""
        for each in self._all.values():
            each.output = each.count + 1

    def _step(self) -> None:
        self.step_count += 1
        self._running = [each for each in self._running if not each.is_over]
        while self._waiting and len(self._running) < self._batch:
            first = self._waiting.popleft()
            if not first.is_over:
                self._running.append(first)
        self.most_waiting = max(self.most_waiting, len(self._waiting))
        left = self._prompt_tokens
        for each in self._running:
            if each.unread:
                read = min(each.unread, left)
                each.unread -= read
                left -= read
                self._serve(each, PROMPT_WEIGHT * read)
            if not each.unread:
                each.count += 1
                self._serve(each, OUTPUT_WEIGHT)
                each.stepped.set()

    def _serve(self, sequence: _Sequence, weighted: int) -> None:
        self.served[sequence.tenant] = self.served.get(sequence.tenant, 0) + weighted
