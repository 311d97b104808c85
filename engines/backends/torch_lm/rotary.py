"""Rotations looked up by position in place of being computed in each step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_FIRST = 1024  # positions that are computed at once, and doubled from then on


class RotaryTable:
    """Cosines and sines of all positions so far. A position's are computed once, so that they never differ."""

    def __init__(self, compute: Callable[[Tensor], tuple[Tensor, Tensor]], context: int) -> None:
        """`compute` takes positions, [1, n], up to the context, and returns [1, n, dim] twice."""
        self._compute, self._context = compute, context
        self._cos = self._sin = torch.empty(0)
        self._reach = 0

    def at(self, positions: Tensor, highest: int) -> tuple[Tensor, Tensor]:
        """Returns the cosines and sines at these positions, [n, dim] each. highest: at least the largest of them."""
        if highest >= self._reach:
            self._grow(highest)
        return self._cos.index_select(0, positions), self._sin.index_select(0, positions)

    def _grow(self, highest: int) -> None:
        reach = max(_FIRST, self._reach)
        while reach <= highest:
            reach *= 2
        reach = min(reach, max(self._context, highest + 1))
        cos, sin = self._compute(torch.arange(self._reach, reach)[None])
        if self._reach == 0:
            self._cos, self._sin = cos[0].contiguous(), sin[0].contiguous()
        else:
            self._cos, self._sin = torch.cat([self._cos, cos[0]]), torch.cat([self._sin, sin[0]])
        self._reach = reach


class LookedUp(nn.Module):
    """Stands for a rotary embedding of transformers: (x, position_ids, …) → cosines and sines in the dtype of x."""

    def __init__(self, rotary: nn.Module, context: int) -> None:
        super().__init__()
        self._rotary, self._context = rotary, context
        self._tables: dict[tuple[object, ...], RotaryTable] = {}

    def forward(self, x: Tensor, position_ids: Tensor, *arguments: object, **options: object) -> tuple[Tensor, Tensor]:
        """Computes as the module does that it stands for."""
        key = (x.dtype, *arguments, *options.items())
        table = self._tables.get(key)
        if table is None:
            like = x[:, :1]
            table = self._tables[key] = RotaryTable(
                lambda positions: self._rotary(like, positions, *arguments, **options), self._context
            )
        cos, sin = table.at(position_ids[0], int(position_ids.max()))
        return cos[None], sin[None]
