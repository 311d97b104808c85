"""A model that does what a test says, with a tokenizer of single characters and grammars of listed texts."""

from __future__ import annotations

import asyncio
import string
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from engines.batching.batch import Ask, Batch, Draw, Score
from engines.model import Constraint, Logprobs, Sampled, TokenLogprob, Work
from engines.text.decode import Decoder
from engines.text.transcript import Transcript
from roundhouse.kit.fields import invalid

VOCABULARY_SIZE = 128  # the id of a character is its code
END_TOKEN = 0
PATIENCE_S = 30.0  # only a test that fails waits so long
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
    """Knows choices alone, spelled in ids that are characters, and keeps none."""

    def kept(self, form: str, texts: Sequence[str], end_ids: Collection[int]) -> None:
        """Has none."""

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
