"""What the host tells the device of a step: where everything is, and how batches are filled up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.backends.torch_lm.cuda.buckets import bucket_of, buckets
from engines.backends.torch_lm.cuda.kernels.sizes import QUERY_TILE, heads_together, key_tile, part_count
from engines.backends.torch_lm.cuda.plan import Plan, Planner, decodes
from engines.batching.batch import PENDING, Batch, Row
from engines.batching.sequence import Sequence
from engines.model import Sampling, Work

SIZE, TRASH = 8, 99
GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)


def sequence() -> Sequence:
    return Sequence(Work("a", (1,), max_tokens=1, sampling=GREEDY))


def row(ids: tuple[int, ...], first: int, blocks: list[int], logits_from: int | None = None) -> Row:
    return Row(sequence(), ids, first, blocks, len(ids) - 1 if logits_from is None else logits_from)


def lists(plan: Plan) -> dict[str, object]:
    return {name: value.tolist() for name in Plan.__slots__ if isinstance(value := getattr(plan, name), np.ndarray)}


def test_a_batch_that_decodes_is_filled_up_with_rows_that_write_to_the_trash_block() -> None:
    batch = Batch((row((7,), 0, [5]), row((8,), 17, [3, 4, 6, 2])))
    plan = Planner(SIZE, TRASH).decode(batch, {}, 4)
    assert lists(plan) == {
        "ids": [7, 8, 0, 0],
        "positions": [0, 17, 0, 0],
        "slots": [5 * SIZE, 6 * SIZE + 1, TRASH * SIZE, TRASH * SIZE],
        "kv_lengths": [1, 18, 1, 1],
        "block_starts": [0, 1, 4, 4],
        "blocks": [5, 3, 4, 6, TRASH],  # without the last of the second, which it has not come to yet
        "query_starts": [],
        "tile_sequences": [],
        "tile_begins": [],
        "wanted": [],
    }
    assert plan.single_count == 4


def test_single_tokens_come_first_and_chunks_are_cut_into_tiles() -> None:
    chunk = tuple(range(QUERY_TILE + 2))
    batch = Batch(
        (row((7,), 9, [1, 2]), row((4,), 0, [3], logits_from=1), row(chunk, 6, [4, 5, 6, 7, 8]), row((1, 2), 0, [9]))
    )
    plan = Planner(SIZE, TRASH).mixed(batch, {})
    assert plan.single_count == 2
    assert plan.query_starts.tolist() == [0, 1, 2, 36, 38]
    assert list(zip(plan.tile_sequences.tolist(), plan.tile_begins.tolist(), strict=True)) == [(2, 0), (2, 32), (3, 0)]
    assert plan.wanted.tolist() == [0, 35, 37]
    assert plan.kv_lengths.tolist() == [10, 1, 40, 2]
    assert plan.slots[:4].tolist() == [2 * SIZE + 1, 3 * SIZE, 4 * SIZE + 6, 4 * SIZE + 7]


def test_logits_may_be_wanted_behind_several_tokens_of_a_row() -> None:
    plan = Planner(SIZE, TRASH).mixed(Batch((row((5,), 3, [0]), row((1, 2, 3, 4), 0, [1], logits_from=1))), {})
    assert plan.wanted.tolist() == [0, 2, 3, 4]


def test_an_id_that_is_not_known_yet_says_where_it_was_drawn() -> None:
    rows = (row((PENDING,), 3, [0]), row((6,), 1, [1]), row((PENDING,), 2, [2]))
    drawn = {rows[0].sequence: 4, rows[2].sequence: 0}
    assert Planner(SIZE, TRASH).decode(Batch(rows), drawn, 4).ids.tolist() == [-5, 6, -1, 0]
    assert Planner(SIZE, TRASH).mixed(Batch(rows), drawn).ids.tolist() == [-5, 6, -1]


def test_the_blocks_of_a_sequence_may_grow_and_may_be_others_after_it_was_put_out() -> None:
    planner, blocks = Planner(SIZE, TRASH), [1]
    assert planner.decode(Batch((row((1,), 0, blocks),)), {}, 1).blocks.tolist() == [1, TRASH]
    blocks.append(7)
    assert planner.decode(Batch((row((1,), 8, blocks),)), {}, 1).blocks.tolist() == [1, 7, TRASH]
    assert planner.decode(Batch((row((1,), 0, [4, 5]),)), {}, 1).blocks.tolist() == [4, TRASH]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ((row((1,), 0, [0]),), True),
        ((row((1,), 0, [0], logits_from=1),), False),
        ((row((1,), 0, [0]), row((1, 2), 0, [1])), False),
    ],
    ids=["one token", "no logits", "a chunk beside it"],
)
def test_only_single_tokens_with_logits_decode(rows: tuple[Row, ...], expected: bool) -> None:
    assert decodes(Batch(rows)) is expected


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 60)), min_size=1, max_size=6))
def test_every_token_is_written_where_it_is_read(shapes: list[tuple[int, int]]) -> None:
    shapes.sort(key=lambda shape: shape[0] > 1)
    rows, block = [], 0
    for count, first in shapes:
        width = -(-(first + count) // SIZE)
        rows.append(row((1,) * count, first, list(range(block, block + width))[::-1]))
        block += width
    plan = Planner(SIZE, TRASH).mixed(Batch(tuple(rows)), {})
    slots = iter(plan.slots.tolist())
    for index, (count, first) in enumerate(shapes):
        for position in range(first, first + count):
            held = plan.blocks[plan.block_starts[index] + position // SIZE]
            assert next(slots) == held * SIZE + position % SIZE
    assert len(set(plan.slots.tolist())) == len(plan.slots)
    covered = [
        (s, b + offset) for s, b in zip(plan.tile_sequences, plan.tile_begins, strict=True) for offset in range(32)
    ]
    for index, (count, _) in enumerate(shapes[plan.single_count :], plan.single_count):
        assert {offset for s, offset in covered if s == index} >= set(range(count))


def test_sizes_that_are_recorded() -> None:
    assert buckets(256) == (1, 2, 4, 8, 16, 24, *range(32, 257, 8))
    assert buckets(4096) == buckets(256)
    assert buckets(1) == (1,)
    assert buckets(3) == (1, 2, 4)
    assert buckets(20) == (1, 2, 4, 8, 16, 24)


@given(st.integers(1, 300), st.integers(1, 300))
def test_a_batch_is_filled_up_as_little_as_can_be(batch_size: int, count: int) -> None:
    sizes = buckets(batch_size)
    assert sizes[-1] >= min(batch_size, 256)
    assert bucket_of(count, sizes) == min((size for size in sizes if size >= count), default=None)


@given(st.integers(1, 300), st.integers(1, 64), st.integers(1, 1 << 20), st.integers(1, 200))
def test_keys_are_read_in_a_power_of_two_of_parts_none_of_which_is_very_short(
    rows: int, kv_heads: int, context: int, multiprocessors: int
) -> None:
    parts = part_count(rows, kv_heads, context, multiprocessors)
    assert parts in {1, 2, 4, 8, 16, 32}
    assert parts == 1 or parts * 64 <= context + 63
    assert parts == 1 or parts * rows * kv_heads <= 4 * multiprocessors + rows * kv_heads


def test_how_work_is_cut_for_a_model_of_eight_billion_weights() -> None:
    assert [part_count(rows, 8, 8192, 132) for rows in (1, 8, 64, 256)] == [32, 8, 2, 1]
    assert key_tile(128, 128, 2) == 64
    assert heads_together(4, 128, 2) == 4
