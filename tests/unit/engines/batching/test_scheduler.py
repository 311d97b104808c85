import pytest

from engines.batching.batch import Batch
from engines.batching.blocks import BlockPool
from engines.batching.scheduler import Freed, Scheduler
from tests.support.batching import finish_step, keys, sequence_of


def make_scheduler(*, blocks: int = 100, block_size: int = 4, batch_size: int = 8, tokens: int = 16) -> Scheduler:
    return Scheduler(BlockPool(blocks, block_size), batch_size=batch_size, max_batched_tokens=tokens)


def shapes(batch: Batch) -> list[tuple[str, int, int, bool]]:
    return [(row.sequence.work.key, row.first_position, len(row.ids), row.draws) for row in batch.rows]


# What a step computes.


def test_a_long_prompt_is_computed_in_chunks_and_only_the_last_draws() -> None:
    scheduler = make_scheduler(tokens=16)
    scheduler.add(sequence_of(40, key="long"))
    steps = []
    for _ in range(4):
        batch = scheduler.next_batch()
        assert [row.logits_count for row in batch.rows] == [int(row.draws) for row in batch.rows]
        steps += shapes(batch)
        finish_step(scheduler, batch)
    assert steps == [("long", 0, 16, False), ("long", 16, 16, False), ("long", 32, 8, True), ("long", 40, 1, True)]


def test_decoding_goes_on_beside_the_chunks_of_a_prompt() -> None:
    scheduler = make_scheduler(tokens=16)
    scheduler.add(sequence_of(3, key="short"))
    finish_step(scheduler, scheduler.next_batch())
    scheduler.add(sequence_of(40, key="long"))
    assert shapes(scheduler.next_batch()) == [("short", 3, 1, True), ("long", 0, 15, False)]


def test_prompts_that_run_go_before_those_that_would_join() -> None:
    scheduler = make_scheduler(tokens=16)
    scheduler.add(sequence_of(20, key="first"))
    scheduler.add(sequence_of(20, key="second"))
    assert shapes(scheduler.next_batch()) == [("first", 0, 16, False)]
    assert scheduler.waiting_count == 1
    for row in scheduler.next_batch().rows:
        assert row.sequence.work.key in {"first", "second"}


def test_rows_with_one_token_come_first() -> None:
    scheduler = make_scheduler(tokens=16)
    for prompt in (14, 1, 9):
        scheduler.add(sequence_of(prompt))
    assert [len(row.ids) for row in scheduler.next_batch().rows] == [1, 1, 14]


def test_a_step_never_computes_more_tokens_than_it_may() -> None:
    scheduler = make_scheduler(tokens=16)
    for index in range(20):
        scheduler.add(sequence_of(5 + index))
    while scheduler.running_count + scheduler.waiting_count:
        batch = scheduler.next_batch()
        assert 0 < batch.token_count <= 16
        finish_step(scheduler, batch)


@pytest.mark.parametrize(("limit", "lengths"), [(5, [1, 4]), (2, [1, 1]), (1, [1]), (0, [1]), (99, [1, 15])])
def test_a_step_may_be_limited_to_fewer_tokens_but_not_to_none(limit: int, lengths: list[int]) -> None:
    scheduler = make_scheduler(tokens=16)
    scheduler.add(sequence_of(3))
    finish_step(scheduler, scheduler.next_batch())
    scheduler.add(sequence_of(30))
    scheduler.limit(limit)
    batch = scheduler.next_batch()
    assert [len(row.ids) for row in batch.rows] == lengths
    scheduler.retract(batch)
    scheduler.limit(None)
    assert scheduler.next_batch().token_count == 16


def test_when_not_all_may_decode_the_first_in_rank_do() -> None:
    scheduler = make_scheduler()
    for key, priority in (("a", 0), ("b", 1), ("c", 0)):
        scheduler.add(sequence_of([1], key=key, priority=priority))
    finish_step(scheduler, scheduler.next_batch())
    scheduler.limit(2)
    assert keys(row.sequence for row in scheduler.next_batch().rows) == ["b", "a"]


def test_output_that_a_sequence_has_already_is_computed_with_its_prompt() -> None:
    scheduler = make_scheduler()
    sequence = sequence_of(3, max_tokens=4, key="resumed", output=(7, 8))
    scheduler.add(sequence)
    batch = scheduler.next_batch()
    assert shapes(batch) == [("resumed", 0, 5, True)]
    assert sequence.output_count == 2
    finish_step(scheduler, batch, token=9)
    assert sequence.ids[3:] == [7, 8, 9]


# Who joins.


def test_no_more_sequences_run_than_may() -> None:
    scheduler = make_scheduler(batch_size=3)
    for prompt in range(2, 7):
        scheduler.add(sequence_of(prompt))
    scheduler.next_batch()
    assert (scheduler.running_count, scheduler.waiting_count) == (3, 2)


def test_no_more_sequences_run_than_one_step_can_decode() -> None:
    assert make_scheduler(batch_size=8, tokens=5).max_running == 5


def test_a_sequence_joins_when_its_prompt_and_one_more_token_find_blocks() -> None:
    scheduler = make_scheduler(blocks=6, block_size=4, tokens=64)
    scheduler.add(sequence_of(6, max_tokens=15, key="first"))
    scheduler.add(sequence_of(15, max_tokens=4, key="second"))
    assert keys(row.sequence for row in scheduler.next_batch().rows) == ["first", "second"]
    assert scheduler.pool.free_count == 0


def test_a_sequence_waits_until_blocks_for_its_whole_prompt_are_free_and_nobody_overtakes_it() -> None:
    scheduler = make_scheduler(blocks=6, block_size=4, tokens=64)
    first, second, third = sequence_of(6, key="first"), sequence_of(16, key="second"), sequence_of(1, key="third")
    for sequence in (first, second, third):
        scheduler.add(sequence)
    assert keys(row.sequence for row in scheduler.next_batch().rows) == ["first"]
    scheduler.remove(first)
    assert keys(row.sequence for row in scheduler.next_batch().rows) == ["third", "second"]


def test_blocks_that_a_prompt_is_going_to_take_are_not_free_for_others() -> None:
    scheduler = make_scheduler(blocks=6, block_size=4, tokens=8)
    scheduler.add(sequence_of(15, key="long"))
    finish_step(scheduler, scheduler.next_batch())
    assert scheduler.pool.free_count == 4
    scheduler.add(sequence_of(8, key="next"))  # needs three, and only two are not spoken for
    finish_step(scheduler, scheduler.next_batch())
    scheduler.next_batch()
    assert (scheduler.running_count, scheduler.waiting_count) == (1, 1)


@pytest.mark.parametrize(("blocks", "running"), [(99, 2), (100, 1), (101, 2)])
def test_one_block_in_a_hundred_is_left_to_those_that_run(blocks: int, running: int) -> None:
    scheduler = make_scheduler(blocks=blocks, block_size=4, tokens=1000)
    scheduler.add(sequence_of(4 * 60 - 1))
    scheduler.add(sequence_of(4 * min(blocks - 60, 40) - 1))
    scheduler.next_batch()
    assert scheduler.running_count == running


def test_a_sequence_that_runs_alone_may_take_every_block() -> None:
    scheduler = make_scheduler(blocks=100, block_size=4, tokens=1000)
    scheduler.add(sequence_of(399, max_tokens=2))
    assert shapes(scheduler.next_batch()) == [("prompt-399", 0, 399, True)]


@pytest.mark.parametrize(("prompt", "max_tokens", "fits"), [(8, 1, True), (6, 3, True), (6, 4, False), (9, 1, False)])
def test_a_sequence_fits_if_the_whole_pool_holds_all_but_its_last_token(
    *, prompt: int, max_tokens: int, fits: bool
) -> None:
    scheduler = make_scheduler(blocks=2, block_size=4)
    sequence = sequence_of(prompt, max_tokens)
    assert scheduler.can_hold(sequence) == fits
    if not fits:
        with pytest.raises(AssertionError):
            scheduler.add(sequence)


# Who leaves.


def test_removing_tells_what_the_counter_showed() -> None:
    scheduler = make_scheduler(blocks=10, block_size=4)
    sequence = sequence_of(6)
    scheduler.add(sequence)
    scheduler.next_batch()
    assert scheduler.remove(sequence) == Freed(before=8, after=10)


def test_removing_what_waits_frees_nothing() -> None:
    scheduler = make_scheduler(batch_size=1)
    first, second = sequence_of(2), sequence_of(3)
    scheduler.add(first)
    scheduler.add(second)
    scheduler.next_batch()
    freed = scheduler.remove(second)
    assert freed.before == freed.after
    assert (scheduler.running_count, scheduler.waiting_count) == (1, 0)


def test_removing_twice_is_a_fault() -> None:
    scheduler = make_scheduler()
    sequence = sequence_of(2)
    scheduler.add(sequence)
    scheduler.remove(sequence)
    with pytest.raises(ValueError, match="not in list"):
        scheduler.remove(sequence)


def test_without_sequences_there_is_nothing_to_do() -> None:
    scheduler = make_scheduler()
    assert scheduler.running_count + scheduler.waiting_count == 0
    assert not scheduler.next_batch().rows


# Batches that were not computed.


def test_a_batch_that_was_not_computed_is_scheduled_again() -> None:
    scheduler = make_scheduler(tokens=16)
    for prompt in (1, 2, 30):
        scheduler.add(sequence_of(prompt))
    batch = scheduler.next_batch()
    scheduler.retract(batch)
    again = scheduler.next_batch()
    assert shapes(again) == shapes(batch)
    assert [row.blocks for row in again.rows] == [row.blocks for row in batch.rows]


def test_a_batch_that_was_not_computed_may_be_scheduled_in_smaller_ones() -> None:
    scheduler = make_scheduler(tokens=16)
    scheduler.add(sequence_of(16, key="long"))
    scheduler.retract(scheduler.next_batch())
    scheduler.limit(9)
    spans: list[tuple[str, int, int, bool]] = []
    while not spans or not spans[-1][-1]:
        batch = scheduler.next_batch()
        spans += shapes(batch)
        finish_step(scheduler, batch)
    assert spans == [("long", 0, 9, False), ("long", 9, 7, True)]
