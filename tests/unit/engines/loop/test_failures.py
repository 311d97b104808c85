"""What goes wrong with one request ends that request and no other."""

from collections.abc import Callable

import pytest

from engines.batching.batch import Batch, Row
from engines.loop import Stopped
from engines.model import FinishReason, Tokens
from tests.support.outputs import bench, work
from tests.support.paged_runner import PATIENCE_S, PagedRunner, reference

BLOCKS, BLOCK_SIZE = 64, 4
DEPTHS = pytest.mark.parametrize("depth", [0, 1], ids=["one at a time", "one step of overlap"])
LATE = pytest.mark.parametrize(
    ("depth", "fails_late"), [(0, False), (0, True), (1, False), (1, True)], ids=["0", "0 late", "1", "1 late"]
)


class DeviceError(Exception):
    """What a forward pass raises that is nobody's fault, or somebody's."""


def make_runner(depth: int = 0) -> PagedRunner:
    return PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=depth)


def fail_key(key: str, position: int) -> Callable[[Row], Exception | None]:
    def fail(row: Row) -> Exception | None:
        sequence = row.sequence
        is_it = sequence.work.key == key and row.first_position + len(row.ids) == len(sequence.work.prompt) + position
        return ValueError("the logits are not finite numbers") if is_it else None

    return fail


def fail_with(*keys: str, after: int = 0) -> Callable[[Batch], Exception | None]:
    """Fails each forward pass that has one of these and comes to its position `after`."""

    def fail(batch: Batch) -> Exception | None:
        rows = [row for row in batch.rows if row.sequence.work.key in keys and row.first_position >= after]
        return DeviceError(", ".join(row.sequence.work.key for row in rows)) if rows else None

    return fail


@DEPTHS
def test_a_row_that_cannot_be_sampled_ends_its_request_only(depth: int) -> None:
    runner = make_runner(depth)
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


@LATE
@pytest.mark.parametrize("bad_count", [1, 2])
def test_of_a_forward_that_fails_only_the_rows_at_fault_end(depth: int, fails_late: bool, bad_count: int) -> None:
    runner = make_runner(depth)
    bad = [f"bad {index}" for index in range(bad_count)]
    runner.fail_forward, runner.fails_late = fail_with(*bad, after=4), fails_late
    requests = [work(key, prompt=[ord(key[-1])] * 2) for key in ("a", "b", *bad, "c", "d", "e")]
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        outputs = {request.key: it.submit(request) for request in requests}
        ends = {key: output.end() for key, output in outputs.items()}
        assert it.loop.fault is None
    for request in requests:
        end, ids = ends[request.key], outputs[request.key].ids
        if request.key in bad:
            assert (end.reason, str(end.error)) == (FinishReason.FAILED, request.key)
            assert ids == reference(request)[:3]
        else:
            assert (end.reason, ids) == (FinishReason.LENGTH, reference(request))


@pytest.mark.parametrize(("depth", "fails_late"), [(0, False), (0, True), (1, True)], ids=["0", "0 late", "1 late"])
def test_a_cancel_during_a_forward_that_fails_is_a_cancel(depth: int, fails_late: bool) -> None:
    runner = make_runner(depth)
    runner.hold()
    runner.fail_forward, runner.fails_late = fail_with("a", after=3), fails_late
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        request, other = work("a"), work("b", prompt=[8])
        output, neighbour = it.submit(request), it.submit(other)
        runner.step(1)
        runner.entered(2)
        it.cancel(request)
        runner.go()
        assert output.end().reason is FinishReason.CANCELLED
        neighbour.end()
    assert neighbour.ids == reference(other)


@LATE
def test_three_steps_in_a_row_in_which_every_row_fails_alone_end_the_loop(depth: int, fails_late: bool) -> None:
    runner = make_runner(depth)
    runner.fail_forward, runner.fails_late = lambda _: DeviceError("the device is gone"), fails_late
    faults: list[BaseException] = []
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, batch_size=2, on_fault=faults.append) as it:
        runner.hold()
        outputs = [it.submit(work(str(index), prompt=[index])) for index in range(10)]
        runner.go()
        ends = [output.end() for output in outputs]
        assert isinstance(it.loop.fault, DeviceError)
    assert {end.reason for end in ends} == {FinishReason.FAILED}
    assert all(isinstance(end.error, DeviceError) for end in ends)
    assert len(faults) == 1


def test_requests_that_fail_one_after_the_other_end_no_loop_while_others_are_computed() -> None:
    runner = make_runner()
    bad = [str(index) for index in range(10)]
    runner.fail_forward = fail_with(*bad)
    runner.hold()
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, batch_size=2) as it:
        good = work("good", max_tokens=50)
        output = it.submit(good)
        failing = [it.submit(work(key)) for key in bad]
        runner.go()
        assert {each.end().reason for each in failing} == {FinishReason.FAILED}
        output.end()
    assert output.ids == reference(good)


@LATE
def test_requests_that_fail_one_after_the_other_end_no_loop_though_nothing_else_is_computed(
    depth: int, fails_late: bool
) -> None:
    runner = make_runner(depth)
    bad = [str(index) for index in range(10)]
    runner.fail_forward, runner.fails_late = fail_with(*bad), fails_late
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        assert {it.run(work(key)).end().reason for key in bad} == {FinishReason.FAILED}
        assert it.run(work("good")).ids == reference(work("good"))
        assert it.loop.fault is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_loop_that_dies_tells_everybody_though_whoever_is_told_of_the_fault_fails_too() -> None:
    def fail(error: BaseException) -> None:
        raise RuntimeError("the event loop is closed")

    runner = make_runner()
    runner.fail_forward = lambda _: DeviceError("the device is gone")
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, on_fault=fail) as it:
        ends = [it.run(work(str(index))).end() for index in range(3)]
        assert it.loop.stop(PATIENCE_S)
        with pytest.raises(Stopped):
            it.submit(work("late"))
        assert isinstance(it.loop.fault, DeviceError)
    assert {end.reason for end in ends} == {FinishReason.FAILED}


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
