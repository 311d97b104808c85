"""Whether steps go on can be seen while one of them hangs."""

import pytest

from engines.loop.meter import Meter
from tests.support.clock import FakeClock
from tests.support.outputs import bench, work
from tests.support.paged_runner import PagedRunner

BLOCKS, BLOCK_SIZE = 64, 4


def test_a_step_that_hangs_is_seen_by_its_age() -> None:
    clock, runner = FakeClock(), PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE)
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, clock=clock, batch_size=1) as it:
        assert it.loop.progress().last_step_age_s is None
        outputs = [it.submit(work("a", prompt=range(5), max_tokens=6))]
        runner.entered(1)
        outputs.append(it.submit(work("b")))
        clock.advance(30)
        progress = it.loop.progress()
        runner.go()
        for output in outputs:
            output.end()
        after = it.loop.progress()
    assert (progress.last_step_age_s, progress.busy_fraction, progress.step_count) == (30.0, 1.0, 0)
    assert (progress.running_count, progress.waiting_count) == (1, 1)
    assert (progress.free_blocks, progress.total_blocks) == (BLOCKS - 2, BLOCKS)
    assert (after.step_count, after.output_token_count) == (14, 14)
    assert (after.running_count, after.waiting_count, after.free_blocks) == (0, 0, BLOCKS)


def test_a_release_says_how_long_it_took_from_the_cancel() -> None:
    clock, runner = FakeClock(), PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE)
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, clock=clock) as it:
        request = work("a")
        output = it.submit(request)
        runner.entered(1)
        clock.advance(1)
        it.cancel(request)
        clock.advance(2)
        runner.go()
        end = output.end()
    assert end.release.cancel_to_release_s == 2.0
    assert end.queue_s == 0.0


@pytest.mark.parametrize(
    ("steps", "now_s", "busy"),
    [
        ([], 10.0, 0.0),
        ([(9.5, 9.75)], 10.0, 0.25),
        ([(8.0, 9.5)], 10.0, 0.5),
        ([(5.0, 8.0)], 10.0, 0.0),
        ([(9.0 + index / 10, 9.05 + index / 10) for index in range(10)], 10.0, 0.5),
        ([(9.0 + index / 1000, 9.0005 + index / 1000) for index in range(1000)], 10.0, 0.5),
    ],
    ids=["idle", "one step", "half in the window", "long ago", "half of the time", "short steps"],
)
def test_the_busy_fraction_is_the_share_of_the_last_second(
    steps: list[tuple[float, float]], now_s: float, busy: float
) -> None:
    meter = Meter()
    for begin_s, end_s in steps:
        meter.begin(begin_s)
        meter.end(end_s)
    assert meter.busy_fraction(now_s) == pytest.approx(busy, abs=0.02)


def test_a_step_that_runs_counts_as_busy() -> None:
    meter = Meter()
    meter.begin(9.6)
    assert meter.busy_fraction(10.0) == pytest.approx(0.4)
    assert meter.last_step_age_s(10.0) == pytest.approx(0.4)


def test_a_step_that_was_begun_behind_another_one_runs_from_the_end_of_that_one() -> None:
    meter = Meter()
    meter.begin(9.0)
    meter.begin(9.1)
    meter.end(9.2)
    assert meter.last_step_age_s(9.5) == pytest.approx(0.3)
    assert meter.busy_fraction(9.5) == pytest.approx(0.5)
    meter.end(9.5)
    assert meter.busy_fraction(10.0) == pytest.approx(0.5)
    assert meter.last_step_age_s(10.0) == pytest.approx(0.5)
    assert meter.step_count == 2


@pytest.mark.parametrize("depth", [0, 1])
def test_what_an_operator_wants_to_know_is_counted(depth: int) -> None:
    runner = PagedRunner(blocks=8, block_size=2, depth=depth)
    with bench(runner, blocks=8, block_size=2) as it:
        it.run(work("a", prompt=range(5), max_tokens=1))
        end = it.run(work("b", prompt=range(6), max_tokens=1)).end()
        before = it.loop.progress()
        for output in [it.submit(work(key, prompt=[ord(key)], max_tokens=10)) for key in "cd"]:
            output.end()
        after = it.loop.progress()
    assert end.cached_token_count == 4
    assert (before.prompt_token_count, before.cached_token_count, before.preemption_count) == (11, 4, 0)
    assert after.preemption_count > 0
    assert after.output_token_count == 22
