"""One step as arrays of numbers on the host: what is computed, where it is written, and what is read for it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Run
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from engines.backends.torch_lm.cuda.kernels.sizes import QUERY_TILE
from engines.batching.batch import PENDING, Batch, Row
from engines.batching.sequence import Sequence

Numbers = NDArray[np.int32]
_NOTHING: Numbers = np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the model is given, and what `tables.Tables` is made of. The arrays are in the order of `staging.Staged`."""

    ids: Numbers  # [tokens]; -1 - i stands for the token that was drawn at place i
    positions: Numbers  # [tokens]
    slots: Numbers  # [tokens]
    kv_lengths: Numbers  # [sequences]
    block_starts: Numbers  # [sequences]
    query_starts: Numbers  # [sequences + 1]
    tile_sequences: Numbers  # [tiles]
    tile_begins: Numbers  # [tiles]
    wanted: Numbers  # tokens whose logits are
    blocks: Numbers  # the last, because only its length is not known by the numbers of tokens, sequences and tiles
    single_count: int


def decodes(batch: Batch) -> bool:
    """Tells whether every row is one token whose logits are wanted."""
    return all(len(row.ids) == 1 and row.logits_from == 0 for row in batch.rows)


class Planner:
    """Makes plans. Remembers the blocks of the sequences that were in the last one."""

    def __init__(self, block_size: int, trash_block: int) -> None:
        self._block_size = block_size
        self._trash: Numbers = np.array([trash_block], np.int32)
        # By the identity of a sequence's list of blocks, which only grows and gives way to a new one: the list, and
        # what it held when it was last read.
        self._known: dict[int, tuple[Run[int], Numbers]] = {}

    def decode(self, batch: Batch, drawn: Mapping[Sequence, int], size: int) -> Plan:
        """Returns the plan of rows that all decode, filled up to `size` rows, which write into the trash block.

        drawn: where the token is of each sequence whose last id is PENDING.
        """
        rows = batch.rows
        padding = size - len(rows)
        positions = _array([row.first_position for row in rows] + [0] * padding)
        blocks, block_starts = self._blocks(rows, positions + 1, padding)
        return Plan(
            ids=_array(_ids(rows, drawn) + [0] * padding),
            positions=positions,
            slots=self._slots(blocks, block_starts, positions),
            kv_lengths=positions + 1,
            block_starts=block_starts,
            query_starts=_NOTHING,
            tile_sequences=_NOTHING,
            tile_begins=_NOTHING,
            wanted=_NOTHING,
            blocks=blocks,
            single_count=size,
        )

    def mixed(self, batch: Batch, drawn: Mapping[Sequence, int]) -> Plan:
        """Returns the plan of any rows."""
        rows = batch.rows
        counts = _array([len(row.ids) for row in rows])
        firsts = _array([row.first_position for row in rows])
        silent = _array([row.logits_from for row in rows])
        starts = _starts(counts)
        row_of = np.repeat(np.arange(len(rows)), counts)
        offsets = np.arange(starts[-1], dtype=np.int32) - starts[row_of]
        positions = firsts[row_of] + offsets
        blocks, block_starts = self._blocks(rows, firsts + counts, 0)
        single_count = int((counts == 1).cumprod().sum())
        tile_counts = -(-counts // QUERY_TILE)
        tile_counts[:single_count] = 0
        tiles = np.repeat(np.arange(len(rows), dtype=np.int32), tile_counts)
        tile_begins = (np.arange(len(tiles), dtype=np.int32) - _starts(tile_counts)[tiles]) * np.int32(QUERY_TILE)
        return Plan(
            ids=_array(_ids(rows, drawn)),
            positions=positions,
            slots=self._slots(blocks, block_starts[row_of], positions),
            kv_lengths=firsts + counts,
            block_starts=block_starts,
            query_starts=starts,
            tile_sequences=tiles,
            tile_begins=tile_begins,
            wanted=np.flatnonzero(offsets >= silent[row_of]).astype(np.int32),
            blocks=blocks,
            single_count=single_count,
        )

    def _blocks(self, rows: Run[Row], kv_lengths: Numbers, padding: int) -> tuple[Numbers, Numbers]:
        """Returns the blocks of all rows, one after the other and the trash block last, and where each row's begin."""
        widths = -(-kv_lengths[: len(rows)] // self._block_size)
        known, self._known = self._known, {}
        parts = []
        for row, width in zip(rows, widths.tolist(), strict=True):
            held, numbers = known.get(id(row.blocks), (None, _NOTHING))
            if held is not row.blocks or len(numbers) < width:
                numbers = _array(row.blocks)
            self._known[id(row.blocks)] = row.blocks, numbers
            parts.append(numbers[:width])
        starts = _starts(widths)
        return np.concatenate([*parts, self._trash]), np.append(starts[:-1], np.repeat(starts[-1:], padding))

    def _slots(self, blocks: Numbers, block_starts: Numbers, positions: Numbers) -> Numbers:
        size = self._block_size
        slots: Numbers = blocks[block_starts + positions // size] * np.int32(size) + positions % size
        return slots


def _ids(rows: Run[Row], drawn: Mapping[Sequence, int]) -> list[int]:
    ids = list(chain.from_iterable([row.ids for row in rows]))
    end = 0
    for row in rows:
        end += len(row.ids)
        if ids[end - 1] == PENDING:
            # A token that could not be drawn is in nobody's output: its sequence has ended, and any id will do.
            ids[end - 1] = -1 - drawn[row.sequence] if row.sequence in drawn else 0
    return ids


def _array(numbers: Run[int]) -> Numbers:
    return np.array(numbers, np.int32)


def _starts(counts: Numbers) -> Numbers:
    """Returns where each begins if they follow one another, and the end of all."""
    starts = np.zeros(len(counts) + 1, np.int32)
    counts.cumsum(out=starts[1:])
    return starts
