"""When a cancel counts, and what it proves."""

import random
import threading

import pytest

from engines.model import Cause, End, FinishReason, Sampling
from tests.support.outputs import Output, bench, work
from tests.support.paged_runner import PagedRunner, reference

BLOCKS, BLOCK_SIZE = 64, 4


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
    assert (end.release.free_before, end.release.free_after) == (BLOCKS - 3, BLOCKS)


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


def test_a_cancel_between_steps_costs_no_step() -> None:
    runner = make_runner()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        output = Output()
        request = work("a", max_tokens=20)

        def sink(event: object) -> None:
            output.take(event)  # type: ignore[arg-type]
            if len(output.ids) == 3:
                it.loop.cancel("a", Cause.CLIENT)  # on the step thread, behind a commit and before the next step

        it.loop.submit(request, sink)
        end = output.end()
    assert output.ids == reference(request)[:3]
    assert (end.reason, end.release.steps_after) == (FinishReason.CANCELLED, 0)
    assert len(runner.batches) == 3


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


@pytest.mark.parametrize("seed", range(3))
def test_after_a_storm_of_cancels_from_many_threads_every_block_is_free(seed: int) -> None:
    runner = make_runner()
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
                assert end.release.steps_after in (0, 1)
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
