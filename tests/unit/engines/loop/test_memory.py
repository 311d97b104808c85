"""A step that finds too little memory is made smaller, and the loop goes on."""

import pytest

from engines.batching.batch import Batch
from engines.loop import OutOfMemory
from engines.model import FinishReason
from tests.support.outputs import bench, work
from tests.support.paged_runner import PagedRunner, reference

BLOCKS, BLOCK_SIZE = 64, 4
LATE = pytest.mark.parametrize(
    ("depth", "fails_late"), [(0, False), (0, True), (1, False), (1, True)], ids=["0", "0 late", "1", "1 late"]
)


class Memory:
    """Holds so many tokens of a step."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def __call__(self, batch: Batch) -> Exception | None:
        return OutOfMemory(f"{batch.token_count} tokens") if batch.token_count > self.tokens else None


@LATE
@pytest.mark.parametrize("tokens", [1, 2, 5, 16])
def test_steps_become_so_small_that_they_fit_and_no_output_changes(depth: int, fails_late: bool, tokens: int) -> None:
    runner = PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=depth)
    runner.fail_forward, runner.fails_late = Memory(tokens), fails_late
    requests = [work(str(index), prompt=range(index, index + 20), max_tokens=6) for index in range(6)]
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, max_batched_tokens=64) as it:
        outputs = [it.submit(request) for request in requests]
        ends = [output.end() for output in outputs]
        assert it.loop.progress().out_of_memory_count > 0
        assert it.loop.fault is None
    assert {end.reason for end in ends} == {FinishReason.LENGTH}
    assert [output.ids for output in outputs] == [reference(request) for request in requests]


def test_when_there_is_memory_again_steps_are_as_large_as_before() -> None:
    runner = PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE)
    memory = Memory(4)
    runner.fail_forward = memory
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, max_batched_tokens=64) as it:
        it.run(work("a", prompt=range(40), max_tokens=2))
        memory.tokens = 1000
        it.run(work("b", max_tokens=200))
        it.run(work("c", prompt=range(100, 150), max_tokens=1))
    assert runner.batches[-1].token_count == 50


def test_a_lone_token_that_does_not_fit_ends_its_request_only() -> None:
    runner = PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE)

    def fail(batch: Batch) -> Exception | None:
        is_there = any(row.sequence.work.key == "bad" for row in batch.rows)
        return OutOfMemory("too long") if is_there else None

    runner.fail_forward = fail
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        good, bad = work("good", max_tokens=30), work("bad", prompt=[5] * 9)
        outputs = [it.submit(good), it.submit(bad)]
        assert outputs[1].end().reason is FinishReason.FAILED
        assert outputs[0].end().reason is FinishReason.LENGTH
    assert isinstance(outputs[1].end().error, OutOfMemory)
    assert outputs[0].ids == reference(good)
