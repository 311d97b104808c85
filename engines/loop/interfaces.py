"""What the step loop asks of those who compute and of those who write text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from engines.batching.batch import Ask, Batch
from engines.model import Logprobs, Sampled


class OutOfMemory(Exception):
    """A forward pass found too little memory; nothing of it counts, and a smaller one may pass."""


class Answers(Protocol):
    """What was asked of logits, on its way."""

    def wait(self) -> Sequence[Sampled | Logprobs | Exception]:
        """Returns, in order, a token for each Draw, logprobs for each Score, or what went wrong with that one.

        Raises OutOfMemory or what else went wrong with the whole forward pass.
        """


class Runner(Protocol):
    """Computes batches in the order in which they come. Called on the step thread only."""

    @property
    def depth(self) -> int:
        """How many batches may be under way behind the one whose answers are waited for: 0 or 1.

        With 1, a row's last id may be PENDING: it is the token that its sequence drew in the step before. Where that
        went wrong any id will do: what the row gives is dropped.
        """

    def forward(self, batch: Batch) -> object:
        """Writes the keys and values of all rows, and returns the logits that they want, one for each such token.

        May return before they are computed. Raises OutOfMemory.
        """

    def pick(self, logits: object, places: Sequence[int]) -> object:
        """Returns the logits at these places, which stay valid over later steps."""

    def sample(self, logits: object, asks: Sequence[Ask | None]) -> Answers:
        """Answers what is asked of each of the logits; None asks nothing, and gets no answer.

        Called once behind each forward pass, also if nothing is asked: then the answers say that it is done.
        """


class Proposer(Protocol):
    """Guesses how outputs go on. What it says changes how fast tokens come, never which. Called on the step thread."""

    def propose(self, sequences: Sequence[tuple[str, Sequence[int]]], most: int) -> Sequence[Sequence[int]]:
        """Returns up to `most` next ids for each sequence, given as (name, all its ids)."""

    def forget(self, name: str) -> None:
        """Says that a sequence has ended."""


class Transcript(Protocol):
    """Turns the output ids of one sequence into text. Called on the text thread only."""

    @property
    def matched_stop(self) -> str:
        """The stop text that the output holds; empty while there is none."""

    def write(self, token: int) -> str:
        """Takes the next id, and returns the text that has become certain."""

    def close(self) -> str:
        """Returns the text that was held back. There is no more to come."""
