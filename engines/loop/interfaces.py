"""What the step loop asks of those who compute and of those who write text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from engines.batching.batch import Batch, Draw


class Runner(Protocol):
    """Computes batches. Called on the step thread only."""

    def forward(self, batch: Batch) -> object:
        """Writes the keys and values of all rows, and returns the logits of those that need them, in order."""

    def sample(self, logits: object, draws: Sequence[Draw]) -> Sequence[int | Exception]:
        """Returns one token for each of the logits' rows, or what went wrong with that row."""


class Transcript(Protocol):
    """Turns the output ids of one sequence into text. Called on the step thread only."""

    @property
    def matched_stop(self) -> str:
        """The stop text that the output holds; empty while there is none."""

    def write(self, token: int) -> str:
        """Takes the next id, and returns the text that has become certain."""

    def close(self) -> str:
        """Returns the text that was held back. There is no more to come."""
