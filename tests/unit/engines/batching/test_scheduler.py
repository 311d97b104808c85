import pytest

from engines.batching.batch import Batch
from engines.batching.blocks import BlockPool
from engines.batching.scheduler import Freed, Scheduler
from engines.batching.sequence import Sequence
from engines.model import Sampling, Work


def make_sequence(prompt: int, max_tokens: int = 4, key: str = "") -> Sequence:
    sampling = Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)
    return Sequence(Work(key or f"prompt-{prompt}", tuple(range(prompt)), max_tokens, sampling))


def make_scheduler(*, blocks: int = 100, block_size: int = 4, batch_size: int = 8, tokens: int = 16) -> Scheduler:
    return Scheduler(BlockPool(blocks, block_size), batch_size=batch_size, max_batched_tokens=tokens)


def finish_step(batch: Batch) -> None:
    for row in batch.rows:
        row.sequence.advance(len(row.ids))
        if row.needs_logits:
            row.sequence.append(7)


def shapes(batch: Batch) -> list[tuple[str, int, int, bool]]:
    return [(row.sequence.work.key, row.first_position, len(row.ids), row.needs_logits) for row in batch.rows]


def test_a_long_prompt_is_computed_in_chunks_and_only_the_last_needs_logits() -> None:
    scheduler = make_scheduler(tokens=16)
    scheduler.add(make_sequence(40, key="long"))
    steps = []
    for _ in range(4):
        batch = scheduler.next_batch()
        steps += shapes(batch)
        finish_step(batch)
    assert steps == [("long", 0, 16, False), ("long", 16, 16, False), ("long", 32, 8, True), ("long", 40, 1, True)]


def test_decoding_goes_on_beside_the_chunks_of_a_prompt() -> None:
    scheduler = make_scheduler(tokens=16)
    scheduler.add(make_sequence(3, key="short"))
    finish_step(scheduler.next_batch())
    scheduler.add(make_sequence(40, key="long"))
    assert shapes(scheduler.next_batch()) == [("short", 3, 1, True), ("long", 0, 15, False)]


def test_rows_with_one_token_come_first() -> None:
    scheduler = make_scheduler(tokens=16)
    for prompt in (20, 1, 1):
        scheduler.add(make_sequence(prompt))
    assert [len(row.ids) for row in scheduler.next_batch().rows] == [1, 1, 14]


def test_the_shortest_sequences_decode_first() -> None:
    scheduler = make_scheduler(tokens=64)
    for prompt in (9, 3, 20):
        scheduler.add(make_sequence(prompt))
    finish_step(scheduler.next_batch())
    assert [row.first_position for row in scheduler.next_batch().rows] == [3, 9, 20]


def test_a_step_never_computes_more_tokens_than_it_may() -> None:
    scheduler = make_scheduler(tokens=16)
    for index in range(20):
        scheduler.add(make_sequence(5 + index))
    while scheduler.has_work:
        batch = scheduler.next_batch()
        assert 0 < batch.token_count <= 16
        finish_step(batch)
        for row in batch.rows:
            if row.sequence.output_count == 4:
                scheduler.remove(row.sequence)


def test_no_more_sequences_run_than_may() -> None:
    scheduler = make_scheduler(batch_size=3)
    for _ in range(5):
        scheduler.add(make_sequence(2))
    scheduler.next_batch()
    assert (scheduler.running_count, scheduler.waiting_count) == (3, 2)


def test_no_more_sequences_run_than_one_step_can_decode() -> None:
    assert make_scheduler(batch_size=8, tokens=5).max_running == 5


def test_blocks_are_reserved_for_prompt_and_output_when_a_sequence_joins() -> None:
    scheduler = make_scheduler(blocks=10, block_size=4)
    sequence = make_sequence(6, max_tokens=7)
    scheduler.add(sequence)
    assert scheduler.pool.free_count == 10
    scheduler.next_batch()
    assert len(sequence.blocks) == 4
    assert scheduler.pool.free_count == 6


def test_a_sequence_waits_until_all_its_blocks_are_free() -> None:
    scheduler = make_scheduler(blocks=4, block_size=4)
    first, second = make_sequence(8, max_tokens=4, key="first"), make_sequence(4, max_tokens=4, key="second")
    scheduler.add(first)
    scheduler.add(second)
    scheduler.next_batch()
    assert scheduler.waiting_count == 1
    scheduler.remove(first)
    assert shapes(scheduler.next_batch()) == [("second", 0, 4, True)]


def test_nobody_overtakes() -> None:
    scheduler = make_scheduler(blocks=4, block_size=4)
    running, large, small = (
        make_sequence(size, max_tokens=1, key=key) for key, size in (("a", 7), ("b", 15), ("c", 1))
    )
    for sequence in (running, large, small):
        scheduler.add(sequence)
    assert [row.sequence for row in scheduler.next_batch().rows] == [running]
    scheduler.remove(running)
    assert [row.sequence for row in scheduler.next_batch().rows] == [large]


def test_removing_tells_what_the_counter_showed() -> None:
    scheduler = make_scheduler(blocks=10, block_size=4)
    sequence = make_sequence(6, max_tokens=7)
    scheduler.add(sequence)
    scheduler.next_batch()
    assert scheduler.remove(sequence) == Freed(before=6, after=10)


def test_removing_what_waits_frees_nothing() -> None:
    scheduler = make_scheduler(batch_size=1)
    first, second = make_sequence(2), make_sequence(3)
    scheduler.add(first)
    scheduler.add(second)
    scheduler.next_batch()
    freed = scheduler.remove(second)
    assert freed.before == freed.after
    assert (scheduler.running_count, scheduler.waiting_count) == (1, 0)


def test_a_sequence_that_never_fits_is_a_fault() -> None:
    scheduler = make_scheduler(blocks=2, block_size=4)
    assert not scheduler.can_hold(make_sequence(6, max_tokens=3))
    with pytest.raises(AssertionError):
        scheduler.add(make_sequence(6, max_tokens=3))


def test_without_sequences_there_is_nothing_to_do() -> None:
    scheduler = make_scheduler()
    assert not scheduler.has_work
    assert not scheduler.next_batch().rows
