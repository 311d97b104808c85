"""Sequences that begin alike share blocks."""

import pytest

from engines.batching.batch import Batch
from engines.batching.blocks import BlockPool
from engines.batching.prefixes import Prefixes
from engines.batching.scheduler import Freed, Scheduler
from engines.batching.sequence import Sequence
from tests.support.batching import finish_step, sequence_of

SIZE = 4
PROMPT = range(100, 112)  # three blocks


def make_scheduler(*, blocks: int = 100, tokens: int = 64, shares_prefixes: bool = True) -> Scheduler:
    pool = BlockPool(blocks, SIZE)
    return Scheduler(pool, batch_size=8, max_batched_tokens=tokens, shares_prefixes=shares_prefixes)


def run(scheduler: Scheduler, *sequences: Sequence) -> None:
    """Runs sequences to their end."""
    for sequence in sequences:
        scheduler.add(sequence)
    while scheduler.running_count + scheduler.waiting_count:
        finish_step(scheduler, scheduler.next_batch())


def step(scheduler: Scheduler) -> dict[str, tuple[int, int]]:
    """Computes a step, and returns which positions of whom."""
    batch = scheduler.next_batch()
    finish_step(scheduler, batch)
    return spans(batch)


def spans(batch: Batch) -> dict[str, tuple[int, int]]:
    return {row.sequence.work.key: (row.first_position, row.first_position + len(row.ids)) for row in batch.rows}


@pytest.mark.parametrize(
    ("prompt", "cached"),
    [
        pytest.param([1, *PROMPT], 0, id="another-beginning"),
        pytest.param([*PROMPT[:3]], 0, id="less-than-a-block"),
        pytest.param([*PROMPT[:7], 1, 2], 4, id="one-block-and-a-part"),
        pytest.param([*PROMPT[:4], 1, *PROMPT[5:]], 4, id="another-middle"),
        pytest.param([*PROMPT], 8, id="the-same: its last token is computed"),
        pytest.param([*PROMPT[:8]], 4, id="two-whole-blocks: the last token is computed"),
        pytest.param([*PROMPT, 1], 12, id="all-of-it-and-one-more"),
    ],
)
def test_a_prompt_is_computed_from_the_first_block_that_is_not_known(prompt: list[int], cached: int) -> None:
    scheduler = make_scheduler()
    run(scheduler, sequence_of(PROMPT))
    second = sequence_of(prompt, key="second")
    scheduler.add(second)
    assert step(scheduler) == {"second": (cached, len(prompt))}
    assert second.cached_token_count == cached


def test_an_output_is_known_to_the_prompt_that_goes_on_behind_it() -> None:
    scheduler = make_scheduler()
    first = sequence_of(PROMPT, max_tokens=5)
    run(scheduler, first)
    second = sequence_of([*first.ids, 1, 2, 3], key="second")
    scheduler.add(second)
    assert step(scheduler) == {"second": (16, 20)}  # the 17th of the first was never computed


def test_without_sharing_another_request_finds_nothing() -> None:
    scheduler = make_scheduler(shares_prefixes=False)
    run(scheduler, sequence_of(PROMPT, key="first"))
    scheduler.add(sequence_of(PROMPT, key="second"))
    assert step(scheduler) == {"second": (0, 12)}


@pytest.mark.parametrize("shares_prefixes", [True, False])
def test_choices_compute_their_prompt_once(*, shares_prefixes: bool) -> None:
    scheduler = make_scheduler(shares_prefixes=shares_prefixes)
    choices = [sequence_of(PROMPT, key="same", choice=choice) for choice in range(4)]
    for sequence in choices:
        scheduler.add(sequence)
    batch = scheduler.next_batch()
    assert [row.sequence for row in batch.rows] == choices[:1]
    finish_step(scheduler, batch)
    counts = [(row.sequence.work.choice, len(row.ids)) for row in scheduler.next_batch().rows]
    assert counts == [(0, 1), (1, 4), (2, 4), (3, 4)]
    assert scheduler.pool.used_count == 2 + 4 + 1  # two are shared, each has its last, and one of them grows


def test_who_needs_what_is_being_computed_waits_for_it_and_no_longer() -> None:
    scheduler = make_scheduler(tokens=8)
    scheduler.add(sequence_of(PROMPT, key="first"))
    scheduler.add(sequence_of([*PROMPT[:6], 1, 2, 3], key="alike"))
    scheduler.add(sequence_of(3, key="other"))
    assert step(scheduler) == {"first": (0, 8)}
    assert step(scheduler) == {"first": (8, 12), "alike": (4, 8)}
    assert step(scheduler) == {"first": (12, 13), "alike": (8, 9), "other": (0, 3)}


def test_who_waits_for_a_block_holds_up_nobody() -> None:
    scheduler = make_scheduler(tokens=14)
    for key, prompt in (("first", PROMPT), ("alike", PROMPT), ("other", range(2))):
        scheduler.add(sequence_of(prompt, key=key))
    assert step(scheduler) == {"first": (0, 12), "other": (0, 2)}


def test_what_was_to_be_computed_by_one_that_left_is_computed_by_the_next() -> None:
    scheduler = make_scheduler(tokens=4)
    first, second, third = (sequence_of(PROMPT, key=key) for key in ("first", "second", "third"))
    for sequence in (first, second, third):
        scheduler.add(sequence)
    assert step(scheduler) == {"first": (0, 4)}
    scheduler.remove(first)
    assert step(scheduler) == {"second": (4, 8)}
    scheduler.remove(second)
    assert step(scheduler) == {"third": (8, 12)}


def test_one_that_waits_and_leaves_changes_nothing_for_those_that_wait_too() -> None:
    scheduler = make_scheduler()
    first, second, third = (sequence_of(PROMPT, key=key) for key in ("first", "second", "third"))
    for sequence in (first, second, third):
        scheduler.add(sequence)
    batch = scheduler.next_batch()
    assert spans(batch) == {"first": (0, 12)}
    scheduler.remove(second)
    assert spans(scheduler.next_batch()) == {"first": (12, 13)}  # the third still waits


@pytest.mark.parametrize(("in_flight_count", "block_count"), [(0, 3), (1, 1)])
def test_nothing_is_taken_over_behind_a_chunk_in_flight(in_flight_count: int, block_count: int) -> None:
    # If that chunk failed it would be computed again, on into a block that others read.
    pool = BlockPool(10, SIZE)
    prefixes = Prefixes(pool, shares=True)
    first, second = sequence_of(PROMPT), sequence_of([*PROMPT, 1])
    first.blocks, first.computed_count = [pool.allocate() for _ in range(3)], len(PROMPT)
    prefixes.register(first)
    second.blocks, second.scheduled_count, second.in_flight_count = [pool.allocate()], SIZE, in_flight_count
    assert not prefixes.reuse(second)
    assert len(second.blocks) == block_count


def test_nobody_who_does_not_know_the_key_can_tell_by_which_digests_blocks_are_known() -> None:
    contents = []
    for key in (b"", b"one", b"other", b"one"):
        pool = BlockPool(10, SIZE)
        sequence = sequence_of(PROMPT)
        run(Scheduler(pool, batch_size=1, max_batched_tokens=64, prefix_key=key), sequence)
        contents.append(tuple(sequence.hashes))
        assert all(pool.holds(content) for content in sequence.hashes)
    assert [contents.index(each) for each in contents] == [0, 1, 2, 1]


def test_what_was_not_committed_is_not_known() -> None:
    scheduler = make_scheduler()
    first, second = sequence_of(PROMPT, key="first"), sequence_of(PROMPT, key="second")
    scheduler.add(first)
    scheduler.retract(scheduler.next_batch())
    scheduler.remove(first)
    scheduler.add(second)
    assert step(scheduler) == {"second": (0, 12)}


def test_a_prompt_that_is_to_be_scored_reads_nothing_and_is_read_by_others() -> None:
    scheduler = make_scheduler()
    run(scheduler, sequence_of(PROMPT[:8], key="first"))
    scored, last = sequence_of(PROMPT, key="scored", prompt_logprobs=0), sequence_of(PROMPT, key="last")
    scheduler.add(scored)
    assert step(scheduler) == {"scored": (0, 12)}
    assert scored.cached_token_count == 0
    scheduler.add(last)
    assert step(scheduler)["last"] == (8, 12)


def test_removing_frees_only_what_nobody_shares() -> None:
    scheduler = make_scheduler(blocks=10)
    first, second = sequence_of(PROMPT, key="first"), sequence_of([*PROMPT, 1], key="second")
    for sequence in (first, second):
        scheduler.add(sequence)
        step(scheduler)
    assert scheduler.remove(first) == Freed(before=5, after=6)  # the fourth of the first; three are shared
    assert scheduler.remove(second) == Freed(before=6, after=10)


def test_shared_blocks_count_once_when_it_is_decided_who_joins() -> None:
    scheduler = make_scheduler(blocks=8)
    for key in "abcd":
        scheduler.add(sequence_of(PROMPT, max_tokens=3, key=key))
    step(scheduler)
    assert scheduler.running_count == 3  # two are shared, and each has two of its own
