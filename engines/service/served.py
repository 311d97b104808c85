"""What the service needs of a model that is loaded, whoever loaded it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engines.model import Cause, Progress, Sink, Work


class Steps(Protocol):
    """Runs sequences, on a thread of its own. Every method may be called from any thread and returns at once."""

    def submit(self, work: Work, sink: Sink) -> None:
        """Takes a sequence in. Raises QueueFull, Stopped."""

    def cancel(self, key: str, cause: Cause) -> None:
        """Has a sequence leave before the next step. The first cancel counts; for an unknown key it is nothing."""

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


@dataclass(frozen=True, slots=True)
class Served:
    """A model that is ready to serve."""

    steps: Steps
    tokenizer: Tokenizer
    description: Description
    fingerprint: str
