"""The attention of a layer by the Triton kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from engines.backends.torch_lm.attention import Shape
from engines.backends.torch_lm.cuda.kernels.decode import decode
from engines.backends.torch_lm.cuda.kernels.prefill import prefill
from engines.backends.torch_lm.cuda.kernels.rotate import rotate_and_write
from engines.backends.torch_lm.cuda.kernels.sizes import part_count
from engines.backends.torch_lm.cuda.kernels.write import write_kv
from engines.backends.torch_lm.cuda.tables import Tables
from engines.backends.torch_lm.kernels.interface import HeadNorm


class TritonAttention:
    """See `cache.LayerAttention`."""

    def __init__(
        self, keys: Tensor, values: Tensor, shape: Shape, heads: int, *, context: int, multiprocessors: int
    ) -> None:
        """context: the most tokens of a sequence."""
        self._keys, self._values = keys, values
        self._shape, self._heads = shape, heads
        self._seen = context if shape.window is None else min(shape.window, context)
        self._multiprocessors = multiprocessors

    def write(self, keys: Tensor, values: Tensor, rows: Tables) -> None:
        """See `cache.LayerAttention`."""
        write_kv(_dense(keys).transpose(0, 1), _dense(values).transpose(0, 1), self._keys, self._values, rows.slots)

    def write_qkv(
        self, qkv: Tensor, rows: Tables, cos: Tensor | None, sin: Tensor | None, norm: HeadNorm | None = None
    ) -> Tensor:
        """See `cache.LayerAttention`."""
        rotate_and_write(qkv, self._keys, self._values, rows.slots, self._heads, cos, sin, norm)
        key_dim = self._keys.shape[3]
        return qkv[:, : self._heads * key_dim].view(len(qkv), self._heads, key_dim)

    def attend(self, query: Tensor, rows: Tables) -> Tensor:
        """See `cache.LayerAttention`."""
        query = _dense(query)
        output = torch.empty(*query.shape[:2], self._values.shape[3], dtype=query.dtype, device=query.device)
        if rows.single_count:
            parts = part_count(rows.single_count, self._keys.shape[2], self._seen, self._multiprocessors)
            decode(self._shape, query, self._keys, self._values, rows, parts, output)
        if len(rows.tile_sequences):
            prefill(self._shape, query, self._keys, self._values, rows, output)
        return output


def _dense(x: Tensor) -> Tensor:
    """Returns the same with the numbers of a head side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()
