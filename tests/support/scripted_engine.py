"""An engine whose services, step loop and batcher are the real ones, and whose model does what a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from engines.batching.blocks import BlockPool
from engines.batching.scheduler import Scheduler
from engines.loop import StepLoop
from engines.service.drain import Drain
from engines.service.identity import Identity, identified
from engines.service.inference import Inference
from engines.service.lifecycle import Lifecycle
from engines.service.listening import listening
from engines.service.requests import Memory
from engines.service.served import Description, Grammars, Served
from engines.service.status import Status
from engines.service.wakeups import Wakeups
from roundhouse.internal.hops import HOP_KEY
from roundhouse.internal.v1 import engine_service_pb2, engine_service_pb2_grpc, hop_pb2
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.clock import Clock, SystemClock
from roundhouse.kit.status import error_of, reason_name
from roundhouse.v1 import inference_service_pb2, inference_service_pb2_grpc
from tests.support.heard import HeardRequests, HeardSteps
from tests.support.scripted_model import (
    END_TOKEN,
    PATIENCE_S,
    VOCABULARY_SIZE,
    CharacterTokenizer,
    Script,
    ScriptedRunner,
    alphabet,
)

CONTEXT_TOKENS = 8192
BLOCK_SIZE = 16
TOTAL_BLOCKS = 1024
IDENTITY = Identity(
    engine_uuid="7f1c0000-0000-4000-8000-000000000001",
    engine_key=b"k" * 32,
    deployment="chat",
    replica="deployments/chat/replicas/0",
    replica_uid="7f1c0000-0000-4000-8000-000000000002",
    deployment_generation=3,
)


@dataclass(frozen=True, slots=True)
class ScriptedEngine:
    """The engine, and stubs that call it as a gateway would."""

    address: str
    runner: ScriptedRunner
    steps: HeardSteps
    pool: BlockPool
    tokenizer: CharacterTokenizer
    lifecycle: Lifecycle
    requests: HeardRequests
    channel: grpc.aio.Channel
    inference: Any
    engine: Any

    def generate(
        self,
        text: str = "abc",
        *,
        keeper: str = "",
        principal: str = "local",
        timeout: float | None = PATIENCE_S,
        facts: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Any:
        """Calls Generate. `fields` are those of the request; messages in it may be given as mappings.

        facts: further ones of the hop.
        """
        request = inference_service_pb2.GenerateRequest(**{"deployment": "chat", **fields})
        if "prompt" not in fields:
            request.prompt.add(text=text)
        metadata = hop(keeper=keeper, principal=principal, **(facts or {}))
        return self.inference.Generate(request, metadata=metadata, timeout=timeout)

    def resume(self, request: Any, **facts: Any) -> Any:
        """Calls Generate with a request that is written already."""
        return self.inference.Generate(request, metadata=hop(**facts), timeout=PATIENCE_S)

    def chat(self, *, timeout: float | None = PATIENCE_S, facts: Mapping[str, Any] | None = None, **fields: Any) -> Any:
        """Calls Chat. `fields` are those of the request; messages in it may be given as mappings."""
        request = inference_service_pb2.ChatRequest(**{"deployment": "chat", **fields})
        return self.inference.Chat(request, metadata=hop(**(facts or {})), timeout=timeout)

    def attach(
        self,
        request_id: str,
        after: Mapping[int, int] | None = None,
        *,
        timeout: float | None = PATIENCE_S,
        **facts: Any,
    ) -> Any:
        """Calls Attach. after: how much of each choice the caller has."""
        request = inference_service_pb2.AttachRequest(deployment="chat", request_id=request_id)
        for choice, count in (after or {}).items():
            request.after.add(choice=choice, output_token_count=count)
        return self.inference.Attach(request, metadata=hop(**facts), timeout=timeout)

    async def get(self, request_id: str, **facts: Any) -> Any:
        """Calls GetRequest and returns the request."""
        request = inference_service_pb2.GetRequestRequest(deployment="chat", request_id=request_id)
        response = await self.inference.GetRequest(request, metadata=hop(**facts), timeout=PATIENCE_S)
        return response.request

    async def _follower_count(self, request_id: str, principal: str) -> int:
        try:
            return int((await self.get(request_id, principal=principal)).follower_count)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return 0  # it has not come yet

    async def list(self, *, principal: str = "local", **fields: Any) -> Any:
        """Calls ListRequests. `fields` are those of the request."""
        request = inference_service_pb2.ListRequestsRequest(**{"deployment": "chat", **fields})
        return await self.inference.ListRequests(request, metadata=hop(principal=principal), timeout=PATIENCE_S)

    async def followed(self, request_id: str, count: int, principal: str = "local") -> None:
        """Waits until so many calls follow a request that runs."""
        async with asyncio.timeout(PATIENCE_S):
            while await self._follower_count(request_id, principal) != count:
                pass  # each look is a call, which lets others go first

    async def cancel(self, request_id: str, **facts: Any) -> Any:
        """Calls CancelRequest and returns the receipt."""
        request = inference_service_pb2.CancelRequestRequest(deployment="chat", request_id=request_id)
        response = await self.inference.CancelRequest(request, metadata=hop(**facts), timeout=PATIENCE_S)
        return response.receipt

    async def drain(self, grace_s: float | None, *, hands_over: bool = False) -> Any:
        """Calls Drain."""
        request = engine_service_pb2.DrainRequest(hands_over=hands_over)
        if grace_s is not None:
            request.grace.FromNanoseconds(round(grace_s * 1e9))
        return await self.engine.Drain(request, metadata=hop(), timeout=PATIENCE_S)

    async def cancelled(self, key: str) -> None:
        """Waits until a cancel has reached the step loop, which need not have taken it."""
        await asyncio.to_thread(self.steps.wait_cancelled, key)

    async def asked(self, request_id: str) -> None:
        """Waits until a CancelRequest has come, whether or not there is anything to tell the step loop yet."""
        await self.requests.asked(request_id)

    async def all_ended(self) -> None:
        """Waits until no request lives, then checks that every block is free."""
        if ended := [run.ended for run in self.requests.live]:
            _, pending = await asyncio.wait(ended, timeout=PATIENCE_S)
            assert not pending
        assert (self.pool.free_count, self.pool.used_count) == (self.pool.total, 0)


def hop(**facts: Any) -> tuple[tuple[str, bytes], ...]:
    """Returns the metadata of a call to the engine."""
    given = {"engine_uuid": IDENTITY.engine_uuid, "engine_key": IDENTITY.engine_key, "principal": "local", "attempt": 1}
    return ((HOP_KEY, hop_pb2.Hop(**{**given, **facts}).SerializeToString()),)


async def messages_of(call: Any) -> list[Any]:
    """Reads a stream to its end and returns the messages."""
    messages = []
    async with cancelling(call):
        while (message := await call.read()) is not grpc.aio.EOF:
            messages.append(message)
    return messages


async def events_of(call: Any) -> list[Any]:
    """Reads a stream to its end and returns the events."""
    return [event for message in await messages_of(call) for event in message.events]


async def stream_of(call: Any) -> tuple[list[Any], tuple[grpc.StatusCode, str]]:
    """Reads a stream to its end, which must be an error; returns the events before it, its code and its reason."""
    events: list[Any] = []
    try:
        while (message := await call.read()) is not grpc.aio.EOF:
            events += message.events
    except grpc.aio.AioRpcError as error:
        return events, (error.code(), reason_name(error_of(error).own_reason))
    raise AssertionError(f"the stream ended well, after {len(events)} events")


async def text_of(call: Any) -> str:
    """Reads a stream to its end and returns its text."""
    return "".join(event.delta.text for event in await events_of(call))


async def refusal_of(call: Any) -> tuple[grpc.StatusCode, str, list[str]]:
    """Reads a call to its end, which must be an error, and returns its code, its reason, and the fields it names."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await (events_of(call) if isinstance(call, grpc.aio.UnaryStreamCall) else call)
    error = error_of(raised.value)
    return raised.value.code(), reason_name(error.own_reason), [each.field for each in error.fields]


@contextlib.contextmanager
def running(steps: StepLoop, runner: ScriptedRunner) -> Iterator[None]:
    """Runs the step thread for the block."""
    steps.start()
    try:
        yield
    finally:
        runner.go()
        assert steps.stop(PATIENCE_S)


@contextlib.asynccontextmanager
async def scripted_engine(
    script: Script = alphabet,
    *,
    has_chat_template: bool = True,
    is_loaded: bool = True,
    batch_size: int = 32,
    max_waiting: int = 1024,
    orphan_s: float = 10.0,
    memory: Memory | None = None,
    clock: Clock | None = None,
    grammars: Grammars | None = None,
    **facts: Any,
) -> AsyncIterator[ScriptedEngine]:
    """Serves for the block, on a port of its own. `facts` are those of what is served."""
    runner, tokenizer = ScriptedRunner(script), CharacterTokenizer(has_chat_template=has_chat_template)
    pool = BlockPool(TOTAL_BLOCKS, BLOCK_SIZE)
    scheduler = Scheduler(pool, batch_size=batch_size, max_batched_tokens=CONTEXT_TOKENS)
    loop = StepLoop(runner, scheduler, tokenizer.transcript, max_waiting=max_waiting)
    steps = HeardSteps(loop)
    lifecycle = Lifecycle()
    requests = HeardRequests(
        IDENTITY,
        Wakeups(asyncio.get_running_loop().call_soon_threadsafe),
        clock or SystemClock(),
        live_limit=batch_size + max_waiting,
        memory=memory,
        orphan_s=orphan_s,
    )
    services = [
        identified(
            inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"],
            Inference(IDENTITY, lifecycle, requests),
            IDENTITY,
        ),
        identified(
            engine_service_pb2.DESCRIPTOR.services_by_name["EngineService"],
            Status(IDENTITY, lifecycle, Drain(lifecycle, requests), {"torch": "2.0"}),
            IDENTITY,
        ),
    ]
    with running(loop, runner):
        async with (
            listening("127.0.0.1", range(1), services, lifecycle) as serving,
            open_channel(serving.address) as channel,
        ):
            if is_loaded:
                lifecycle.serve(served(steps, tokenizer, grammars, **facts))
            yield ScriptedEngine(
                serving.address,
                runner,
                steps,
                pool,
                tokenizer,
                lifecycle,
                requests,
                channel,
                inference_service_pb2_grpc.InferenceServiceStub(channel),
                engine_service_pb2_grpc.EngineServiceStub(channel),
            )
            tokenizer.go()
            runner.go()


def served(
    steps: HeardSteps,
    tokenizer: CharacterTokenizer,
    grammars: Grammars | None = None,
    *,
    fingerprint: str = "fingerprint of the script",
    tokenizer_fingerprint: str = "one id for each character",
    is_batch_invariant: bool = True,
) -> Served:
    """Returns the scripted model, as it is once loaded."""
    description = Description(
        model_type="scripted",
        parameter_count=1,
        dtype="float32",
        device="cpu",
        max_model_len=CONTEXT_TOKENS,
        vocabulary_size=VOCABULARY_SIZE,
        block_size=BLOCK_SIZE,
        end_token_ids=frozenset({END_TOKEN}),
        default_temperature=0.7,
        default_top_p=0.9,
        default_top_k=5,
    )
    return Served(
        steps,
        tokenizer,
        description,
        fingerprint,
        grammars,
        tokenizer_fingerprint=tokenizer_fingerprint,
        is_batch_invariant=is_batch_invariant,
    )
