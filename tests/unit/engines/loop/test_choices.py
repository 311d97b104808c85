"""Several outputs of one request."""

import pytest

from engines.batching.batch import Row
from engines.model import FinishReason, Sampling
from tests.support.outputs import bench, choices_of, expected, work
from tests.support.paged_runner import PagedRunner, reference

BLOCKS, BLOCK_SIZE = 64, 4
DEPTHS = pytest.mark.parametrize("depth", [0, 1], ids=["one at a time", "one step of overlap"])
HOT = Sampling(temperature=1.0, top_p=1.0, top_k=0, seed=7)


@DEPTHS
@pytest.mark.parametrize("shares_prefixes", [True, False])
def test_choices_differ_and_share_the_blocks_of_their_prompt_also_without_prefix_caching(
    depth: int, shares_prefixes: bool
) -> None:
    runner = PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=depth)
    with bench(
        runner, blocks=BLOCKS, block_size=BLOCK_SIZE, max_batched_tokens=64, shares_prefixes=shares_prefixes
    ) as it:
        choices = choices_of(work("a", prompt=range(21), sampling=HOT), 4)
        outputs = it.run_all(choices)
    computed: list[Row] = [row for batch in runner.batches for row in batch.rows if row.first_position < 20]
    assert [output.ids for output in outputs] == [reference(each) for each in choices]
    assert len({tuple(output.ids) for output in outputs}) == 4
    assert sum(min(20, row.first_position + len(row.ids)) - row.first_position for row in computed) == 20


def test_without_prefix_caching_no_request_finds_the_prompt_of_another() -> None:
    runner = PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE)
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, shares_prefixes=False) as it:
        ends = [it.run(work(key, prompt=range(21))).end() for key in "ab"]
        assert it.loop.progress().cached_token_count == 0
    assert [end.cached_token_count for end in ends] == [0, 0]


def test_each_choice_has_its_own_end_and_one_that_fails_leaves_the_others() -> None:
    runner = PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE)
    runner.fail_row = lambda row: ValueError("no numbers") if row.sequence.work.choice == 1 else None
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        request = work("a", sampling=HOT)
        stop = frozenset({reference(choices_of(request, 1)[0])[2]})
        choices = choices_of(work("a", sampling=HOT, stop_token_ids=stop), 3)
        outputs = it.run_all(choices)
    assert [output.end().choice for output in outputs] == [0, 1, 2]
    assert [outputs[0].end().reason, outputs[1].end().reason] == [FinishReason.STOP_TOKEN, FinishReason.FAILED]
    assert (outputs[2].ids, outputs[2].end().reason) == (expected(choices[2]).ids, expected(choices[2]).reason)


def test_a_key_lives_until_its_last_choice_has_ended() -> None:
    runner = PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE)
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, batch_size=1) as it:
        choices = choices_of(work("a", max_tokens=1), 2)
        outputs = it.submit_all(choices)
        runner.step()
        outputs[0].end()
        it.cancel(choices[0])
        runner.go()
        assert outputs[1].end().reason is FinishReason.CANCELLED
        assert it.run(work("a")).end().reason is FinishReason.LENGTH
    assert outputs[0].end().reason is FinishReason.LENGTH


def test_a_request_waits_as_many_times_as_it_has_choices() -> None:
    runner = PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE)
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, batch_size=1) as it:
        outputs = it.submit_all(choices_of(work("a", max_tokens=1), 3))
        runner.entered(1)
        assert (it.loop.progress().running_count, it.loop.progress().waiting_count) == (1, 2)
        runner.go()
        for output in outputs:
            output.end()
