"""A batch may be made while the one before is in flight."""

import pytest

from engines.batching.batch import PENDING
from engines.batching.blocks import BlockPool
from engines.batching.scheduler import Scheduler
from engines.batching.sequence import Sequence
from tests.support.batching import finish_step, keys, sequence_of


def make_scheduler(*, blocks: int = 100, tokens: int = 16) -> Scheduler:
    return Scheduler(BlockPool(blocks, 2), batch_size=8, max_batched_tokens=tokens)


def started(scheduler: Scheduler, *sequences: Sequence) -> None:
    for sequence in sequences:
        scheduler.add(sequence)
    finish_step(scheduler, scheduler.next_batch())


def test_a_token_that_is_in_flight_stands_in_the_next_row_without_its_id() -> None:
    scheduler = make_scheduler()
    sequence = sequence_of(3)
    scheduler.add(sequence)
    first, second = scheduler.next_batch(), scheduler.next_batch()
    assert [(row.first_position, row.ids, row.draws) for row in second.rows] == [(3, (PENDING,), True)]
    for batch, token in ((first, 8), (second, 9)):
        scheduler.commit(batch.rows[0], (token,))
    assert sequence.ids[3:] == [8, 9]
    assert scheduler.next_batch().rows[0].ids == (9,)


def test_the_chunks_of_a_prompt_follow_each_other() -> None:
    scheduler = make_scheduler(tokens=4)
    scheduler.add(sequence_of(7))
    spans = [(row.first_position, len(row.ids), row.draws) for _ in range(3) for row in scheduler.next_batch().rows]
    assert spans == [(0, 4, False), (4, 3, True), (7, 1, True)]


def test_who_has_all_its_tokens_in_flight_is_not_scheduled_again() -> None:
    scheduler = make_scheduler()
    scheduler.add(sequence_of(3, max_tokens=2))
    assert [len(scheduler.next_batch().rows) for _ in range(3)] == [1, 1, 0]
    assert scheduler.running_count + scheduler.waiting_count


def test_a_row_of_what_was_removed_counts_for_nothing() -> None:
    scheduler = make_scheduler(blocks=10)
    sequence = sequence_of(3)
    scheduler.add(sequence)
    batch = scheduler.next_batch()
    scheduler.remove(sequence)
    scheduler.commit(batch.rows[0], (7,))
    assert sequence.output_count == 0
    assert not sequence.blocks
    assert scheduler.pool.free_count == 10


def test_who_is_put_out_while_in_flight_keeps_its_token_and_waits_until_it_has_come() -> None:
    scheduler = make_scheduler(blocks=4)
    first, second = sequence_of([1, 2, 3], key="first"), sequence_of([4, 5, 6], key="second")
    started(scheduler, first, second)
    in_flight = scheduler.next_batch()
    assert keys(row.sequence for row in scheduler.next_batch().rows) == ["first"]
    assert (scheduler.preemption_count, scheduler.waiting_count) == (1, 1)
    scheduler.remove(first)
    assert not scheduler.next_batch().rows
    for row in in_flight.rows:
        scheduler.commit(row, (9,))
    assert second.ids[3:] == [7, 9]
    assert [row.ids[-1] for row in scheduler.next_batch().rows] == [9]


@pytest.mark.parametrize("order", [(1, 0), (0, 1)], ids=["the-later-first", "the-earlier-first"])
def test_two_batches_that_were_not_computed_are_scheduled_again(order: tuple[int, int]) -> None:
    scheduler = make_scheduler()
    sequence = sequence_of(3)
    started(scheduler, sequence)
    batches = scheduler.next_batch(), scheduler.next_batch()
    for index in order:
        scheduler.retract(batches[index])
    assert scheduler.next_batch().rows[0].ids == (7,)


def test_a_batch_that_was_not_computed_is_scheduled_again_behind_one_in_flight() -> None:
    scheduler = make_scheduler()
    sequence = sequence_of(3)
    started(scheduler, sequence)
    first, second = scheduler.next_batch(), scheduler.next_batch()
    scheduler.retract(second)
    scheduler.commit(first.rows[0], (8,))
    again = scheduler.next_batch().rows[0]
    assert (again.first_position, again.ids) == (4, (8,))


# What waits for something else than its step.


def test_a_parked_sequence_is_not_scheduled_and_the_others_go_on() -> None:
    scheduler = make_scheduler()
    parked, other = sequence_of(3, key="parked"), sequence_of(4, key="other")
    started(scheduler, parked, other)
    row_of = {row.sequence: row for row in scheduler.next_batch().rows}
    parked.is_parked = True
    scheduler.commit(row_of[other], (8,))
    assert keys(row.sequence for row in scheduler.next_batch().rows) == ["other"]
    parked.is_parked = False
    scheduler.commit(row_of[parked], (9,))
    assert [row.ids for row in scheduler.next_batch().rows if row.sequence is parked] == [(9,)]


def test_others_need_not_wait_for_the_token_of_a_parked_sequence_to_share_what_it_has_computed() -> None:
    scheduler = make_scheduler()
    parked, alike = sequence_of(range(5), key="parked"), sequence_of(range(5), key="alike")
    scheduler.add(parked)
    scheduler.add(alike)
    row = scheduler.next_batch().rows[0]
    parked.is_parked = True
    assert not scheduler.next_batch().rows
    scheduler.computed(row)
    assert [(each.sequence, each.first_position) for each in scheduler.next_batch().rows] == [(alike, 4)]
    parked.is_parked = False
    scheduler.commit(row, (7,))
    assert parked.ids[5:] == [7]


def test_when_all_are_parked_the_batch_is_empty() -> None:
    scheduler = make_scheduler()
    sequence = sequence_of(3)
    scheduler.add(sequence)
    scheduler.next_batch()
    sequence.is_parked = True
    assert not scheduler.next_batch().rows
    assert scheduler.running_count + scheduler.waiting_count


@pytest.mark.parametrize("is_put_out", [False, True])
def test_a_parked_sequence_may_be_put_out_and_removed(*, is_put_out: bool) -> None:
    scheduler = make_scheduler(blocks=4)
    other, parked = sequence_of([1, 2, 3], key="other"), sequence_of([4, 5, 6], key="parked")
    started(scheduler, other, parked)
    in_flight = scheduler.next_batch()
    parked.is_parked = True
    scheduler.commit(in_flight.rows[0], (8,))
    if is_put_out:
        scheduler.next_batch()
        assert scheduler.preemption_count == 1
    scheduler.remove(parked)
    scheduler.commit(in_flight.rows[1], (9,))
    scheduler.remove(other)
    assert scheduler.pool.free_count == 4
    assert scheduler.running_count + scheduler.waiting_count == 0
