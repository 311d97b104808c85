"""One step as tensors: which ids, where they stand, and which slots of the cache they write and read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.backends.torch_lm.attention import Shape, attend
from engines.backends.torch_lm.cache import KvCache
from engines.batching.batch import Batch, Row

FEW_TOKENS = 128  # so short rows are not worth a group of their own


@dataclass(frozen=True, slots=True)
class Group:
    """Queries that attend together: rows with one query each, or one row with several."""

    begin: int  # of its tokens in the step
    end: int
    slots: Tensor  # [rows, tokens]: where the keys of positions 0, 1, … are
    positions: Tensor  # [rows, queries]


class Step:
    """The tensors of a batch, and attention over them."""

    def __init__(self, batch: Batch, cache: KvCache, device: torch.device) -> None:
        self._cache = cache
        self.attended_count = 0  # layers that have called
        rows = batch.rows
        ids = [token for row in rows for token in row.ids]
        positions = [row.first_position + offset for row in rows for offset in range(len(row.ids))]
        size = cache.block_size
        slots = [
            row.blocks[position // size] * size + position % size
            for row in rows
            for position in range(row.first_position, row.first_position + len(row.ids))
        ]
        ends = torch.tensor([len(row.ids) for row in rows]).cumsum(0).tolist()
        last = [end - 1 for row, end in zip(rows, ends, strict=True) if row.needs_logits]
        self.ids = torch.tensor([ids], device=device)
        self.positions = torch.tensor([positions], device=device)
        self.last = torch.tensor(last, dtype=torch.int64, device=device)  # tokens whose logits are wanted
        self._slots = torch.tensor(slots, device=device)
        self._groups = self._grouped(rows, ends, device)

    def __call__(self, shape: Shape, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Writes this layer's keys and values, and attends. See `attention.Attention`."""
        self.attended_count += 1
        self._cache.write(shape.layer, self._slots, keys[0].transpose(0, 1), values[0].transpose(0, 1))
        outputs = []
        for group in self._groups:
            rows, queries = group.positions.shape
            # [heads, rows * queries, dim] → [rows, heads, queries, dim]
            asked = query[0, :, group.begin : group.end].reshape(-1, rows, queries, query.shape[3]).transpose(0, 1)
            seen = self._cache.read(shape.layer, group.slots)
            output = attend(shape, asked, *seen, group.positions)
            outputs.append(output.transpose(1, 2).flatten(0, 1))
        return torch.cat(outputs).unsqueeze(0)

    def _grouped(self, rows: Sequence[Row], ends: Sequence[int], device: torch.device) -> list[Group]:
        single = next((index for index, row in enumerate(rows) if len(row.ids) > 1), len(rows))
        groups = [self._group(rows[begin:end], begin, end, device) for begin, end in _alike(rows[:single])]
        for row, end in zip(rows[single:], ends[single:], strict=True):
            groups.append(self._group([row], end - len(row.ids), end, device))
        return groups

    def _group(self, rows: Sequence[Row], begin: int, end: int, device: torch.device) -> Group:
        size = self._cache.block_size
        last = torch.tensor([row.first_position + len(row.ids) - 1 for row in rows])
        longest = int(last.max()) + 1
        width = -(-longest // size)
        blocks = torch.tensor([[*row.blocks[:width], *[0] * (width - len(row.blocks))] for row in rows])
        # A shorter row is filled up with its own last token, which the mask hides: whatever another sequence has in the
        # cache, not even a NaN of it can come in.
        places = torch.minimum(torch.arange(longest), last[:, None])
        slots = blocks.gather(1, places // size) * size + places % size
        positions = self.positions[0, begin:end].view(len(rows), -1)
        return Group(begin, end, slots.to(device), positions)


def _alike(rows: Sequence[Row]) -> Iterator[tuple[int, int]]:
    """Yields runs of rows of which the longest has less than twice the tokens of the first, or few.

    Rows that attend together are read up to the longest: beside one of 2,000 tokens, each of 31 short ones costs as
    much.
    """
    begin = 0
    for index, row in enumerate(rows):
        if row.first_position >= max(FEW_TOKENS, 2 * rows[begin].first_position):
            yield begin, index
            begin = index
    if rows:
        yield begin, len(rows)
