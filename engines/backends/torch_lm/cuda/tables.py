"""Where the sequences of one step are, on the device."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tables:
    """All int32. Sequences with a single query come first; token i is the query of sequence i there.

    Sequence i has `kv_lengths[i]` keys, those of this step among them, and its queries are the last of them. Position p
    of it is in block `blocks[block_starts[i] + p // block_size]`.
    """

    slots: Tensor  # [tokens]: where keys and values are written, block * block_size + offset
    kv_lengths: Tensor  # [sequences]
    block_starts: Tensor  # [sequences]
    blocks: Tensor  # of all sequences, one after the other
    single_count: int  # sequences with a single query
    # The others, cut into tiles: tile i is the queries [tile_begins[i], tile_begins[i] + QUERY_TILE) of a sequence.
    query_starts: Tensor  # [sequences + 1]: the first token of each, and the count of all
    tile_sequences: Tensor  # [tiles]
    tile_begins: Tensor  # [tiles]
