"""The KV cache as the Triton kernels read it: all heads of a token side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from engines.backends.torch_lm.attention import Shape
from engines.backends.torch_lm.cache import LayerShape
from engines.backends.torch_lm.cuda.tables import Tables
from engines.backends.torch_lm.kernels.interface import HeadNorm


class LayerAttention(Protocol):
    """`kernels.interface.Attention`, with the tables of a step on the device in the place of its rows."""

    def write(self, keys: Tensor, values: Tensor, rows: Tables) -> None:
        """Stores tokens."""

    def write_qkv(
        self, qkv: Tensor, rows: Tables, cos: Tensor | None, sin: Tensor | None, norm: HeadNorm | None = None
    ) -> Tensor:
        """Norms and rotates queries in place, and keys on their way into the cache, where values go too."""

    def attend(self, query: Tensor, rows: Tables) -> Tensor:
        """Returns what each token sees of its own row, at its position and before."""


class Attending(Protocol):
    """Makes attention for layers."""

    def __call__(self, keys: Tensor, values: Tensor, shape: Shape, heads: int) -> LayerAttention:
        """Returns the attention of one layer. keys, values: its cache, as `PagedCache` has it."""


class PagedCache:
    """Keys and values by layer, [blocks + 1, block_size, kv_heads, dim] each.

    The block behind those that are counted belongs to nobody: rows that only fill up a batch write there.
    """

    def __init__(
        self,
        shapes: Mapping[int, LayerShape],
        attending: Attending,
        *,
        blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.blocks = self.trash_block = blocks
        self.block_size = block_size
        self._attending = attending
        self._attentions: dict[Shape, LayerAttention] = {}

        def zeros(heads: int, dim: int) -> Tensor:
            return torch.zeros(blocks + 1, block_size, heads, dim, dtype=dtype, device=device)

        self._keys = {layer: zeros(shape.kv_heads, shape.key_dim) for layer, shape in shapes.items()}
        self._values = {layer: zeros(shape.kv_heads, shape.value_dim) for layer, shape in shapes.items()}

    def attention(self, shape: Shape, heads: int) -> LayerAttention:
        """Returns how a layer attends over what it keeps here. The same object for the same shape."""
        found = self._attentions.get(shape)
        if found is None:
            keys, values = self._keys[shape.layer], self._values[shape.layer]
            found = self._attentions[shape] = self._attending(keys, values, shape, heads)
        return found
