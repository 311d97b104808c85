"""Guesses are computed behind the last token, and those that were wrong leave no trace."""

import pytest

from engines.batching.batch import Row
from engines.batching.blocks import BlockPool
from engines.batching.scheduler import Scheduler
from engines.batching.sequence import Sequence
from tests.support.batching import finish_step, sequence_of


def make_scheduler(*, blocks: int = 100, tokens: int = 16) -> Scheduler:
    return Scheduler(BlockPool(blocks, 2), batch_size=8, max_batched_tokens=tokens)


def started(scheduler: Scheduler, sequence: Sequence) -> Sequence:
    scheduler.add(sequence)
    finish_step(scheduler, scheduler.next_batch())
    return sequence


def guessed(scheduler: Scheduler, sequence: Sequence, *draft: int) -> Row:
    sequence.draft = draft
    (row,) = (row for row in scheduler.next_batch().rows if row.sequence is sequence)
    return row


def test_logits_are_wanted_behind_the_last_token_and_behind_each_guess() -> None:
    scheduler = make_scheduler()
    sequence = started(scheduler, sequence_of(3, max_tokens=9))
    row = guessed(scheduler, sequence, 8, 9)
    assert (row.ids, row.first_position, row.draft_count, row.logits_count) == ((7, 8, 9), 3, 2, 3)
    assert not sequence.draft


@pytest.mark.parametrize("tokens", [(8, 9, 5), (8, 5), (5,)], ids=["both-right", "one-right", "none-right"])
def test_the_next_row_begins_behind_the_last_guess_that_was_right(tokens: tuple[int, ...]) -> None:
    scheduler = make_scheduler()
    sequence = started(scheduler, sequence_of(3, max_tokens=9))
    scheduler.commit(guessed(scheduler, sequence, 8, 9), tokens)
    assert sequence.ids[3:] == [7, *tokens]
    assert sequence.computed_count == len(sequence.ids) - 1
    (row,) = scheduler.next_batch().rows
    assert (row.first_position, row.ids, row.draft_count) == (len(sequence.ids) - 1, (5,), 0)


def test_blocks_with_wrong_guesses_are_not_shared() -> None:
    scheduler = make_scheduler()
    sequence = started(scheduler, sequence_of(3, max_tokens=9))
    scheduler.commit(guessed(scheduler, sequence, 8, 9, 9), (5,))
    wrong, right = (sequence_of([*sequence.ids[:4], *ids], key=str(ids)) for ids in ((8, 9, 9), (5, 1)))
    scheduler.add(wrong)
    scheduler.add(right)
    assert {row.sequence: row.first_position for row in scheduler.next_batch().rows} == {
        sequence: 4,
        wrong: 4,
        right: 4,
    }


@pytest.mark.parametrize(
    ("max_tokens", "tokens", "blocks", "draft_count"),
    [
        pytest.param(9, 16, 100, 4, id="all"),
        pytest.param(4, 16, 100, 2, id="no-further-than-the-output-may-go"),
        pytest.param(2, 16, 100, 0, id="none-before-the-last-token"),
        pytest.param(9, 4, 100, 3, id="no-more-than-a-step-may-have"),
        pytest.param(4, 16, 3, 2, id="as-many-as-there-are-blocks"),
    ],
)
def test_guesses_are_fewer_where_there_is_no_room(max_tokens: int, tokens: int, blocks: int, draft_count: int) -> None:
    scheduler = make_scheduler(blocks=blocks, tokens=tokens)
    sequence = started(scheduler, sequence_of(3, max_tokens=max_tokens))
    assert guessed(scheduler, sequence, 1, 2, 3, 4).draft_count == draft_count


def test_guesses_put_nobody_out() -> None:
    scheduler = make_scheduler(blocks=4)
    first, second = sequence_of(3, max_tokens=5, key="first"), sequence_of(3, max_tokens=5, key="second")
    started(scheduler, first)
    started(scheduler, second)
    scheduler.remove(second)
    started(scheduler, sequence_of(2, max_tokens=3, key="third"))
    first.draft = (8, 9)
    before = scheduler.preemption_count
    scheduler.next_batch()
    assert scheduler.preemption_count == before


def test_every_sequence_has_its_token_before_any_has_guesses() -> None:
    scheduler = make_scheduler(tokens=4)
    sequences = [sequence_of(prompt, max_tokens=9) for prompt in (1, 1, 1)]
    for index, sequence in enumerate(sequences):
        sequence.ids[0] = index
        scheduler.add(sequence)
    finish_step(scheduler, scheduler.next_batch())
    for sequence in sequences:
        sequence.draft = (1, 2, 3)
    assert [row.draft_count for row in scheduler.next_batch().rows] == [0, 0, 1]


def test_guesses_are_dropped_with_the_batch_that_was_not_computed() -> None:
    scheduler = make_scheduler()
    sequence = started(scheduler, sequence_of(3, max_tokens=9))
    sequence.draft = (8, 9)
    scheduler.retract(scheduler.next_batch())
    assert scheduler.next_batch().rows[0].ids == (7,)


def test_guesses_are_dropped_with_the_blocks_behind_which_they_stood() -> None:
    scheduler = make_scheduler(blocks=4)
    first, second = (sequence_of([number] * 3, max_tokens=5) for number in (1, 2))
    for sequence in (first, second):
        scheduler.add(sequence)
    for _ in range(2):
        finish_step(scheduler, scheduler.next_batch())
    second.draft = (8, 9)
    scheduler.next_batch()
    assert scheduler.preemption_count == 1
    assert not second.draft


def test_guesses_made_for_a_token_that_is_in_flight_are_dropped() -> None:
    scheduler = make_scheduler()
    sequence = started(scheduler, sequence_of(3, max_tokens=9))
    scheduler.next_batch()
    assert guessed(scheduler, sequence, 8, 9).draft_count == 0
