"""Grammars work beside the steps: a row whose mask is late is drawn later, and no other row waits for it."""

import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest

from engines.batching.batch import Ask
from engines.loop import OutOfMemory
from engines.model import FinishReason, Work
from tests.support.outputs import bench, work
from tests.support.paged_runner import PATIENCE_S, VOCABULARY_SIZE, Logits, PagedAnswers, PagedRunner, reference

BLOCKS, BLOCK_SIZE = 64, 4
DEPTHS = pytest.mark.parametrize("depth", [0, 1], ids=["one at a time", "one step of overlap"])


class Upwards:
    """Allows ids that are larger than the last one, round and round."""

    def __init__(self, permits: threading.Semaphore | None = None, *, fails_at: int = -1, in_mask: bool = True) -> None:
        self.taken: list[int] = []
        self.threads: set[str] = set()
        self.asked = threading.Semaphore(0)
        self.answered = threading.Semaphore(0)
        self._permits = permits
        self._fails_at = fails_at
        self._fails_in_mask = in_mask

    def mask(self) -> bytes:
        self.threads.add(threading.current_thread().name)
        self.asked.release()
        if self._permits is not None:
            assert self._permits.acquire(timeout=PATIENCE_S)
        if self._fails_in_mask and len(self.taken) == self._fails_at:
            raise RuntimeError("no such grammar")
        last = self.taken[-1] if self.taken else 0
        bits = sum(1 << (last + step) % VOCABULARY_SIZE for step in range(1, 20))
        self.answered.release()
        return bits.to_bytes(VOCABULARY_SIZE // 8, "little")

    def accept(self, token: int) -> None:
        if not self._fails_in_mask and len(self.taken) + 1 == self._fails_at:
            raise RuntimeError("no such grammar")
        self.taken.append(token)


def make_runner(depth: int) -> PagedRunner:
    return PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=depth)


def guided(key: str, constraint: Upwards, max_tokens: int = 8) -> Work:
    return work(key, prompt=[ord(key[0])], max_tokens=max_tokens, constraint=constraint)


@DEPTHS
def test_a_grammar_is_followed_off_the_step_thread(depth: int) -> None:
    grammar = Upwards()
    with bench(make_runner(depth), blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        request = guided("a", grammar)
        output = it.run(request)
    assert output.ids == reference(request, Upwards())
    assert output.ids != reference(replace(request, constraint=None))
    assert grammar.taken == output.ids[:-1]  # what ends the output is nobody's business any more
    assert all(name.startswith("masks") for name in grammar.threads)


@DEPTHS
def test_a_mask_that_takes_long_holds_up_no_other_row(depth: int) -> None:
    permits = threading.Semaphore(0)
    slow = Upwards(permits)
    with bench(make_runner(depth), blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        late = it.submit(guided("slow", slow))
        quick = it.submit(guided("quick", Upwards()))
        other = it.submit(work("other"))
        assert other.end().reason is FinishReason.LENGTH
        assert quick.end().reason is FinishReason.LENGTH
        assert late.events == []
        for count in range(8):
            permits.release()
            late.has(count + 1)  # each token comes with its mask
        late.end()
    assert other.ids == reference(work("other"))
    assert quick.ids == reference(guided("quick", Upwards()), Upwards())
    assert late.ids == reference(guided("slow", Upwards()), Upwards())


@DEPTHS
@pytest.mark.parametrize("in_mask", [True, False], ids=["mask", "accept"])
@pytest.mark.parametrize("is_late", [True, False], ids=["late", "in time"])
def test_a_grammar_that_fails_ends_its_request_only(depth: int, in_mask: bool, is_late: bool) -> None:
    permits = threading.Semaphore(0 if is_late else 100)
    bad, other = guided("bad", Upwards(permits, fails_at=3, in_mask=in_mask)), work("other", max_tokens=20)
    with bench(make_runner(depth), blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        output, neighbour = it.submit(bad), it.submit(other)
        if is_late:
            neighbour.end()
            permits.release(100)
        assert output.end().reason is FinishReason.FAILED
        neighbour.end()
    assert isinstance(output.end().error, RuntimeError)
    assert output.ids == reference(guided("bad", Upwards()), Upwards())[:3]
    assert neighbour.ids == reference(other)


@DEPTHS
def test_whoever_begins_like_one_that_waits_for_its_grammar_does_not_wait_for_it(depth: int) -> None:
    permits = threading.Semaphore(0)
    slow = Upwards(permits)
    first, second = work("slow", prompt=range(12), constraint=slow), work("alike", prompt=[*range(8), 99, 98])
    with bench(make_runner(depth), blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        late, alike = it.submit(first), it.submit(second)
        assert alike.end().cached_token_count == 8
        assert late.events == []
        permits.release(100)
        late.end()
    assert late.ids == reference(first, Upwards())
    assert alike.ids == reference(second)


@DEPTHS
@pytest.mark.parametrize("error", [OutOfMemory, RuntimeError])
def test_a_row_that_cannot_be_kept_is_computed_again(depth: int, error: type[Exception]) -> None:
    permits = threading.Semaphore(0)
    grammar = Upwards(permits)

    class Runner(PagedRunner):
        """Fails to keep the first row, while whose mask comes."""

        has_failed = False

        def pick(self, logits: object, places: Sequence[int]) -> Logits:
            if self.has_failed:
                return super().pick(logits, places)
            self.has_failed = True
            permits.release(100)
            assert grammar.answered.acquire(timeout=PATIENCE_S)
            raise error

    guarded, other = work("a", constraint=grammar), work("b", prompt=[9, 9], max_tokens=30)
    runner = Runner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=depth)
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        output, neighbour = it.submit(guarded), it.submit(other)
        runner.go()
        neighbour.end()
        assert output.end().reason is FinishReason.LENGTH
    assert output.ids == reference(guarded, Upwards())
    assert neighbour.ids == reference(other)


class TightRunner(PagedRunner):
    """Finds no memory for a token that is drawn late, for so many times."""

    lack_count = 0

    def sample(self, logits: object, asks: Sequence[Ask | None]) -> PagedAnswers:
        assert isinstance(logits, Logits)
        if logits.batch is None and self.lack_count:
            self.lack_count -= 1
            raise OutOfMemory
        return super().sample(logits, asks)


@DEPTHS
def test_a_late_token_that_finds_no_memory_beside_others_is_drawn_later(depth: int) -> None:
    permits = threading.Semaphore(0)
    guarded, other = guided("a", Upwards(permits)), work("b", max_tokens=200)
    runner = TightRunner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=depth)
    runner.lack_count = 3
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        output, neighbour = it.submit(guarded), it.submit(other)
        runner.step()
        neighbour.has(1)
        permits.release(100)
        for count in range(2, 200):
            if not runner.lack_count:
                break
            runner.step()
            neighbour.has(count)
        runner.go()
        assert output.end().reason is FinishReason.LENGTH
        neighbour.end()
    assert output.ids == reference(guided("a", Upwards()), Upwards())
    assert neighbour.ids == reference(other)


@DEPTHS
def test_a_late_token_that_finds_no_memory_though_it_is_alone_ends_its_request(depth: int) -> None:
    permits = threading.Semaphore(0)
    runner = TightRunner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=depth)
    runner.lack_count = 1000
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        output = it.submit(guided("a", Upwards(permits)))
        it.run(work("b"))
        permits.release(100)
        end = output.end()
        assert it.run(work("c")).ids == reference(work("c"))
    assert (end.reason, type(end.error)) == (FinishReason.FAILED, OutOfMemory)


def test_whoever_waits_for_blocks_of_one_whose_grammar_fails_goes_on() -> None:
    permits = threading.Semaphore(0)
    runner = PagedRunner(blocks=4, block_size=4)
    with bench(runner, blocks=4, block_size=4) as it:
        bad = Upwards(permits, fails_at=0)
        first = it.submit(work("bad", prompt=range(14), max_tokens=2, constraint=bad))
        assert bad.asked.acquire(timeout=PATIENCE_S)
        runner.entered(1)
        second = it.submit(work("waits", prompt=range(50, 63), max_tokens=3))
        permits.release()
        assert first.end().reason is FinishReason.FAILED
        assert second.end().reason is FinishReason.LENGTH


@DEPTHS
def test_prompt_logprobs_and_a_late_mask_go_together(depth: int) -> None:
    permits = threading.Semaphore(0)
    request = work("a", prompt=range(12), prompt_logprobs=1, constraint=Upwards(permits))
    with bench(make_runner(depth), blocks=BLOCKS, block_size=BLOCK_SIZE, max_batched_tokens=5) as it:
        output, other = it.submit(request), it.submit(work("b", max_tokens=20))
        other.end()
        permits.release(100)
        output.end()
    assert output.ids == reference(request, Upwards())
    assert [each.chosen.token for each in output.prompt_logprobs] == list(range(1, 12))


@DEPTHS
def test_a_mask_that_comes_just_when_its_row_is_kept_puts_nothing_out_of_order(depth: int) -> None:
    permits = threading.Semaphore(0)
    grammar = Upwards(permits)

    class Runner(PagedRunner):
        """Lets the mask come while the row is kept."""

        def pick(self, logits: object, places: Sequence[int]) -> Logits:
            permits.release()
            assert grammar.answered.acquire(timeout=PATIENCE_S)
            return super().pick(logits, places)

    request = work("a", prompt=range(12), prompt_logprobs=1, constraint=grammar)
    with bench(Runner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=depth), blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        output = it.run(request)
    assert output.ids == reference(request, Upwards())
    assert [each.chosen.token for each in output.prompt_logprobs] == list(range(1, 12))
