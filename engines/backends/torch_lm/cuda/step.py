"""One step on the device, as a model sees it."""

from __future__ import annotations

from torch import Tensor

from engines.backends.torch_lm.attention import Shape
from engines.backends.torch_lm.cuda.cache import LayerAttention, PagedCache
from engines.backends.torch_lm.cuda.tables import Tables


class CudaStep:
    """What `step.Step` is on a CPU; nothing in it is known to the host but how many there are."""

    def __init__(
        self, ids: Tensor, positions: Tensor, wanted: Tensor, tables: Tables, cache: PagedCache, highest: int
    ) -> None:
        """Takes int64: ids and positions, [1, tokens], and the tokens whose logits are wanted. highest: no position is
        above it in this step or any other.
        """
        self.ids, self.positions, self.wanted = ids, positions, wanted
        self.rows = tables
        self.highest = highest
        self.attended_count = 0  # layers that have called
        self._cache = cache

    def attention(self, shape: Shape, heads: int) -> LayerAttention:
        """Returns how a layer attends. What calls it with `self.rows` counts up `attended_count`."""
        return self._cache.attention(shape, heads)

    def __call__(self, shape: Shape, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Writes this layer's keys and values, and attends. See `attention.Attention`."""
        self.attended_count += 1
        attention = self._cache.attention(shape, query.shape[1])
        attention.write(keys[0].transpose(0, 1), values[0].transpose(0, 1), self.rows)
        return attention.attend(query[0].transpose(0, 1), self.rows)[None]
