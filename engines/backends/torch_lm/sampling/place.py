"""What has to be done where the logits are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from engines.batching.batch import Draw


class Place(Protocol):
    """`host` is fast on a CPU; `device` is plain torch, the reference for all others, and never waits."""

    def largest(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the largest of each row and its id, of equals the lowest. A NaN counts as the largest."""

    def choose(self, scores: Tensor, rows: Sequence[int], draws: Sequence[Draw], best: Tensor) -> Tensor:
        """Returns a token for each of these rows, chosen by chance; [draws], int64.

        scores: [all rows, vocabulary], float32; best: [all rows], their largest. One that is not finite gives any
        token of the vocabulary.
        """

    def score(self, scores: Tensor, rows: Sequence[int], tokens: Tensor, tops: Sequence[int], best: Tensor) -> Tensor:
        """Returns how likely the token of each of these rows is, packed as `answers.Part.likelihoods`.

        tokens: [rows], int64; tops: how many of the likeliest are wanted as well, at most the vocabulary.
        """
