"""The attention function that the modelling classes of transformers call in place of their own.

No mask function is registered along with it, so they build no mask either. What it does is in `kernels`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface

IMPLEMENTATION = "roundhouse_paged"


@dataclass(frozen=True, slots=True)
class Shape:
    """How one layer attends."""

    layer: int
    scale: float
    window: int | None  # positions that a query sees, itself included; None for all before it
    softcap: float | None
    sinks: Tensor | None = field(compare=False)  # [heads]: a logit for each head that takes weight and gives nothing


class Attention(Protocol):
    """Attends for one forward pass. query: [1, heads, tokens, dim]; keys and values with kv_heads."""

    def __call__(self, shape: Shape, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Returns [1, tokens, heads, value_dim]."""


def register() -> None:
    """Makes `IMPLEMENTATION` known to transformers."""
    AttentionInterface.register(IMPLEMENTATION, _forward)


def _forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 - always None: no mask function is registered
    *,
    paged: Attention,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,  # dropout and what only other implementations know
) -> tuple[Tensor, None]:
    layer = module.layer_idx
    assert isinstance(layer, int)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return paged(Shape(layer, scale, sliding_window or None, softcap or None, s_aux), query, key, value), None
