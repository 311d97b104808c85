"""Inference that plays a script: the answer repeats the prompt, word by word.

A prompt of `break` ends the stream with an error after one word, `wait` says nothing and waits. With `ignore_eos` the
words go on until `max_tokens`, or for ever. Of several choices, those behind the first put their number to each word.
"""

from __future__ import annotations

import asyncio
import itertools

from roundhouse.kit.errors import NotFound, TooLong, Unreachable
from roundhouse.kit.service import Context
from roundhouse.kit.times import to_duration
from roundhouse.v1 import errors_pb2, generation_pb2, inference_service_pb2, receipt_pb2

CONTEXT_TOKENS = 2048
_STEP_S = 0.002


class ScriptedInference:
    """InferenceService. `arrived` tells the ids of requests, `left` those whose callers went away."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[str] = asyncio.Queue()
        self.left: asyncio.Queue[str] = asyncio.Queue()
        self.requests: list[inference_service_pb2.GenerateRequest | inference_service_pb2.ChatRequest] = []
        self._ended: dict[str, asyncio.Event] = {}
        self._counts: dict[str, int] = {}

    async def Generate(self, request: inference_service_pb2.GenerateRequest, context: Context) -> None:
        prompt = "".join(part.text or " ".join(map(str, part.token_ids.ids)) for part in request.prompt)
        await self._serve(request, prompt, inference_service_pb2.GenerateResponse, context)

    async def Chat(self, request: inference_service_pb2.ChatRequest, context: Context) -> None:
        prompt = "".join(part.text for part in request.messages[-1].content)
        await self._serve(request, prompt, inference_service_pb2.ChatResponse, context)

    async def CancelRequest(
        self, request: inference_service_pb2.CancelRequestRequest, context: Context
    ) -> inference_service_pb2.CancelRequestResponse:
        self._check(request.deployment)
        receipt = receipt_pb2.CancelReceipt(deployment=request.deployment, request_id=request.request_id)
        ended = self._ended.get(request.request_id)
        if request.request_id == "ghost":
            receipt.outcome = receipt_pb2.CANCEL_OUTCOME_UNPROVEN
            receipt.unreachable.append("deployments/demo/replicas/1")
        elif ended is None:
            receipt.outcome = receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED
        else:
            ended.set()
            receipt.MergeFrom(
                receipt_pb2.CancelReceipt(
                    outcome=receipt_pb2.CANCEL_OUTCOME_CANCELLED,
                    level=receipt_pb2.CANCEL_LEVEL_FREED,
                    cause=receipt_pb2.CANCEL_CAUSE_CLIENT,
                    prompt_token_count=5,
                    output_token_count=self._counts[request.request_id],
                    freed_block_count=3,
                    free_block_count_before=97,
                    free_block_count=100,
                    total_block_count=100,
                    elapsed=to_duration(0.0021),
                    replica="deployments/demo/replicas/0",
                )
            )
        return inference_service_pb2.CancelRequestResponse(receipt=receipt)

    async def _serve(
        self,
        request: inference_service_pb2.GenerateRequest | inference_service_pb2.ChatRequest,
        prompt: str,
        response: type[inference_service_pb2.GenerateResponse | inference_service_pb2.ChatResponse],
        context: Context,
    ) -> None:
        self._check(request.deployment)
        self.requests.append(request)
        words = prompt.split(" ")
        if len(words) > CONTEXT_TOKENS:
            raise TooLong(f"the prompt has {len(words)} tokens, the context {CONTEXT_TOKENS}: shorten it")
        ended = self._ended.setdefault(request.request_id, asyncio.Event())
        try:
            started = generation_pb2.Started(
                request_id=request.request_id,
                location="here",
                replica=f"deployments/{request.deployment}/replicas/0",
                prompt_token_count=len(words),
            )
            await context.write(response(events=[generation_pb2.GenerationEvent(started=started)]))
            if isinstance(request, inference_service_pb2.GenerateRequest) and request.echo:
                echoed = generation_pb2.Prompt(token_ids=range(len(words)), text=f"{prompt} ")
                await context.write(response(events=[generation_pb2.GenerationEvent(prompt=echoed)]))
            self.arrived.put_nowait(request.request_id)
            if prompt == "wait":
                await ended.wait()
            await self._write_words(request, words, response, ended, context)
        except asyncio.CancelledError:
            self.left.put_nowait(request.request_id)
            raise

    async def _write_words(
        self,
        request: inference_service_pb2.GenerateRequest | inference_service_pb2.ChatRequest,
        words: list[str],
        response: type[inference_service_pb2.GenerateResponse | inference_service_pb2.ChatResponse],
        ended: asyncio.Event,
        context: Context,
    ) -> None:
        asked, choices = request.sampling.max_tokens or 10**9, request.sampling.n or 1
        reason = generation_pb2.FINISH_REASON_STOP_TOKEN
        count = 0
        for count, word in enumerate(itertools.cycle(words) if request.sampling.ignore_eos else words):
            if ended.is_set() or count >= asked:
                reason = (
                    generation_pb2.FINISH_REASON_CANCELLED if ended.is_set() else generation_pb2.FINISH_REASON_LENGTH
                )
                break
            for choice in range(choices):
                said = f"{word}{choice or ''}"
                delta = generation_pb2.Delta(
                    choice=choice, first_position=count, token_ids=[count], text=said if count == 0 else f" {said}"
                )
                await context.write(response(events=[generation_pb2.GenerationEvent(delta=delta)]))
            if word == "break":
                raise Unreachable('the engine of "demo-0" is lost', reason=errors_pb2.ERROR_REASON_ENGINE_LOST)
            self._counts[request.request_id] = count + 1
            await asyncio.sleep(_STEP_S)
        count = self._counts.get(request.request_id, 0)
        finishes = [
            generation_pb2.Finished(choice=choice, reason=reason, output_token_count=count) for choice in range(choices)
        ]
        usage = generation_pb2.Usage(
            prompt_token_count=len(words),
            output_token_count=count * choices,
            first_token_duration=to_duration(0.041),
            total_duration=to_duration(0.3),
        )
        events = [generation_pb2.GenerationEvent(finished=each) for each in finishes]
        await context.write(response(events=[*events, generation_pb2.GenerationEvent(usage=usage)]))

    def _check(self, deployment: str) -> None:
        if deployment == "asleep":
            raise Unreachable('deployment "asleep" has no replica that is READY: wait for one', retry_after_s=1.0)
        if deployment != "demo":
            raise NotFound(f'deployment "{deployment}" is unknown: list them, or create it')
