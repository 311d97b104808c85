"""The attention of a layer in plain torch, over the same tables and cache: slow, and right on every device.

Reads the tables on the host, so that a step waits for the device in every layer and cannot be a CUDA graph.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from engines.backends.torch_lm.attention import Shape
from engines.backends.torch_lm.cuda.tables import Tables
from engines.backends.torch_lm.kernels import reference
from engines.backends.torch_lm.kernels.interface import HeadNorm
from engines.backends.torch_lm.kernels.rows import Rows


class TorchAttention:
    """See `cache.LayerAttention`."""

    def __init__(self, keys: Tensor, values: Tensor, shape: Shape, heads: int) -> None:
        self._block_size, self._device = keys.shape[1], keys.device
        self._plain = reference.TorchAttention(
            keys.transpose(1, 2), values.transpose(1, 2), heads, shape.scale, shape.window, shape.softcap, shape.sinks
        )

    def write(self, keys: Tensor, values: Tensor, rows: Tables) -> None:
        """See `cache.LayerAttention`."""
        self._plain.write(keys, values, self._rows(rows))

    def write_qkv(
        self, qkv: Tensor, rows: Tables, cos: Tensor | None, sin: Tensor | None, norm: HeadNorm | None = None
    ) -> Tensor:
        """See `cache.LayerAttention`."""
        return self._plain.write_qkv(qkv, self._rows(rows), cos, sin, norm)

    def attend(self, query: Tensor, rows: Tables) -> Tensor:
        """See `cache.LayerAttention`."""
        return self._plain.attend(query, self._rows(rows))

    def _rows(self, tables: Tables) -> Rows:
        lengths, begins = tables.kv_lengths.tolist(), tables.block_starts.tolist()
        starts = tables.query_starts.tolist() or range(len(lengths) + 1)
        ends = [begin - (-length // self._block_size) for begin, length in zip(begins, lengths, strict=True)]
        held = tables.blocks[: max(ends)].tolist()
        blocks = [held[begin:end] for begin, end in zip(begins, ends, strict=True)]
        return Rows([end - begin for begin, end in pairwise(starts)], lengths, blocks, self._block_size, self._device)
