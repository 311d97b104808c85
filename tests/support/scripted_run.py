"""One request of a scripted inference: what it tells, and all that it has told."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence

from roundhouse.kit.chain import EMPTY, chain
from roundhouse.kit.errors import Unreachable
from roundhouse.kit.latest import Latest
from roundhouse.kit.times import to_duration
from roundhouse.v1 import errors_pb2, generation_pb2, inference_service_pb2

FINGERPRINT = "of this script"
_STEP_S = 0.002
_PIECE_IDS, _PIECE_TEXT = 16, 60  # of a prompt in one event

Event = generation_pb2.GenerationEvent
Request = inference_service_pb2.GenerateRequest | inference_service_pb2.ChatRequest

_UNHEARD_OF = Event.FromString(bytes([0xFA, 0x3F, 0]))  # an empty message in field 1023


def token_id(choice: int, position: int) -> int:
    """Returns the id of an output token."""
    return choice * 10_000 + position


class Run:
    """One request, with all that it has told."""

    def __init__(self, request: Request, prompt: str, attempt: int) -> None:
        self.request, self.attempt = request, attempt
        self.words = prompt.split(" ")
        self.told: list[Event] = []
        self.error: Exception | None = None
        self.is_over = False
        self.is_lost = False
        self.ended = asyncio.Event()  # by a cancel
        self.changes = Latest(None)
        self.followers = 0
        self.arrival_s = time.time()
        self.positions: dict[int, int] = {
            each.choice: len(each.output_token_ids.ids) for each in request.options.resume.choices
        }
        self.ids: dict[int, list[int]] = {
            each.choice: list(each.output_token_ids.ids) for each in request.options.resume.choices
        }
        self.task: asyncio.Task[None] | None = None

    @property
    def is_detached(self) -> bool:
        return self.request.options.on_disconnect.policy == generation_pb2.DISCONNECT_POLICY_DETACH

    @property
    def started(self) -> Event:
        return Event(
            started=generation_pb2.Started(
                request_id=self.request.request_id,
                location="here" if self.attempt == 1 else f"there-{self.attempt}",
                replica=f"deployments/{self.request.deployment}/replicas/{self.attempt - 1}",
                prompt_token_count=len(self.words),
                attempt=self.attempt,
                seed=self.request.options.resume.seed or self.request.sampling.seed or 7,
                fingerprint=FINGERPRINT,
                tokenizer_fingerprint="of its words",
            )
        )

    def tell(self, *events: Event) -> None:
        self.told += events
        self.changes.set(None)

    def end(self, error: Exception | None = None) -> None:
        self.error, self.is_over = error, True
        self.changes.set(None)

    def lose(self) -> bool:
        """Ends as if the engine had died and nobody else had kept the request; tells whether it had not ended yet."""
        if self.is_over:
            return False
        self.is_lost = True
        self.end(Unreachable("the call was interrupted on its way: try again"))
        return True

    async def play(self) -> None:
        """Tells the whole answer."""
        request = self.request
        if isinstance(request, inference_service_pb2.GenerateRequest) and request.echo:
            self.tell(*_echoed(self.words))
        if self.words == ["wait"]:
            await self.ended.wait()
        if await self._tell_words():
            self._tell_end()
            self.end()

    async def _tell_words(self) -> bool:
        sampling = self.request.sampling
        asked, choices = sampling.max_tokens or 10**9, sampling.n or 1
        for count, word in enumerate(itertools.cycle(self.words) if sampling.ignore_eos else self.words):
            if self.ended.is_set() or count >= asked:
                break
            for choice in range(choices):
                if count < self.positions.get(choice, 0):
                    continue
                said, each = f"{word}{choice or ''}", token_id(choice, count)
                text = said if count == 0 else f" {said}"
                delta = generation_pb2.Delta(choice=choice, first_position=count, token_ids=[each], text=text)
                self.ids.setdefault(choice, []).append(each)
                self.positions[choice] = count + 1
                self.tell(Event(delta=delta))
            if word == "unheard-of":
                self.tell(_UNHEARD_OF)
            if word == "lost" and self.attempt == 1:
                self.lose()
            if self.is_lost:
                return False
            if word == "break":
                lost = Unreachable('the engine of "demo-0" is lost', reason=errors_pb2.ERROR_REASON_ENGINE_LOST)
                self.end(lost)
                return False
            await asyncio.sleep(_STEP_S)
        return True

    def _tell_end(self) -> None:
        choices, asked = self.request.sampling.n or 1, self.request.sampling.max_tokens
        count = self.positions.get(0, 0)
        reason = generation_pb2.FINISH_REASON_STOP_TOKEN
        if self.ended.is_set():
            reason = generation_pb2.FINISH_REASON_CANCELLED
        elif count == asked:
            reason = generation_pb2.FINISH_REASON_LENGTH
        corrupt = {"corrupt"} & set(self.words)
        for choice in range(choices):
            ids = self.ids.get(choice, [])
            finished = generation_pb2.Finished(
                choice=choice,
                reason=reason,
                output_token_count=len(ids),
                token_hash=chain(EMPTY, [*ids, 1] if corrupt else ids),
                exactness=generation_pb2.EXACTNESS_EXACT,
            )
            self.tell(Event(finished=finished))
        usage = generation_pb2.Usage(
            prompt_token_count=len(self.words),
            output_token_count=count * choices,
            first_token_duration=to_duration(0.041),
            total_duration=to_duration(0.3),
        )
        self.tell(Event(usage=usage))


def _echoed(words: Sequence[str]) -> Iterator[Event]:
    """Yields a prompt in pieces, ids and text by themselves, as engines do: the last ones of a long one have no ids."""
    text = f"{' '.join(words)} "
    for first, start in itertools.zip_longest(range(0, len(words), _PIECE_IDS), range(0, len(text), _PIECE_TEXT)):
        position = len(words) if first is None else first
        ids = range(position, min(position + _PIECE_IDS, len(words)))
        piece = "" if start is None else text[start : start + _PIECE_TEXT]
        yield Event(prompt=generation_pb2.Prompt(first_position=position, token_ids=ids, text=piece))
