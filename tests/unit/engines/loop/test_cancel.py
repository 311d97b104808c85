"""When a cancel counts, and what it proves."""

import random
import threading

import pytest

from engines.model import Cause, End, FinishReason, Sampling
from engines.text.transcript import Transcript
from tests.support.outputs import bench, choices_of, latin_transcript, work
from tests.support.paged_runner import PATIENCE_S, VOCABULARY_SIZE, PagedRunner, reference

BLOCKS, BLOCK_SIZE = 64, 4
DEPTHS = pytest.mark.parametrize("depth", [0, 1], ids=["one at a time", "one step of overlap"])
HOT = Sampling(temperature=1.0, top_p=1.0, top_k=0, seed=1)


class SlowGrammar:
    """Says nothing until it may; then it allows everything."""

    def __init__(self) -> None:
        self.is_asked = threading.Event()
        self.may_answer = threading.Event()

    def mask(self) -> bytes:
        self.is_asked.set()
        assert self.may_answer.wait(PATIENCE_S)
        return b"\xff" * (VOCABULARY_SIZE // 8)

    def accept(self, token: int) -> None:
        assert 0 <= token < VOCABULARY_SIZE


class HeldTranscript:
    """Opens transcripts; those with stop texts write nothing until they may."""

    def __init__(self) -> None:
        self.is_held = threading.Event()
        self.go = threading.Event()

    def open(self, stops: tuple[str, ...]) -> Transcript:
        if stops:
            self.is_held.set()
            assert self.go.wait(PATIENCE_S)
        return latin_transcript(stops)


def make_runner() -> PagedRunner:
    return PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE)


def test_a_cancel_during_a_step_wins_over_the_token_of_that_step() -> None:
    runner = make_runner()
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        request = work("a")
        output = it.submit(request)
        runner.step(2)
        runner.entered(3)
        it.cancel(request)
        runner.go()
        end = output.end()
    assert output.ids == reference(request)[:2]
    assert (end.reason, end.cause, end.output_token_count) == (FinishReason.CANCELLED, Cause.CLIENT, 2)
    assert end.release.steps_after == 1
    assert (end.release.free_before, end.release.free_after) == (BLOCKS - 2, BLOCKS)


def test_a_cancel_wins_over_the_last_token_as_well() -> None:
    runner = make_runner()
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        request = work("a", max_tokens=1)
        output = it.submit(request)
        runner.entered(1)
        it.cancel(request)
        runner.go()
        assert output.end().reason is FinishReason.CANCELLED
    assert output.ids == []


def test_with_overlap_a_cancel_wins_over_the_tokens_of_both_steps_under_way() -> None:
    runner = PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=1)
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        request, other = work("a"), work("b", prompt=[7])
        output, neighbour = it.submit(request), it.submit(other)
        runner.step(2)
        runner.entered(4)  # the third is waited for, the fourth was begun behind it
        it.cancel(request)
        runner.go()
        end = output.end()
        neighbour.end()
    assert output.ids == reference(request)[: len(output.ids)]
    assert (end.reason, end.release.steps_after) == (FinishReason.CANCELLED, 2)
    assert neighbour.ids == reference(other)


@DEPTHS
def test_all_choices_of_a_request_end_together_and_their_releases_add_up(depth: int) -> None:
    runner = PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=depth)
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        request, other = work("a", prompt=range(10), sampling=HOT), work("b")
        outputs, neighbour = it.submit_all(choices_of(request, 3)), it.submit(other)
        runner.step(5)
        runner.entered(6)
        it.cancel(request)
        runner.go()
        releases = [output.end().release for output in outputs]
        neighbour.end()
    assert {output.end().cause for output in outputs} == {Cause.CLIENT}
    assert [each.free_after for each in releases[:-1]] == [each.free_before for each in releases[1:]]
    freed = releases[-1].free_after - releases[0].free_before
    assert 5 <= freed <= 9  # two blocks of the prompt are shared by all three
    assert neighbour.ids == reference(other)


def test_a_request_that_waits_for_its_grammar_is_cancelled_at_once() -> None:
    grammar = SlowGrammar()
    with bench(make_runner(), blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        request, other = work("a", constraint=grammar), work("b")
        output = it.submit(request)
        assert it.run(other).ids == reference(other)
        assert grammar.is_asked.wait(PATIENCE_S)
        it.cancel(request)
        end = output.end()
        assert it.pool.free_count == BLOCKS
        grammar.may_answer.set()
    assert (output.ids, end.reason, end.release.steps_after) == ([], FinishReason.CANCELLED, 0)
    assert (end.release.free_before, end.release.free_after) == (BLOCKS - 1, BLOCKS)


@DEPTHS
def test_the_very_step_after_which_a_row_waits_for_its_grammar_counts_if_the_cancel_came_before_its_end(
    depth: int,
) -> None:
    grammar, runner = SlowGrammar(), PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=depth)
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        request = work("a", constraint=grammar)
        output = it.submit(request)
        runner.entered(1)
        it.cancel(request)
        runner.go()
        end = output.end()
        grammar.may_answer.set()
    assert (output.ids, end.reason, end.release.steps_after) == ([], FinishReason.CANCELLED, 1)


def test_that_step_counts_although_the_sequence_lost_its_blocks_meanwhile() -> None:
    grammar, runner = SlowGrammar(), PagedRunner(blocks=4, block_size=4, depth=1)
    runner.hold()
    with bench(runner, blocks=4, block_size=4) as it:
        older, request = work("older", max_tokens=10), work("a", prompt=range(10, 15), constraint=grammar)
        other = it.submit(older)
        runner.step(3)
        runner.entered(5)
        output = it.submit(request)
        runner.step(2)
        runner.entered(7)  # the sixth is waited for, and the other one needed a block for the seventh
        assert it.loop.progress().preemption_count == 1
        it.cancel(request)
        runner.go()
        end = output.end()
        grammar.may_answer.set()
        other.end()
    assert (output.ids, end.reason, end.release.steps_after) == ([], FinishReason.CANCELLED, 1)
    assert other.ids == reference(older)


def test_the_blocks_of_a_request_whose_text_takes_long_are_free_before_its_text_is_done() -> None:
    held, runner = HeldTranscript(), make_runner()
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, transcript=held.open) as it:
        request, other = work("a", stop=("slow",)), work("b")
        output = it.submit(request)
        runner.step(3)
        assert held.is_held.wait(PATIENCE_S)
        it.cancel(request)
        runner.go()
        assert it.run(other).ids == reference(other)  # by then the cancel has been taken
        assert it.pool.free_count == BLOCKS
        assert output.events == []
        held.go.set()
        end = output.end()
    assert (end.reason, end.release.free_after) == (FinishReason.CANCELLED, BLOCKS)
    assert output.ids == reference(request)[: end.output_token_count]
    assert 1 <= end.output_token_count <= 3


@DEPTHS
def test_what_a_stop_text_ended_before_the_cancel_came_is_not_cancelled(depth: int) -> None:
    runner = PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=depth)
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        stop = chr(reference(work("a"))[1])
        request, other = work("a", stop=(stop,)), work("b", prompt=[9])
        output, neighbour = it.submit(request), it.submit(other)
        runner.step(3)
        output.has(2)
        it.cancel(request)
        runner.go()
        end = output.end()
        neighbour.end()
    assert output.ids == reference(request)[:2]
    assert (end.reason, end.matched_stop, end.cause) == (FinishReason.STOP_STRING, stop, None)
    assert (end.output_token_count, end.release.cancel_to_release_s) == (2, 0.0)
    assert neighbour.ids == reference(other)


def test_a_request_that_waits_is_cancelled_without_a_step_and_frees_nothing() -> None:
    runner = make_runner()
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, batch_size=1) as it:
        first = it.submit(work("runs", max_tokens=2))
        runner.entered(1)
        request = work("waits")
        output = it.submit(request)
        it.cancel(request, Cause.DEADLINE)
        runner.step()
        end = output.end()
        assert not first.has_ended
        runner.go()
        assert first.end().reason is FinishReason.LENGTH
    assert (end.reason, end.cause) == (FinishReason.CANCELLED, Cause.DEADLINE)
    assert end.release.steps_after == 0
    assert end.release.free_before == end.release.free_after
    assert end.first_token_s is None
    assert all(row.sequence.work.key == "runs" for batch in runner.batches for row in batch.rows)


def test_a_prompt_is_cancelled_between_its_chunks() -> None:
    runner = make_runner()
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, max_batched_tokens=16) as it:
        request = work("a", prompt=range(100))
        output = it.submit(request)
        runner.step(2)
        runner.entered(3)
        it.cancel(request)
        runner.go()
        end = output.end()
    assert len(runner.batches) == 3
    assert (end.output_token_count, end.release.steps_after) == (0, 1)
    assert (end.release.free_before, end.release.free_after) == (BLOCKS - 12, BLOCKS)


def test_the_first_of_two_cancels_counts() -> None:
    runner = make_runner()
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        request = work("a")
        output = it.submit(request)
        runner.entered(1)
        it.cancel(request, Cause.DEADLINE)
        it.cancel(request, Cause.CLIENT)
        runner.go()
        assert output.end().cause is Cause.DEADLINE
    assert sum(isinstance(event, End) for event in output.events) == 1


def test_a_cancel_for_an_unknown_or_ended_request_is_nothing() -> None:
    with bench(make_runner(), blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        request = work("a", max_tokens=2)
        it.cancel(request)
        output = it.run(request)
        it.cancel(request)
        again = it.run(request)
    assert output.end().reason is again.end().reason is FinishReason.LENGTH


def test_what_a_cancel_finds_held_back_is_not_shown_so_that_whoever_goes_on_behind_the_ids_says_it_once() -> None:
    expected = reference(work("a"))
    runner = make_runner()
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        request = work("a")
        held = type(request)(request.key, request.prompt, 8, request.sampling, stop=(chr(expected[0]) + "never",))
        output = it.submit(held)
        runner.step()
        runner.entered(2)
        it.cancel(held)
        runner.go()
        output.end()
    assert (output.ids, output.text) == (expected[:1], "")


def test_cancelling_some_changes_no_token_of_the_others() -> None:
    chance = random.Random(2)
    runner = make_runner()
    requests = [
        work(
            str(index),
            prompt=[chance.randrange(256) for _ in range(chance.randint(1, 40))],
            max_tokens=20,
            sampling=Sampling(temperature=float(index % 2), top_p=1.0, top_k=0, seed=index),
        )
        for index in range(30)
    ]
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, max_batched_tokens=24) as it:
        outputs = [it.submit(request) for request in requests]
        for request, output in zip(requests[::2], outputs[::2], strict=True):
            output.has(chance.randint(0, 10))
            it.cancel(request)
        ends = [output.end() for output in outputs]
    assert [output.ids for output in outputs[1::2]] == [reference(request) for request in requests[1::2]]
    for request, output, end in zip(requests, outputs, ends, strict=True):
        assert output.ids == reference(request)[: end.output_token_count]


@DEPTHS
@pytest.mark.parametrize("seed", range(3))
def test_after_a_storm_of_cancels_from_many_threads_every_block_is_free(seed: int, depth: int) -> None:
    runner = PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=depth)
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, batch_size=16) as it:

        def storm(number: int) -> None:
            chance = random.Random(seed * 100 + number)
            for index in range(16):
                request = work(
                    f"{number}-{index}", prompt=range(chance.randint(1, 60)), max_tokens=chance.randint(1, 40)
                )
                output = it.submit(request)
                output.has(chance.randint(0, min(5, request.max_tokens)))
                if chance.random() < 0.7:
                    it.cancel(request)
                end = output.end()
                assert output.ids == reference(request)[: end.output_token_count]
                assert end.release.steps_after <= depth + 1
                ends.append(end)

        ends: list[End] = []
        threads = [threading.Thread(target=storm, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        progress = it.loop.progress()
    assert len(ends) == 64
    assert {end.reason for end in ends} == {FinishReason.CANCELLED, FinishReason.LENGTH}
    assert (progress.running_count, progress.waiting_count, progress.free_blocks) == (0, 0, BLOCKS)
