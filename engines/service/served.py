"""What the service needs of a model that is loaded, whoever loaded it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from engines.model import Cause, Constraint, Progress, Sink, Work


class Steps(Protocol):
    """Runs sequences, on a thread of its own. Every method may be called from any thread and returns at once."""

    def submit(self, works: Sequence[Work], sink: Sink) -> None:
        """Takes the choices of a request in, which have one key. Raises QueueFull, Stopped."""

    def cancel(self, key: str, cause: Cause) -> None:
        """Has all choices leave before the next step. The first cancel counts; for an unknown key it is nothing."""

    def has_joined(self, key: str) -> bool:
        """Tells whether a sequence of this key lives that has been in the batch."""

    def progress(self) -> Progress:
        """Tells what it is doing."""


class Tokenizer(Protocol):
    """Turns text and conversations into token ids. Called from several threads at a time."""

    @property
    def has_chat_template(self) -> bool:
        """Tells whether `render_chat` works."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Returns the ids of a text."""

    def render_chat(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """Returns the ids of a conversation of (role, text), up to where the model goes on.

        Raises InvalidArgument if the template refuses it.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids, without special tokens."""

    def spellings(self, word: str) -> Sequence[tuple[int, ...]]:
        """Returns the ids of a word as it may stand in a text."""


Form = Literal["json_schema", "json_object", "regex", "choice", "ebnf"]


class Grammars(Protocol):
    """Compiles the forms that outputs may have to have. Called from several threads at a time."""

    def kept(self, form: Form, texts: Sequence[str], end_ids: Collection[int]) -> Callable[[], Constraint] | None:
        """Returns at once what `compile` would, if it has compiled this form lately; else None."""

    def compile(self, form: Form, texts: Sequence[str], end_ids: Collection[int]) -> Callable[[], Constraint]:
        """Returns what makes a constraint for one output after the other.

        texts: one, but for a choice. end_ids: what ends these outputs. Raises ValueError, which says what is wrong.
        """


@dataclass(frozen=True, slots=True)
class Description:
    """Facts about a model that is loaded."""

    model_type: str
    parameter_count: int
    dtype: str
    device: str
    max_model_len: int  # tokens of prompt and output together
    vocabulary_size: int
    block_size: int
    end_token_ids: frozenset[int]
    default_temperature: float
    default_top_p: float
    default_top_k: int
    default_min_p: float = 0.0
    default_typical_p: float = 1.0
    default_repetition_penalty: float = 1.0
    numerics: str = ""  # what computes, in words
    quantization: str = "none"
    is_compiled: bool = False
    shares_prefixes: bool = True
    speculation: Literal["off", "ngram", "draft_model"] = "off"


@dataclass(frozen=True, slots=True)
class Served:
    """A model that is ready to serve."""

    steps: Steps
    tokenizer: Tokenizer
    description: Description
    fingerprint: str
    grammars: Grammars | None = None  # None where no library for them is installed
    tokenizer_fingerprint: str = ""
    is_batch_invariant: bool = False  # what a sequence gives does not depend on others
