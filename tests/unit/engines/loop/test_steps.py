"""What a request gets, alone and beside others, from a runner that computes by the ids in its blocks."""

import random
import threading

import pytest

from engines.batching.blocks import BlockPool
from engines.batching.scheduler import Scheduler
from engines.loop import QueueFull, StepLoop, Stopped
from engines.model import Cause, End, Event, FinishReason, Sampling, Tokens
from tests.support.outputs import bench, choices_of, latin_transcript, work
from tests.support.paged_runner import PATIENCE_S, PagedRunner, reference

BLOCKS, BLOCK_SIZE = 64, 4


DEPTHS = pytest.mark.parametrize("depth", [0, 1], ids=["one at a time", "one step of overlap"])


def make_runner(depth: int = 0) -> PagedRunner:
    return PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=depth)


def test_a_request_gives_its_tokens_one_by_one_and_then_its_end() -> None:
    request = work("a", max_tokens=5)
    with bench(make_runner(), blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        output = it.run(request)
    assert output.ids == reference(request)
    assert [type(event) for event in output.events] == [Tokens] * 5 + [End]
    end = output.end()
    assert (end.reason, end.output_token_count, end.cause, end.error) == (FinishReason.LENGTH, 5, None, None)
    assert output.text == "".join(map(chr, reference(request)))


@DEPTHS
def test_its_blocks_are_free_when_the_end_is_handed_out(depth: int) -> None:
    with bench(make_runner(depth), blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        free: list[int] = []
        done = threading.Event()

        def sink(event: Event) -> None:
            if isinstance(event, End):
                free.append(it.pool.free_count)
                done.set()

        it.loop.submit([work("a", prompt=range(5), max_tokens=6)], sink)
        assert done.wait(PATIENCE_S)
    assert free == [BLOCKS]


def test_the_release_is_what_the_counter_showed() -> None:
    with bench(make_runner(), blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        release = it.run(work("a", prompt=range(5), max_tokens=6)).end().release
    assert (release.free_before, release.free_after, release.total) == (BLOCKS - 3, BLOCKS, BLOCKS)
    assert (release.steps_after, release.cancel_to_release_s) == (0, 0.0)


def test_a_stop_token_is_the_last_of_the_output_and_has_no_text() -> None:
    expected = reference(work("a"))
    request = work("a", stop_token_ids=frozenset({expected[3]}))
    with bench(make_runner(), blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        output = it.run(request)
    assert output.ids == expected[:4]
    assert output.text == "".join(map(chr, expected[:3]))
    end = output.end()
    assert (end.reason, end.matched_token_id, end.output_token_count) == (FinishReason.STOP_TOKEN, expected[3], 4)


def test_a_stop_text_over_two_tokens_ends_the_output_and_is_not_shown() -> None:
    expected = reference(work("a"))
    stop = chr(expected[2]) + chr(expected[3])
    with bench(make_runner(), blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        output = it.run(work("a", stop=(stop,)))
    assert output.ids == expected[:4]
    assert output.text == "".join(map(chr, expected[:2]))
    end = output.end()
    assert (end.reason, end.matched_stop, end.matched_token_id) == (FinishReason.STOP_STRING, stop, None)


def test_what_could_have_begun_a_stop_text_is_shown_with_the_last_token() -> None:
    expected = reference(work("a", max_tokens=4))
    stop = chr(expected[3]) + "never"
    with bench(make_runner(), blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        output = it.run(work("a", max_tokens=4, stop=(stop,)))
    end = output.end()
    assert (end.reason, end.matched_stop) == (FinishReason.LENGTH, "")
    assert output.text == "".join(map(chr, expected))


def test_requests_join_and_leave_between_steps_and_none_changes_another() -> None:
    chance = random.Random(1)
    requests = [
        work(
            str(index),
            prompt=[chance.randrange(256) for _ in range(chance.randint(1, 40))],
            max_tokens=chance.randint(1, 30),
            sampling=Sampling(temperature=float(index % 2), top_p=1.0, top_k=0, seed=index),
        )
        for index in range(40)
    ]
    with bench(make_runner(), blocks=BLOCKS, block_size=BLOCK_SIZE, max_batched_tokens=24) as it:
        outputs = [it.submit(request) for request in requests]
        for output in outputs:
            output.end()
    assert [output.ids for output in outputs] == [reference(request) for request in requests]


def test_a_key_may_be_used_again_as_soon_as_its_end_is_handed_out() -> None:
    with bench(make_runner(), blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        ends: list[End] = []
        done = threading.Event()

        def sink(event: Event) -> None:
            if isinstance(event, End):
                ends.append(event)
                if len(ends) < 3:
                    it.loop.submit([work("a", max_tokens=1)], sink)
                else:
                    done.set()

        it.loop.submit([work("a", max_tokens=1)], sink)
        assert done.wait(PATIENCE_S)


def test_one_more_than_may_wait_is_refused_with_a_time_to_come_back() -> None:
    runner = make_runner()
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, batch_size=1, max_waiting=2) as it:
        outputs = [it.submit(work("runs"))]
        runner.entered(1)
        outputs += [it.submit(work("waits")), it.submit(work("waits too"))]
        with pytest.raises(QueueFull) as refused:
            it.submit(work("is refused"))
        assert refused.value.waiting_count == 2
        runner.go()
        for output in outputs:
            assert output.end().reason is FinishReason.LENGTH
        assert it.run(work("is refused")).end().reason is FinishReason.LENGTH


def test_when_all_that_wait_are_cancelled_during_a_step_others_may_wait_at_once() -> None:
    runner = make_runner()
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, batch_size=1, max_waiting=2) as it:
        requests = [work("runs"), work("waits"), work("waits too")]
        outputs = [it.submit(requests[0])]
        runner.entered(1)
        outputs += [it.submit(request) for request in requests[1:]]
        runner.step()
        runner.entered(2)  # the loop knows of them all
        for request in requests:
            it.cancel(request)
        runner.go()
        for output in outputs:
            assert output.end().reason is FinishReason.CANCELLED
        assert it.loop.progress().waiting_count == 0
        assert it.run(work("comes later")).end().reason is FinishReason.LENGTH


def test_a_deadline_says_who_joins_first_and_ends_nobody_by_itself() -> None:
    runner = make_runner()
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, batch_size=1) as it:
        it.submit(work("runs"))
        runner.entered(1)
        requests = [work("has time", deadline_s=1e300), work("is late", deadline_s=0.0)]
        outputs = [it.submit(request) for request in requests]
        runner.go()
        for request, output in zip(requests, outputs, strict=True):
            assert output.end().reason is FinishReason.LENGTH
            assert output.ids == reference(request)
    first = [row.sequence.work.key for batch in runner.batches for row in batch.rows if row.first_position == 0]
    assert first == ["runs", "is late", "has time"]


def test_a_request_that_is_refused_leaves_nothing_behind() -> None:
    runner = make_runner()
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, batch_size=1, max_waiting=1) as it:
        it.submit(work("runs"))
        runner.entered(1)
        it.submit(work("waits"))
        for _ in range(3):
            with pytest.raises(QueueFull):
                it.submit(work("is refused"))
        assert it.loop.progress().waiting_count == 1
        runner.go()


def test_a_request_whose_choices_are_more_than_may_still_wait_is_refused() -> None:
    runner = make_runner()
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, batch_size=1, max_waiting=3) as it:
        it.submit(work("runs"))
        runner.entered(1)
        it.submit_all(choices_of(work("waits"), 2))
        with pytest.raises(QueueFull) as refused:
            it.submit_all(choices_of(work("is refused"), 2))
        assert refused.value.waiting_count == 2
        it.submit(work("waits too"))
        assert it.loop.progress().waiting_count == 3
        runner.go()


def test_a_request_with_more_choices_than_may_ever_wait_is_taken_if_nobody_waits() -> None:
    with bench(make_runner(), blocks=BLOCKS, block_size=BLOCK_SIZE, max_waiting=2) as it:
        for output in it.run_all(choices_of(work("a"), 5)):
            assert output.ids == reference(work("a"))


def test_stopping_ends_all_that_lives_as_deleted() -> None:
    runner = make_runner()
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, batch_size=1) as it:
        outputs = [it.submit(work("runs"))]
        runner.entered(1)
        outputs += [it.submit(work("waits")), it.submit(work("waits too"))]
        stopping = threading.Thread(target=it.loop.stop)
        stopping.start()
        runner.go()
        stopping.join()
        ends = [output.end() for output in outputs]
        with pytest.raises(Stopped):
            it.submit(work("late"))
    assert {(end.reason, end.cause) for end in ends} == {(FinishReason.CANCELLED, Cause.DELETED)}


def test_a_loop_that_never_started_can_be_stopped() -> None:
    scheduler = Scheduler(BlockPool(BLOCKS, BLOCK_SIZE), batch_size=1, max_batched_tokens=16)
    assert StepLoop(make_runner(), scheduler, latin_transcript).stop()


def test_an_idle_loop_gathers_requests_before_its_first_step() -> None:
    runner = make_runner()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, batch_size=3, batch_interval_s=60.0) as it:
        outputs = [it.submit(work(str(index), prompt=[index])) for index in range(3)]  # as many as may run: no wait
        for output in outputs:
            output.end()
    assert len(runner.batches[0].rows) == 3


def test_a_cancel_while_requests_are_gathered_does_not_wait() -> None:
    with bench(make_runner(), blocks=BLOCKS, block_size=BLOCK_SIZE, batch_interval_s=60.0) as it:
        request = work("a")
        output = it.submit(request)
        it.cancel(request)
        assert output.end().reason is FinishReason.CANCELLED


def test_waiting_and_first_token_are_timed_from_the_arrival() -> None:
    runner = make_runner()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        end = it.run(work("a")).end()
    assert end.first_token_s is not None
    assert 0 <= end.queue_s <= end.first_token_s
