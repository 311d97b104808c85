"""Attention over the paged cache, in plain torch: the reference that faster kernels are compared with.

Registered under a name, so that the modelling classes of transformers call it in place of their own. No mask function
is registered along with it, so they build no mask either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

IMPLEMENTATION = "roundhouse_paged"


@dataclass(frozen=True, slots=True)
class Shape:
    """How one layer attends."""

    layer: int
    scale: float
    window: int | None  # positions that a query sees, itself included; None for all before it
    softcap: float | None
    sinks: Tensor | None  # [heads]: a logit for each head that takes weight and gives nothing


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


def attend(shape: Shape, query: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> Tensor:
    """Returns what each query sees of the keys at its position and before.

    query: [rows, heads, queries, dim]; keys, values: [rows, kv_heads, tokens, dim], from position 0 on;
    positions: [rows, queries], of the queries. Returns [rows, heads, queries, value_dim].
    """
    places = torch.arange(keys.shape[2], device=keys.device)
    is_seen = places <= positions[:, None, :, None]
    if shape.window is not None:
        is_seen &= places > positions[:, None, :, None] - shape.window
    if shape.softcap is None and shape.sinks is None:
        return functional.scaled_dot_product_attention(
            query, keys, values, attn_mask=is_seen, scale=shape.scale, enable_gqa=query.shape[1] != keys.shape[1]
        )
    return _attend_in_steps(shape, query, keys, values, is_seen)


def _attend_in_steps(shape: Shape, query: Tensor, keys: Tensor, values: Tensor, is_seen: Tensor) -> Tensor:
    group = query.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1)
    scores = (query @ keys.transpose(2, 3)).float() * shape.scale
    if shape.softcap is not None:
        scores = shape.softcap * torch.tanh(scores / shape.softcap)
    scores = scores.masked_fill(~is_seen, -torch.inf)
    if shape.sinks is not None:
        sinks = shape.sinks.float().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, sinks], dim=-1)
    weights = scores.softmax(dim=-1)[..., : keys.shape[2]]
    return weights.to(values.dtype) @ values
