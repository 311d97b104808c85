"""A request whose time is over ends before the next step."""

import threading
import time

import pytest

from engines.model import Cause, FinishReason
from engines.text.transcript import Transcript
from tests.support.clock import FakeClock
from tests.support.outputs import bench, latin_transcript, work
from tests.support.paged_runner import PATIENCE_S, VOCABULARY_SIZE, PagedRunner, reference

BLOCKS, BLOCK_SIZE = 64, 4
DEPTHS = pytest.mark.parametrize("depth", [0, 1], ids=["one at a time", "one step of overlap"])


class SilentGrammar:
    """Says nothing until the test is over."""

    def __init__(self) -> None:
        self.is_over = threading.Event()

    def mask(self) -> bytes:
        assert self.is_over.wait(PATIENCE_S)
        return b"\xff" * (VOCABULARY_SIZE // 8)

    def accept(self, token: int) -> None:
        raise NotImplementedError


@DEPTHS
def test_whoever_runs_or_waits_past_its_deadline_ends(depth: int) -> None:
    clock, runner = FakeClock(1000.0), PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=depth)
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, clock=clock, batch_size=2) as it:
        good = work("good", max_tokens=20, priority=1)
        other = it.submit(good)
        runs = it.submit(work("runs", max_tokens=50, priority=1, deadline_s=1010.0))
        waits = it.submit(work("waits", deadline_s=1005.0))
        runner.step(4)
        runner.entered(4)
        clock.advance(20)
        runner.go()
        ends = [runs.end(), waits.end()]
        other.end()
    assert [(end.reason, end.cause) for end in ends] == [(FinishReason.CANCELLED, Cause.DEADLINE)] * 2
    assert [end.release.cancel_to_release_s for end in ends] == [10.0, 15.0]
    assert waits.events == [ends[1]]
    assert other.ids == reference(good)


def test_a_deadline_counts_while_nothing_can_be_computed() -> None:
    grammar = SilentGrammar()
    with bench(PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE), blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        request = work("a", constraint=grammar, deadline_s=time.monotonic() + 0.05)
        assert it.run(request).end().cause is Cause.DEADLINE
        grammar.is_over.set()


def test_a_deadline_counts_while_the_output_that_was_given_is_read() -> None:
    is_held, go = threading.Event(), threading.Event()

    def transcript(stops: tuple[str, ...]) -> Transcript:
        if stops:  # on a text thread
            is_held.set()
            assert go.wait(PATIENCE_S)
        return latin_transcript(stops)

    clock, runner = FakeClock(1000.0), PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE)
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, clock=clock, transcript=transcript) as it:
        output = it.submit(work("a", output=(1, 2), stop=("never",), deadline_s=1010.0))
        assert is_held.wait(PATIENCE_S)
        assert it.run(work("b")).end().reason is FinishReason.LENGTH
        assert it.loop.progress().waiting_count == 1
        clock.advance(20)
        assert it.run(work("c")).end().reason is FinishReason.LENGTH  # by then the deadline was looked at
        assert it.loop.progress().waiting_count == 0
        go.set()
        end = output.end()
    assert (end.reason, end.cause, end.output_token_count) == (FinishReason.CANCELLED, Cause.DEADLINE, 2)
    assert end.release.cancel_to_release_s == 10.0
    assert all(row.sequence.work.key != "a" for batch in runner.batches for row in batch.rows)
