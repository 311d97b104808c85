"""What goes wrong with one request ends that request and no other."""

from collections.abc import Callable

import pytest

from engines.batching.batch import Batch, Row
from engines.model import Event, FinishReason, Tokens
from engines.text.transcript import Transcript
from tests.support.outputs import bench, latin_transcript, work
from tests.support.paged_runner import PagedRunner, reference

BLOCKS, BLOCK_SIZE = 64, 4


class BrokenText:
    """Fails at the given call."""

    def __init__(self, *, at: str) -> None:
        self._at = at
        self.matched_stop = ""

    def write(self, token: int) -> str:
        if self._at == "write":
            raise RuntimeError("no such text")
        return "."

    def close(self) -> str:
        if self._at == "close":
            raise RuntimeError("no such text")
        return ""


def make_runner() -> PagedRunner:
    return PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE)


def fail_key(key: str, position: int) -> Callable[[Row], Exception | None]:
    def fail(row: Row) -> Exception | None:
        sequence = row.sequence
        is_it = sequence.work.key == key and sequence.output_count == position
        return ValueError("the logits are not finite numbers") if is_it else None

    return fail


def test_a_row_that_cannot_be_sampled_ends_its_request_only() -> None:
    runner = make_runner()
    runner.fail_row = fail_key("bad", 3)
    good, bad = work("good", prompt=[1]), work("bad", prompt=[2])
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        outputs = [it.submit(good), it.submit(bad)]
        ends = [output.end() for output in outputs]
    assert [end.reason for end in ends] == [FinishReason.LENGTH, FinishReason.FAILED]
    assert isinstance(ends[1].error, ValueError)
    assert outputs[0].ids == reference(good)
    assert outputs[1].ids == reference(bad)[:3]
    assert ends[1].output_token_count == 3


@pytest.mark.parametrize("at", ["open", "write", "close"])
def test_text_that_cannot_be_written_ends_its_request_only(at: str) -> None:
    def transcript(stops: tuple[str, ...]) -> Transcript | BrokenText:
        if not stops:
            return latin_transcript(stops)
        if at == "open":
            raise RuntimeError("no such text")
        return BrokenText(at=at)

    good, bad = work("good"), work("bad")
    bad = type(bad)(bad.key, bad.prompt, bad.max_tokens, bad.sampling, stop=("broken",))
    with bench(make_runner(), blocks=BLOCKS, block_size=BLOCK_SIZE, transcript=transcript) as it:  # type: ignore[arg-type]
        outputs = [it.submit(good), it.submit(bad)]
        ends = [output.end() for output in outputs]
    assert [end.reason for end in ends] == [FinishReason.LENGTH, FinishReason.FAILED]
    assert isinstance(ends[1].error, RuntimeError)
    assert outputs[0].ids == reference(good)


def test_a_sink_that_raises_ends_its_request_only() -> None:
    faults: list[BaseException] = []
    with bench(make_runner(), blocks=BLOCKS, block_size=BLOCK_SIZE, on_fault=faults.append) as it:

        def sink(event: Event) -> None:
            raise RuntimeError("the reader is gone")

        it.loop.submit(work("bad"), sink)
        good = work("good")
        output = it.run(good)
        assert it.loop.fault is None
    assert output.ids == reference(good)
    assert [str(fault) for fault in faults] == ["the reader is gone"]


def test_a_forward_that_fails_ends_the_requests_of_its_step_and_the_loop_goes_on() -> None:
    runner = make_runner()
    in_third: list[str] = []

    def fail(batch: Batch) -> Exception | None:
        if len(runner.batches) != 3:
            return None
        in_third.extend(row.sequence.work.key for row in batch.rows)
        return MemoryError("no memory for this step")

    runner.fail_forward = fail
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, batch_size=2) as it:
        runner.hold()
        first, second, third = (it.submit(work(key, prompt=[ord(key)])) for key in "abc")
        runner.go()
        assert first.end().reason is FinishReason.FAILED
        assert isinstance(second.end().error, MemoryError)
        assert third.end().reason is FinishReason.LENGTH
        assert third.ids == reference(work("c", prompt=[ord("c")]))
        assert it.loop.fault is None
    assert in_third == ["a", "b"]


def test_a_cancel_during_a_forward_that_fails_is_a_cancel() -> None:
    runner = make_runner()
    runner.hold()
    runner.fail_forward = lambda _: MemoryError("no memory for this step")
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        request = work("a")
        output = it.submit(request)
        runner.entered(1)
        it.cancel(request)
        runner.go()
        assert output.end().reason is FinishReason.CANCELLED


def test_a_loop_that_dies_tells_everybody() -> None:
    class Died(BaseException):
        """Nothing that a loop survives."""

    def die(batch: Batch) -> Exception | None:
        raise Died

    runner = make_runner()
    runner.hold()
    runner.fail_forward = die
    faults: list[BaseException] = []
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, batch_size=1, on_fault=faults.append) as it:
        outputs = [it.submit(work("runs")), it.submit(work("waits"))]
        runner.go()
        ends = [output.end() for output in outputs]
        assert isinstance(it.loop.fault, Died)
    assert [end.reason for end in ends] == [FinishReason.FAILED] * 2
    assert all(isinstance(end.error, Died) for end in ends)
    assert len(faults) == 1
    assert not any(isinstance(event, Tokens) for output in outputs for event in output.events)
