"""The KV cache: keys and values of all layers, in blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one attention layer keeps for each token."""

    kv_heads: int
    key_dim: int
    value_dim: int

    @property
    def numbers(self) -> int:
        """Numbers for each token."""
        return self.kv_heads * (self.key_dim + self.value_dim)


def block_bytes(shapes: Mapping[int, LayerShape], block_size: int, dtype: torch.dtype) -> int:
    """Returns the size of one block over all layers."""
    return block_size * dtype.itemsize * sum(shape.numbers for shape in shapes.values())


class KvCache:
    """Keys and values by layer. Token `offset` of block `b` is in slot `b * block_size + offset` of every layer."""

    def __init__(
        self,
        shapes: Mapping[int, LayerShape],
        *,
        blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.blocks = blocks
        self.block_size = block_size
        self._keys = {
            layer: torch.zeros(blocks, block_size, shape.kv_heads, shape.key_dim, dtype=dtype, device=device)
            for layer, shape in shapes.items()
        }
        self._values = {
            layer: torch.zeros(blocks, block_size, shape.kv_heads, shape.value_dim, dtype=dtype, device=device)
            for layer, shape in shapes.items()
        }

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Stores tokens. slots: [tokens]; keys, values: [tokens, kv_heads, dim]."""
        self._keys[layer].flatten(0, 1)[slots] = keys
        self._values[layer].flatten(0, 1)[slots] = values

    def read(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Returns keys and values, [rows, kv_heads, tokens, dim] each. slots: [rows, tokens]."""
        keys = self._keys[layer].flatten(0, 1)[slots]
        values = self._values[layer].flatten(0, 1)[slots]
        return keys.transpose(1, 2), values.transpose(1, 2)
