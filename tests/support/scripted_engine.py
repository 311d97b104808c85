"""An engine whose services, step loop and batcher are the real ones, and whose model does what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import string
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from engines.batching.batch import Ask, Batch, Draw, Score
from engines.batching.blocks import BlockPool
from engines.batching.scheduler import Scheduler
from engines.loop import StepLoop
from engines.model import Cause, Constraint, Logprobs, Progress, Sampled, Sink, TokenLogprob, Work
from engines.service.drain import Drain
from engines.service.identity import Identity, identified
from engines.service.inference import Inference
from engines.service.lifecycle import Lifecycle
from engines.service.listening import listening
from engines.service.requests import Memory, Requests
from engines.service.served import Description, Grammars, Served
from engines.service.status import Status
from engines.service.wakeups import Wakeups
from engines.text.decode import Decoder
from engines.text.transcript import Transcript
from roundhouse.internal.hops import HOP_KEY
from roundhouse.internal.v1 import engine_service_pb2, engine_service_pb2_grpc, hop_pb2
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.clock import Clock, SystemClock
from roundhouse.kit.fields import invalid
from roundhouse.kit.status import error_of, reason_name
from roundhouse.v1 import inference_service_pb2, inference_service_pb2_grpc, receipt_pb2

VOCABULARY_SIZE = 128  # the id of a character is its code
END_TOKEN = 0
CONTEXT_TOKENS = 8192
BLOCK_SIZE = 16
TOTAL_BLOCKS = 1024
PATIENCE_S = 30.0  # only a test that fails waits so long
IDENTITY = Identity(
    engine_uuid="7f1c0000-0000-4000-8000-000000000001",
    engine_key=b"k" * 32,
    deployment="chat",
    replica="deployments/chat/replicas/0",
    replica_uid="7f1c0000-0000-4000-8000-000000000002",
    deployment_generation=3,
)
Script = Callable[[Sequence[int], int], int | Exception]


def alphabet(prompt: Sequence[int], position: int) -> int | Exception:
    """The output of every prompt: the alphabet from the prompt's last character on, again and again."""
    letters = string.ascii_lowercase
    first = letters.find(chr(prompt[-1]))
    return ord(letters[(max(first, 0) + position) % 26])


class ScriptedRunner:
    """Gives the tokens that its script says, one step at a time, as fast as a test lets it."""

    def __init__(self, script: Script = alphabet) -> None:
        self.script = script
        self._changed = threading.Condition()
        self._permits: int | None = None  # None: as many as it likes
        self._entered_count = 0
        self.works: dict[str, Work] = {}  # all that was ever computed, by key

    def hold(self) -> None:
        """Lets no step end until `step` or `go` says so."""
        with self._changed:
            self._permits = 0

    def step(self, count: int = 1) -> None:
        """Lets so many more steps end."""
        with self._changed:
            assert self._permits is not None
            self._permits += count
            self._changed.notify_all()

    def go(self) -> None:
        """Lets every step end from now on."""
        with self._changed:
            self._permits = None
            self._changed.notify_all()

    @property
    def entered_count(self) -> int:
        """Steps that have begun."""
        with self._changed:
            return self._entered_count

    async def entered(self, count: int) -> None:
        """Waits until so many steps have begun."""
        await asyncio.to_thread(self.wait_entered, count)

    def wait_entered(self, count: int) -> None:
        """As `entered`, but blocks."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._entered_count >= count, timeout=PATIENCE_S)

    depth = 0

    def forward(self, batch: Batch) -> Sequence[int]:
        """Waits for its permit. No logits are needed: what is asked of them says all."""
        with self._changed:
            for row in batch.rows:
                work = row.sequence.work
                self.works[work.key] = self.works[f"{work.key}/{work.choice}"] = work
            self._entered_count += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._permits is None or self._permits > 0)
            if self._permits is not None:
                self._permits -= 1
        return range(batch.logits_count)

    def pick(self, logits: object, places: Sequence[int]) -> object:
        """Returns as many as there are places."""
        return range(len(places))

    def sample(self, logits: object, asks: Sequence[Ask | None]) -> ScriptedAnswers:
        """Answers by the script: choice 0 from its beginning, the others each a token later."""
        assert isinstance(logits, range)
        assert len(logits) == len(asks)
        return ScriptedAnswers(
            [_scored(each) if isinstance(each, Score) else self._drawn(each) for each in asks if each]
        )

    def _drawn(self, draw: Draw) -> Sampled | Exception:
        token = self.script(draw.ids[: draw.prompt_count], draw.position + draw.choice)
        if isinstance(token, Exception):
            return token
        if draw.mask is not None:
            allowed = [each for each in range(VOCABULARY_SIZE) if draw.mask[each // 8] >> each % 8 & 1]
            token = token if token in allowed else allowed[0]
        return Sampled(token, None if draw.top is None else logprobs_of(token, draw.top))


@dataclass(frozen=True, slots=True)
class ScriptedAnswers:
    """What was asked, at once."""

    answers: Sequence[Sampled | Logprobs | Exception]

    def wait(self) -> Sequence[Sampled | Logprobs | Exception]:
        return self.answers


def logprobs_of(token: int, top: int) -> Logprobs:
    """What the script says of any token: the higher its id, the likelier, and it itself is the likeliest."""
    chosen = TokenLogprob(token, -token / 128, 1)
    return Logprobs(chosen, (chosen, *(TokenLogprob(place, -1.0, place) for place in range(2, top + 1)))[:top])


def _scored(score: Score) -> Logprobs:
    return logprobs_of(score.token, score.top)


class CharacterGrammars:
    """Knows choices alone, spelled in ids that are characters."""

    def compile(self, form: str, texts: Sequence[str], end_ids: Collection[int]) -> Callable[[], Constraint]:
        assert END_TOKEN in end_ids
        if form != "choice":
            raise ValueError(f"no {form} today")
        return lambda: OneOf(texts)


class OneOf:
    """Lets one of some texts come, and the end behind it."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = [[*map(ord, text), END_TOKEN] for text in texts]
        self._ids: list[int] = []

    def mask(self) -> bytes:
        mask = bytearray(VOCABULARY_SIZE // 8)
        for text in self._open():
            token = text[len(self._ids)]
            mask[token // 8] |= 1 << token % 8
        return bytes(mask)

    def accept(self, token: int) -> None:
        self._ids.append(token)
        if not self._open() and token != END_TOKEN:
            raise ValueError("this is none of the texts")

    def _open(self) -> list[list[int]]:
        count = len(self._ids)
        return [text for text in self._texts if len(text) > count and text[:count] == self._ids]


class CharacterTokenizer:
    """One id for each character. Special tokens: 1 before a text."""

    def __init__(self, *, has_chat_template: bool = True) -> None:
        self._has_chat_template = has_chat_template
        self._is_open = threading.Event()
        self._is_open.set()
        self._entered = threading.Semaphore(0)
        self.threads: set[int] = set()

    def hold(self) -> None:
        """Lets no text be encoded until `go` says so."""
        self._is_open.clear()

    def go(self) -> None:
        """Lets every text be encoded from now on."""
        self._is_open.set()

    async def entered(self, count: int = 1) -> None:
        """Waits until so many more texts have come."""
        for _ in range(count):
            assert await asyncio.to_thread(self._entered.acquire, timeout=PATIENCE_S)

    @property
    def has_chat_template(self) -> bool:
        return self._has_chat_template

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        self.threads.add(threading.get_ident())
        self._entered.release()
        assert self._is_open.wait(PATIENCE_S)
        return [1] * add_special_tokens + [ord(each) for each in text]

    def render_chat(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        if messages[-1][0] == "assistant":
            raise invalid("messages", "the model's chat template refuses them: nothing to answer")
        return self.encode("".join(f"{role}:{text};" for role, text in messages), add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def spellings(self, word: str) -> Sequence[tuple[int, ...]]:
        return [tuple(map(ord, word)), tuple(map(ord, f" {word}"))]

    @staticmethod
    def transcript(stops: tuple[str, ...]) -> Transcript:
        return Transcript(Decoder(lambda ids: "".join(map(chr, ids))), stops)


class HeardSteps:
    """The real step loop, and a way to wait for a cancel to reach it."""

    def __init__(self, steps: StepLoop) -> None:
        self._steps = steps
        self._changed = threading.Condition()
        self._cancelled: dict[str, Cause] = {}

    def submit(self, works: Sequence[Work], sink: Sink) -> None:
        self._steps.submit(works, sink)

    def cancel(self, key: str, cause: Cause) -> None:
        self._steps.cancel(key, cause)
        with self._changed:
            self._cancelled[key] = cause
            self._changed.notify_all()

    def progress(self) -> Progress:
        return self._steps.progress()

    def wait_cancelled(self, key: str) -> None:
        """Blocks until a cancel for `key` has come."""
        with self._changed:
            assert self._changed.wait_for(lambda: key in self._cancelled, timeout=PATIENCE_S)


class HeardRequests(Requests):
    """The real registry, and a way to wait for a CancelRequest to reach it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._asked: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def cancel(self, principal: str, request_id: str, cause: Cause = Cause.CLIENT) -> receipt_pb2.CancelReceipt:
        self._asked[request_id].set()  # whoever waits for it runs only after the first pause of what follows
        return await super().cancel(principal, request_id, cause)

    async def asked(self, request_id: str) -> None:
        """Waits until a CancelRequest has been taken in; that it waits for its receipt goes without saying."""
        await asyncio.wait_for(self._asked[request_id].wait(), PATIENCE_S)


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
        **fields: Any,
    ) -> Any:
        """Calls Generate. `fields` are those of the request; messages in it may be given as mappings."""
        request = inference_service_pb2.GenerateRequest(**{"deployment": "chat", **fields})
        if "prompt" not in fields:
            request.prompt.add(text=text)
        return self.inference.Generate(request, metadata=hop(keeper=keeper, principal=principal), timeout=timeout)

    def chat(self, *, timeout: float | None = PATIENCE_S, **fields: Any) -> Any:
        """Calls Chat. `fields` are those of the request; messages in it may be given as mappings."""
        request = inference_service_pb2.ChatRequest(**{"deployment": "chat", **fields})
        return self.inference.Chat(request, metadata=hop(), timeout=timeout)

    async def cancel(self, request_id: str, **facts: Any) -> Any:
        """Calls CancelRequest and returns the receipt."""
        request = inference_service_pb2.CancelRequestRequest(deployment="chat", request_id=request_id)
        response = await self.inference.CancelRequest(request, metadata=hop(**facts), timeout=PATIENCE_S)
        return response.receipt

    async def drain(self, grace_s: float | None) -> Any:
        """Calls Drain."""
        request = engine_service_pb2.DrainRequest()
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
) -> AsyncIterator[ScriptedEngine]:
    """Serves for the block, on a port of its own."""
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
    )
    services = [
        identified(
            inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"],
            Inference(IDENTITY, lifecycle, requests, orphan_s=orphan_s),
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
                lifecycle.serve(served(steps, tokenizer, grammars))
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


def served(steps: HeardSteps, tokenizer: CharacterTokenizer, grammars: Grammars | None = None) -> Served:
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
    return Served(steps, tokenizer, description, "fingerprint of the script", grammars)
