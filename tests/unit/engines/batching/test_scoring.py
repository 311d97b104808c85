"""A prompt whose tokens are to be scored wants the logits behind each of them, once."""

import pytest

from engines.batching.batch import Batch
from engines.batching.blocks import BlockPool
from engines.batching.rows import SCORED_TOKENS
from engines.batching.scheduler import Scheduler
from engines.batching.sequence import Sequence
from tests.support.batching import finish_step, sequence_of


def make_scheduler(*, tokens: int, blocks: int = 100) -> Scheduler:
    return Scheduler(BlockPool(blocks, 4), batch_size=8, max_batched_tokens=tokens)


def wanted(batch: Batch, sequence: Sequence) -> list[int]:
    """Returns the positions behind which logits are wanted."""
    return [
        row.first_position + offset
        for row in batch.rows
        if row.sequence is sequence
        for offset in range(row.logits_from, len(row.ids))
    ]


@pytest.mark.parametrize("tokens", [3, 8, 64])
@pytest.mark.parametrize(
    ("output", "last"),
    [pytest.param((), 9, id="new"), pytest.param((7, 8), 11, id="resumed: behind the output too, not between")],
)
def test_logits_are_wanted_behind_each_token_of_the_prompt_and_behind_the_last_of_all(
    tokens: int, output: tuple[int, ...], last: int
) -> None:
    scheduler = make_scheduler(tokens=tokens)
    sequence = sequence_of(10, prompt_logprobs=0, output=output)
    scheduler.add(sequence)
    positions: list[int] = []
    while sequence.output_count == len(output):
        batch = scheduler.next_batch()
        positions += wanted(batch, sequence)
        finish_step(scheduler, batch)
    assert positions == [*range(9), last]


def test_a_step_scores_no_more_tokens_than_its_logits_have_room_for() -> None:
    scheduler = make_scheduler(tokens=1000)
    sequence = sequence_of(300, prompt_logprobs=0)
    scheduler.add(sequence)
    lengths = []
    while not sequence.output_count:
        batch = scheduler.next_batch()
        lengths += [len(row.ids) for row in batch.rows]
        finish_step(scheduler, batch)
    assert lengths == [SCORED_TOKENS, SCORED_TOKENS, 300 - 2 * SCORED_TOKENS]


def test_what_was_scored_before_a_sequence_was_put_out_is_not_scored_again() -> None:
    scheduler = make_scheduler(tokens=8, blocks=8)
    grows = sequence_of(7, max_tokens=20, key="grows")
    scheduler.add(grows)
    finish_step(scheduler, scheduler.next_batch())
    scored = sequence_of(20, max_tokens=2, key="scored", prompt_logprobs=0)
    scheduler.add(scored)
    positions: list[int] = []
    while scheduler.running_count + scheduler.waiting_count:
        batch = scheduler.next_batch()
        positions += wanted(batch, scored)
        finish_step(scheduler, batch)
        # From here on only the other one goes on, until it needs the blocks of this one.
        scheduler.limit(None if scheduler.preemption_count else 1)
    assert scheduler.preemption_count == 1
    assert [position for position in positions if position < 19] == [*range(19)]
