"""The KV cache: keys and values of all layers, in blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.backends.torch_lm.attention import Shape
from engines.backends.torch_lm.kernels.interface import Attention, Kernels
from engines.backends.torch_lm.kernels.reference import TorchKernels


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
    """Keys and values by layer, [blocks, kv_heads, block_size, dim] each.

    Token `offset` of block `b` is in slot `b * block_size + offset` of every layer.
    """

    def __init__(
        self,
        shapes: Mapping[int, LayerShape],
        *,
        blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
        kernels: Kernels | None = None,
    ) -> None:
        """`kernels` attend over it; plain torch if None."""
        self.blocks = blocks
        self.block_size = block_size
        self._kernels = kernels or TorchKernels()
        self._attentions: dict[Shape, Attention] = {}

        def zeros(heads: int, tokens: int, dim: int) -> Tensor:
            return torch.zeros(blocks, heads, tokens, dim, dtype=dtype, device=device)

        self._values = {layer: zeros(shape.kv_heads, block_size, shape.value_dim) for layer, shape in shapes.items()}
        if device.type == "cpu":
            # Keys lie across: the same dimension of a block's tokens side by side, as the C kernels read them.
            across = {layer: zeros(shape.kv_heads, shape.key_dim, block_size) for layer, shape in shapes.items()}
            self._keys = {layer: keys.transpose(2, 3) for layer, keys in across.items()}
        else:
            self._keys = {layer: zeros(shape.kv_heads, block_size, shape.key_dim) for layer, shape in shapes.items()}

    def attention(self, shape: Shape, heads: int) -> Attention:
        """Returns how a layer attends over what it keeps here. The same object for the same shape."""
        found = self._attentions.get(shape)
        if found is None:
            found = self._attentions[shape] = self._kernels.attention(
                self._keys[shape.layer],
                self._values[shape.layer],
                heads=heads,
                scale=shape.scale,
                window=shape.window,
                softcap=shape.softcap,
                sinks=shape.sinks,
            )
        return found
