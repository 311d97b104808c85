"""How likely tokens were, if that is asked for."""

import pytest

from engines.batching.batch import Row
from engines.model import FinishReason
from tests.support.outputs import bench, work
from tests.support.paged_runner import PagedRunner, logprobs_of, reference

BLOCKS, BLOCK_SIZE = 64, 4
DEPTHS = pytest.mark.parametrize("depth", [0, 1], ids=["one at a time", "one step of overlap"])


@DEPTHS
@pytest.mark.parametrize("top", [0, 3])
def test_each_token_comes_with_its_logprobs(depth: int, top: int) -> None:
    request = work("a", logprobs=top)
    with bench(
        PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=depth), blocks=BLOCKS, block_size=BLOCK_SIZE
    ) as it:
        output = it.run(request)
        silent = it.run(work("b"))
    ids = (*request.prompt, *reference(request))
    assert output.logprobs == [logprobs_of(ids[:end], ids[end], top) for end in range(3, len(ids))]
    assert silent.logprobs == []


@DEPTHS
@pytest.mark.parametrize("max_batched_tokens", [1, 5, 64])
@pytest.mark.parametrize("blocks", [BLOCKS, 10], ids=["much room", "little room"])
def test_a_prompt_is_scored_once_whatever_its_chunks_and_however_often_it_is_computed(
    depth: int, max_batched_tokens: int, blocks: int
) -> None:
    runner = PagedRunner(blocks=blocks, block_size=BLOCK_SIZE, depth=depth)
    requests = [work(str(index), prompt=range(13), max_tokens=12, prompt_logprobs=2) for index in range(3)]
    with bench(runner, blocks=blocks, block_size=BLOCK_SIZE, max_batched_tokens=max_batched_tokens, batch_size=3) as it:
        outputs = [it.submit(request) for request in requests]
        assert {output.end().reason for output in outputs} == {FinishReason.LENGTH}
        assert (it.loop.progress().preemption_count > 0) == (blocks < BLOCKS and max_batched_tokens > 1)
    prompt = tuple(range(13))
    for output in outputs:
        assert output.ids == reference(requests[0])
        assert output.prompt_logprobs == tuple(logprobs_of(prompt[:end], prompt[end], 2) for end in range(1, 13))


def test_a_prompt_of_one_token_has_nothing_to_score_and_says_so() -> None:
    with bench(PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE), blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        assert it.run(work("a", prompt=[1], prompt_logprobs=0)).prompt_logprobs == ()


@DEPTHS
def test_a_prompt_that_cannot_be_scored_ends_its_request_only(depth: int) -> None:
    runner = PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=depth)

    def fail(row: Row) -> Exception | None:
        return ValueError("no numbers") if row.sequence.work.key == "bad" and row.first_position == 5 else None

    runner.fail_row = fail
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, max_batched_tokens=5) as it:
        outputs = [it.submit(work(key, prompt=range(20), prompt_logprobs=0)) for key in ("bad", "good")]
        assert [output.end().reason for output in outputs] == [FinishReason.FAILED, FinishReason.LENGTH]
    assert len(outputs[0].events) == 1
