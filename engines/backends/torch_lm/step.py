"""One step as tensors: which ids, where they stand, and whose logits are wanted."""

from __future__ import annotations

from itertools import chain

import numpy as np
import torch
from torch import Tensor

from engines.backends.torch_lm.attention import Shape
from engines.backends.torch_lm.cache import KvCache
from engines.backends.torch_lm.kernels.rows import Rows
from engines.batching.batch import Batch


class Step:
    """The tensors of a batch, and attention over them."""

    def __init__(self, batch: Batch, cache: KvCache, device: torch.device) -> None:
        self._cache = cache
        self.attended_count = 0  # layers that have attended
        rows = batch.rows
        counts = [len(row.ids) for row in rows]
        lengths = [row.first_position + count for row, count in zip(rows, counts, strict=True)]
        self.rows = Rows(counts, lengths, [row.blocks for row in rows], cache.block_size, device)
        ids = np.fromiter(chain.from_iterable(row.ids for row in rows), np.int64, sum(counts))
        wanted_from = np.array([row.first_position + row.logits_from for row in rows])
        wanted = np.flatnonzero(self.rows.token_positions >= wanted_from[self.rows.row_of])
        self.ids = torch.from_numpy(ids).to(device)[None]  # [1, tokens]
        self.positions = self.rows.positions[None]  # [1, tokens]
        self.wanted = torch.from_numpy(wanted).to(device)  # places of the tokens whose logits are wanted, in order

    def __call__(self, shape: Shape, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Writes this layer's keys and values, and attends. See `attention.Attention`."""
        self.attended_count += 1
        attention = self._cache.attention(shape, query.shape[1])
        attention.write(keys[0].transpose(0, 1), values[0].transpose(0, 1), self.rows)
        return attention.attend(query[0].transpose(0, 1), self.rows)[None]
