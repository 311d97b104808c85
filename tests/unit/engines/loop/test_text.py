"""Text is written beside the steps: what takes long or fails there is nobody else's, and what ends there ends all."""

import threading

import pytest

from engines.model import End, Event, FinishReason
from engines.text.transcript import Transcript
from tests.support.outputs import bench, latin_transcript, work
from tests.support.paged_runner import PATIENCE_S, PagedRunner, reference

BLOCKS, BLOCK_SIZE = 64, 4
DEPTHS = pytest.mark.parametrize("depth", [0, 1], ids=["one at a time", "one step of overlap"])
SLOW = "slow"  # the stop text of a request whose text takes long


class HeldTranscript:
    """Writes nothing until it may."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.held = threading.Semaphore(0)
        self.matched_stop = ""
        self._transcript = latin_transcript(())

    def write(self, token: int) -> str:
        self.held.release()
        assert self.go.wait(PATIENCE_S)
        return self._transcript.write(token)

    def close(self) -> str:
        return self._transcript.close()


class BrokenTranscript:
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


def make_runner(depth: int = 0) -> PagedRunner:
    return PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=depth)


@pytest.mark.parametrize("slow_count", [1, 3])
def test_a_text_that_takes_long_holds_up_no_other(slow_count: int) -> None:
    held = HeldTranscript()

    def transcript(stops: tuple[str, ...]) -> Transcript | HeldTranscript:
        return held if SLOW in stops else latin_transcript(stops)

    with bench(make_runner(), blocks=BLOCKS, block_size=BLOCK_SIZE, transcript=transcript) as it:
        slow = [it.submit(work(f"slow {index}", stop=(SLOW,), max_tokens=1)) for index in range(slow_count)]
        others = [it.submit(work(f"other {index}", prompt=[index])) for index in range(3)]
        for index, other in enumerate(others):
            assert other.end().reason is FinishReason.LENGTH
            assert other.ids == reference(work("", prompt=[index]))
        assert not any(output.events for output in slow)
        held.go.set()
        for output in slow:
            output.end()


def test_a_text_that_takes_long_holds_up_none_of_its_step_though_no_other_step_follows() -> None:
    held = HeldTranscript()

    def transcript(stops: tuple[str, ...]) -> Transcript | HeldTranscript:
        return held if SLOW in stops else latin_transcript(stops)

    runner = make_runner()
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, transcript=transcript) as it:
        first = it.submit(work("first", max_tokens=1))
        runner.entered(1)
        slow = it.submit(work("slow", stop=(SLOW,), max_tokens=1))
        other = it.submit(work("other", prompt=[7, 8, 9], max_tokens=1))
        runner.go()
        first.end()
        assert other.end().reason is FinishReason.LENGTH
        held.go.set()
        slow.end()
    assert len(runner.batches[1].rows) == 2


def test_a_sink_that_takes_long_holds_up_no_other() -> None:
    go, is_held, ended = threading.Event(), threading.Event(), threading.Event()

    def sink(event: Event) -> None:
        is_held.set()
        assert go.wait(PATIENCE_S)
        if isinstance(event, End):
            ended.set()

    with bench(make_runner(), blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        it.loop.submit([work("slow")], sink)
        assert is_held.wait(PATIENCE_S)
        assert it.run(work("a")).ids == reference(work("a"))
        go.set()
        assert ended.wait(PATIENCE_S)


@pytest.mark.parametrize("at", ["open", "write", "close"])
def test_text_that_cannot_be_written_ends_its_request_only(at: str) -> None:
    def transcript(stops: tuple[str, ...]) -> Transcript | BrokenTranscript:
        if not stops:
            return latin_transcript(stops)
        if at == "open":
            raise RuntimeError("no such text")
        return BrokenTranscript(at=at)

    good, bad = work("good"), work("bad", stop=("broken",))
    with bench(make_runner(), blocks=BLOCKS, block_size=BLOCK_SIZE, transcript=transcript) as it:
        outputs = [it.submit(good), it.submit(bad)]
        ends = [output.end() for output in outputs]
    assert [end.reason for end in ends] == [FinishReason.LENGTH, FinishReason.FAILED]
    assert isinstance(ends[1].error, RuntimeError)
    assert ends[1].output_token_count == len(outputs[1].ids)
    assert outputs[0].ids == reference(good)


def test_a_sink_that_raises_ends_its_request_only() -> None:
    faults: list[BaseException] = []
    ends: list[End] = []
    with bench(make_runner(), blocks=BLOCKS, block_size=BLOCK_SIZE, on_fault=faults.append) as it:

        def sink(event: Event) -> None:
            if isinstance(event, End):
                ends.append(event)
            raise RuntimeError("the reader is gone")

        it.loop.submit([work("bad", max_tokens=50)], sink)
        good = work("good")
        output = it.run(good)
        assert it.loop.fault is None
    assert output.ids == reference(good)
    assert [(end.reason, end.output_token_count) for end in ends] == [(FinishReason.FAILED, 0)]
    assert [str(fault) for fault in faults] == ["the reader is gone"]


@DEPTHS
def test_steps_that_ran_ahead_of_a_stop_text_are_never_told(depth: int) -> None:
    held = HeldTranscript()
    stop = chr(reference(work("a", max_tokens=20))[3])
    matching = latin_transcript((stop,))

    class Late:
        """A transcript that looks for the stop text when it is too late."""

        @property
        def matched_stop(self) -> str:
            return matching.matched_stop

        def write(self, token: int) -> str:
            held.held.release()
            assert held.go.wait(PATIENCE_S)
            return matching.write(token)

        def close(self) -> str:
            return matching.close()

    runner = make_runner(depth)
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, transcript=lambda _: Late()) as it:
        output = it.submit(work("a", max_tokens=20, stop=(stop,)))
        runner.entered(20)  # all steps have begun, and the first token is being written
        held.go.set()
        end = output.end()
    assert output.ids == reference(work("a"))[:4]
    assert output.text == "".join(map(chr, output.ids[:3]))
    assert (end.reason, end.matched_stop, end.output_token_count) == (FinishReason.STOP_STRING, stop, 4)


@pytest.mark.parametrize("include_stop", [False, True])
def test_what_ended_an_output_is_shown_only_if_that_is_wanted(include_stop: bool) -> None:
    ids = reference(work("a"))
    text = "".join(map(chr, ids))
    with bench(make_runner(), blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        by_text = it.run(work("a", stop=(text[2:4],), include_stop=include_stop))
        by_token = it.run(work("a", stop_token_ids=frozenset({ids[3]}), include_stop=include_stop))
    assert by_text.ids == by_token.ids == ids[:4]
    assert by_text.text == (text[:4] if include_stop else text[:2])
    assert by_token.text == (text[:4] if include_stop else text[:3])
