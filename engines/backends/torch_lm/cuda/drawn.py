"""The tokens that were drawn last, on the device: what the next step goes on with before the host knows them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from engines.batching.sequence import Sequence


class Drawn:
    """Tokens since the last step, and which sequence each is of."""

    def __init__(self, size: int, device: torch.device) -> None:
        """size: tokens that may be drawn from one step to the next."""
        self._tokens = torch.zeros(2 * size, dtype=torch.int64, device=device)
        self._end = 0
        self.places: dict[Sequence, int] = {}

    def take(self, tokens: Tensor, sequences: Iterable[tuple[int, Sequence]]) -> None:
        """Keeps tokens. sequences: for those tokens that the next step may go on with, their index and whose they are.

        What the step before has drawn may be written over: the step that reads it is under way by now.
        """
        begin = self._end if self._end + len(tokens) <= len(self._tokens) else 0
        self._end = begin + len(tokens)
        self._tokens[begin : self._end] = tokens
        self.places |= {sequence: begin + index for index, sequence in sequences}

    def resolved(self, ids: Tensor) -> Tensor:
        """Returns ids, int64, with the tokens that those below 0 stand for. See `plan.Plan.ids`."""
        tokens = self._tokens.index_select(0, (-1 - ids).clamp(min=0))
        return torch.where(ids < 0, tokens, ids)
