"""Where the tokens of one step stand, as the kernels read it."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import addressof, c_int64
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FEW_TOKENS = 128  # so short rows are not worth a group of their own


@dataclass(frozen=True, slots=True)
class Group:
    """Queries that plain torch attends together: rows with one query each, or one row with several."""

    tokens: Tensor  # [rows * queries]: their places in the step
    positions: Tensor  # [rows, queries]
    slots: Tensor  # [rows, longest]: where the keys of positions 0, 1, … are


class Rows:
    """Row i is one sequence. It has the step's tokens [starts[i], starts[i + 1]), the last of its positions.

    starts: [rows + 1], int32; lengths: [rows], int32, how many positions each row has once this step is written;
    blocks: [rows, width], int32; positions: [tokens], int64; slots: [tokens], int64, where each token is written,
    block * block_size + offset.
    """

    def __init__(
        self,
        counts: Sequence[int],
        lengths: Sequence[int],
        blocks: Sequence[Sequence[int]],
        block_size: int,
        device: torch.device,
    ) -> None:
        """Takes, for each row, its tokens in the step, its positions with them, and the blocks of these positions."""
        size, rows = block_size, len(counts)
        starts = np.zeros(rows + 1, np.int32)
        np.cumsum(counts, out=starts[1:])
        ends = np.array(lengths, np.int32)
        widths = np.fromiter(map(len, blocks), np.int64, rows)
        table = np.zeros((rows, int(widths.max(initial=0))), np.int32)
        places = np.arange(table.shape[1]) < widths[:, None]
        table[places] = np.fromiter(chain.from_iterable(blocks), np.int32, int(widths.sum()))
        row_of = np.repeat(np.arange(rows), counts)
        positions = np.arange(int(starts[-1])) + (ends - starts[1:])[row_of]
        slots = table[row_of, positions // size].astype(np.int64) * size + positions % size
        self.row_of, self.token_positions = row_of, positions  # of each token, for whoever counts on
        self.starts, self.lengths, self.blocks, self.positions, self.slots = (
            torch.from_numpy(each).to(device) for each in (starts, ends, table, positions, slots)
        )
        self._host = starts, ends, table
        self._block_size = size

    @cached_property
    def address(self) -> int:
        """Where `struct rows` of layer.h is. Valid as long as this lives; of use on a CPU only."""
        pointers = (tensor.data_ptr() for tensor in (self.blocks, self.starts, self.lengths, self.slots))
        self._struct = (c_int64 * 6)(*pointers, self.blocks.shape[1], self.lengths.shape[0])
        return addressof(self._struct)

    @cached_property
    def groups(self) -> list[Group]:
        """All queries, once each."""
        starts, lengths, _ = self._host
        counts = np.diff(starts)
        singles = np.flatnonzero(counts == 1)
        singles = singles[np.argsort(lengths[singles], kind="stable")]
        groups = [self._group(singles[begin:end]) for begin, end in _alike(lengths[singles])]
        return groups + [self._group(np.array([row])) for row in np.flatnonzero(counts > 1)]

    def _group(self, rows: NDArray[np.intp]) -> Group:
        starts, lengths, blocks = self._host
        size, device = self._block_size, self.starts.device
        count = int(starts[rows[0] + 1] - starts[rows[0]])
        last = lengths[rows, None].astype(np.int64) - 1
        # A shorter row is filled up with its own last token, which the mask hides: whatever another sequence has in the
        # cache, not even a NaN of it can come in.
        places = np.minimum(np.arange(last.max() + 1), last)
        slots = np.take_along_axis(blocks[rows], places // size, axis=1) * np.int64(size) + places % size
        offsets = np.arange(count)
        tokens, positions = (starts[rows, None] + offsets).ravel(), last - (count - 1) + offsets
        return Group(*(torch.from_numpy(each).to(device) for each in (tokens, positions, slots)))


def _alike(lengths: NDArray[np.int32]) -> list[tuple[int, int]]:
    """Returns runs of rows, shortest first, of which the longest has less than twice the tokens of the first, or few.

    Rows that attend together are read up to the longest: beside one of 2,000 tokens, each of 31 short ones costs as
    much.
    """
    runs, begin = [], 0
    for index, length in enumerate(lengths):
        if length > max(FEW_TOKENS, 2 * lengths[begin]):
            runs.append((begin, index))
            begin = index
    return [*runs, (begin, len(lengths))] if len(lengths) else []
