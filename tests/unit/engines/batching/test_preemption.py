"""When blocks run out, the last in rank gives its own to the others, and is computed again later."""

import pytest

from engines.batching.blocks import BlockPool
from engines.batching.scheduler import Scheduler
from engines.batching.sequence import Sequence
from tests.support.batching import finish_step, keys, sequence_of


def make_scheduler(*, blocks: int, block_size: int = 2) -> Scheduler:
    return Scheduler(BlockPool(blocks, block_size), batch_size=8, max_batched_tokens=64, ageing_ms=1_000)


def start(scheduler: Scheduler, *sequences: Sequence) -> None:
    """Lets sequences join, and computes their prompts."""
    for sequence in sequences:
        scheduler.add(sequence)
    finish_step(scheduler, scheduler.next_batch())


def step(scheduler: Scheduler, token: int = 7) -> list[str]:
    """Computes a step, and returns whose rows it had."""
    batch = scheduler.next_batch()
    finish_step(scheduler, batch, token)
    return sorted(keys(row.sequence for row in batch.rows))


def steps_until_one_is_put_out(scheduler: Scheduler) -> list[str]:
    """Returns whose rows the step had that put one out."""
    while True:
        names = step(scheduler)
        if scheduler.preemption_count:
            return names


def growing(key: str, priority: int = 0) -> Sequence:
    """Takes two blocks of two to join, and one more with every other token."""
    return sequence_of([len(key), ord(key[0])], max_tokens=7, key=key, priority=priority)


@pytest.mark.parametrize(
    ("priorities", "put_out"),
    [
        pytest.param({"a": 0, "b": 0, "c": 0}, "c", id="the-youngest"),
        pytest.param({"a": 0, "b": -1, "c": 0}, "b", id="the-lowest-priority"),
        pytest.param({"a": -1, "b": -1, "c": 5}, "b", id="the-youngest-of-the-lowest"),
    ],
)
def test_who_is_last_in_rank_is_put_out(priorities: dict[str, int], put_out: str) -> None:
    scheduler = make_scheduler(blocks=6)
    start(scheduler, *(growing(key, priority) for key, priority in priorities.items()))
    went_on = steps_until_one_is_put_out(scheduler)
    assert went_on == sorted(set(priorities) - {put_out})
    assert (scheduler.running_count, scheduler.waiting_count) == (2, 1)


def test_who_is_put_out_goes_on_where_it_was_when_there_are_blocks_again() -> None:
    scheduler = make_scheduler(blocks=4)
    first, second = growing("first"), growing("second")
    start(scheduler, first, second)
    tokens = iter(range(10, 99))
    while "second" in step(scheduler, next(tokens)):
        pass
    said = list(second.ids)
    assert second.output_count == 3
    assert not second.blocks
    scheduler.remove(first)
    batch = scheduler.next_batch()
    (row,) = batch.rows
    assert row.first_position + len(row.ids) == len(said)
    assert row.draws
    finish_step(scheduler, batch, 99)
    assert second.ids == [*said, 99]


def test_nothing_that_was_computed_and_is_still_there_is_computed_again() -> None:
    scheduler = make_scheduler(blocks=4)
    first, second = growing("first"), growing("second")
    start(scheduler, first, second)
    while "second" in step(scheduler):
        pass
    scheduler.remove(first)
    (row,) = scheduler.next_batch().rows
    assert row.first_position == 2  # of two full blocks the first has taken one, the last one


def test_the_last_in_rank_that_needs_a_block_is_put_out_itself() -> None:
    scheduler = make_scheduler(blocks=4)
    start(scheduler, sequence_of(1, max_tokens=4, key="high", priority=1), growing("low"))
    assert [step(scheduler) for _ in range(4)] == [["high", "low"], ["high", "low"], ["high"], ["low"]]
    assert scheduler.preemption_count == 1


def test_nobody_joins_in_a_step_that_puts_somebody_out() -> None:
    scheduler = make_scheduler(blocks=5)
    start(scheduler, growing("a"), growing("b"))
    scheduler.add(sequence_of(3, max_tokens=1, key="small", priority=9))  # there is one block too few
    assert steps_until_one_is_put_out(scheduler) == ["a"]


def test_when_nobody_else_can_go_on_the_blocks_of_who_is_put_out_are_given_at_once() -> None:
    scheduler = make_scheduler(blocks=4)
    parked, low = sequence_of([1], max_tokens=6), growing("low", priority=-1)
    start(scheduler, parked, low)
    scheduler.add(sequence_of(3, max_tokens=1, key="high", priority=5))
    step(scheduler)
    batch = scheduler.next_batch()
    parked.is_parked = True
    for row in batch.rows:
        if row.sequence is low:
            scheduler.commit(row, (7,))
    assert step(scheduler) == ["high"]
    assert scheduler.preemption_count == 1


def test_who_was_put_out_is_not_charged_again_nor_said_to_have_found_more() -> None:
    scheduler = make_scheduler(blocks=4)
    first, second = growing("first"), growing("second")
    start(scheduler, first, second)
    while "second" in step(scheduler):
        pass
    scheduler.remove(first)
    charged = second.account.token_count
    (row,) = scheduler.next_batch().rows
    assert row.first_position > 0
    assert second.account.token_count == charged
    assert second.cached_token_count == 0


def test_who_was_put_out_goes_before_those_that_have_not_run() -> None:
    scheduler = make_scheduler(blocks=4)
    first, second = growing("first"), growing("second")
    start(scheduler, first, second)
    scheduler.add(sequence_of(2, key="new", deadline_s=0.001))
    while "second" in step(scheduler):
        pass
    scheduler.remove(first)
    assert step(scheduler)[-1] == "second"


def test_waiting_raises_the_rank_too() -> None:
    scheduler = make_scheduler(blocks=4)
    scheduler.add(growing("patient", priority=0))
    batch = scheduler.next_batch(now_ms=5_000)  # five priorities later
    finish_step(scheduler, batch)
    scheduler.add(growing("high", priority=3), now_ms=5_000)
    assert steps_until_one_is_put_out(scheduler) == ["patient"]
