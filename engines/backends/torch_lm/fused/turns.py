"""What heads are rotated with, as the kernels take it: one cosine and one sine for each pair of dimensions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def turns_of(rotary: Any, kind: str | None, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the cosines and sines at these positions, [1, n, pairs] each, float32. positions: [1, n].

    rotary: of transformers, which is told the kind of layer unless that is None.
    """
    like = torch.empty(1, 1, 1, device=positions.device)
    cos, sin = rotary(like, positions) if kind is None else rotary(like, positions, kind)
    return halves(cos, sin)


def halves(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what is there once for each pair, where it is there for both of its dimensions, as in most models."""
    half = cos.shape[-1] // 2
    if torch.equal(cos[..., :half], cos[..., half:]):
        return cos[..., :half], sin[..., :half]
    return cos, sin
