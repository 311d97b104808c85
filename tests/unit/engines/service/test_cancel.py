"""Every way to end a request before its time: what stream and receipt say, and that its blocks are free."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from engines.service.requests import Memory
from roundhouse.kit.channel import cancelling
from roundhouse.v1 import generation_pb2, receipt_pb2
from tests.support.clock import FakeClock
from tests.support.scripted_engine import (
    BLOCK_SIZE,
    TOTAL_BLOCKS,
    ScriptedEngine,
    events_of,
    refusal_of,
    scripted_engine,
    text_of,
)
from tests.support.scripted_model import alphabet

TOMBSTONED: tuple[object, ...] = (grpc.StatusCode.ABORTED, "REQUEST_TOMBSTONED", [])
SOON_S = 0.05


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine() as it:
        yield it


COUNTS = (
    "prompt_token_count",
    "output_token_count",
    "freed_block_count",
    "free_block_count_before",
    "free_block_count",
    "total_block_count",
    "steps_after",
    "elapsed",
)


async def begin(engine: ScriptedEngine, **fields: Any) -> Any:
    """Starts a request named `mine`, and returns its call once its first token has been read and a step runs."""
    engine.runner.hold()
    call = engine.generate("a", request_id="mine", **fields)
    await call.read()
    engine.runner.step()
    await call.read()
    await engine.runner.entered(2)
    return call


async def receipt_while_a_step_runs(engine: ScriptedEngine, **facts: Any) -> Any:
    """Cancels `mine`, and lets the step that runs end only when the cancel has come."""
    asking = asyncio.ensure_future(engine.cancel("mine", **facts))
    await engine.cancelled("local/mine")
    engine.runner.go()
    return await asking


async def test_cancelling_ends_the_stream_with_finished_usage_and_ok(engine: ScriptedEngine) -> None:
    call = await begin(engine, sampling={"max_tokens": 100})
    await receipt_while_a_step_runs(engine)
    events = await events_of(call)
    finished, usage = events[-2].finished, events[-1].usage
    assert finished.reason == generation_pb2.FINISH_REASON_CANCELLED
    assert finished.cancel_cause == receipt_pb2.CANCEL_CAUSE_CLIENT
    assert finished.output_token_count == usage.output_token_count == 1
    assert await call.code() is grpc.StatusCode.OK
    await engine.all_ended()


async def test_the_receipt_says_what_the_caches_own_counter_showed(engine: ScriptedEngine) -> None:
    call = await begin(engine, sampling={"max_tokens": 100})
    before = engine.pool.free_count
    receipt = await receipt_while_a_step_runs(engine)
    async with cancelling(call):
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
        assert receipt.level == receipt_pb2.CANCEL_LEVEL_FREED
        assert receipt.cause == receipt_pb2.CANCEL_CAUSE_CLIENT
        assert (receipt.deployment, receipt.request_id, receipt.attempt) == ("chat", "mine", 1)
        assert receipt.replica == "deployments/chat/replicas/0"
        assert (receipt.prompt_token_count, receipt.output_token_count) == (2, 1)
        assert [(each.choice, each.output_token_count) for each in receipt.positions] == [(0, 1)]
        assert receipt.free_block_count_before == before == TOTAL_BLOCKS - 1
        assert receipt.free_block_count == receipt.total_block_count == TOTAL_BLOCKS
        assert receipt.freed_block_count == TOTAL_BLOCKS - before
        assert receipt.steps_after == 1
        assert receipt.elapsed.ToNanoseconds() > 0
        assert receipt.receipt_time.seconds > 0


async def test_cancelling_again_gives_the_same_receipt(engine: ScriptedEngine) -> None:
    call = await begin(engine)
    first = await receipt_while_a_step_runs(engine)
    assert await engine.cancel("mine") == first
    await events_of(call)
    assert await engine.cancel("mine") == first


async def test_a_request_that_waits_is_cancelled_at_no_step() -> None:
    async with scripted_engine(batch_size=1) as engine:
        engine.runner.hold()
        running = engine.generate()
        await running.read()
        waiting = engine.generate(request_id="mine")
        async with cancelling(running), cancelling(waiting):
            await waiting.read()
            receipt = await receipt_while_a_step_runs(engine)
            assert (receipt.outcome, receipt.steps_after) == (receipt_pb2.CANCEL_OUTCOME_CANCELLED, 0)
            assert (receipt.freed_block_count, receipt.output_token_count) == (0, 0)
            assert all(receipt.HasField(each) for each in COUNTS), "a count of 0 is a count"
        await engine.all_ended()


async def test_a_request_that_has_finished_is_already_finished(engine: ScriptedEngine) -> None:
    await events_of(engine.generate("a", request_id="mine", sampling={"max_tokens": 3}))
    receipt = await engine.cancel("mine")
    assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
    assert receipt.cause == receipt_pb2.CANCEL_CAUSE_UNSPECIFIED
    assert (receipt.output_token_count, receipt.freed_block_count, receipt.steps_after) == (3, 1, 0)
    assert not receipt.HasField("elapsed")


async def test_a_request_that_never_came_leaves_a_tombstone_for_a_minute() -> None:
    clock = FakeClock()
    async with scripted_engine(clock=clock) as engine:
        receipt = await engine.cancel("mine")
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED
        assert (receipt.level, receipt.replica) == (receipt_pb2.CANCEL_LEVEL_UNSPECIFIED, "")
        assert not any(receipt.HasField(each) for each in COUNTS), "nobody has counted"
        clock.advance(59)
        assert await refusal_of(engine.generate(request_id="mine")) == TOMBSTONED
        assert await engine.cancel("mine") == receipt
        clock.advance(59)
        assert await refusal_of(engine.generate(request_id="mine")) == TOMBSTONED
        clock.advance(1)
        assert await text_of(engine.generate("a", request_id="mine", sampling={"max_tokens": 2})) == "ab"


async def test_receipts_are_kept_for_ten_minutes() -> None:
    clock = FakeClock()
    async with scripted_engine(clock=clock) as engine:
        await events_of(engine.generate(request_id="mine", sampling={"max_tokens": 1}))
        clock.advance(599)
        assert (await engine.cancel("mine")).outcome == receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
        clock.advance(1)
        assert (await engine.cancel("mine")).outcome == receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED


async def test_the_request_of_another_principal_is_not_there(engine: ScriptedEngine) -> None:
    call = await begin(engine, sampling={"max_tokens": 3})
    receipt = await engine.cancel("mine", principal="other")
    assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED
    engine.runner.go()
    events = await events_of(call)
    assert events[-2].finished.reason == generation_pb2.FINISH_REASON_LENGTH


async def test_a_client_that_leaves_cancels_at_once(engine: ScriptedEngine) -> None:
    call = await begin(engine)
    call.cancel()
    await engine.cancelled("local/mine")
    engine.runner.go()
    await engine.all_ended()
    receipt = await engine.cancel("mine")
    assert (receipt.outcome, receipt.cause) == (
        receipt_pb2.CANCEL_OUTCOME_CANCELLED,
        receipt_pb2.CANCEL_CAUSE_DISCONNECT,
    )
    assert receipt.steps_after == 1


async def test_a_gateway_may_say_that_its_client_has_left(engine: ScriptedEngine) -> None:
    call = await begin(engine, keeper="gateway-1")
    receipt = await receipt_while_a_step_runs(engine, cancel_cause=receipt_pb2.CANCEL_CAUSE_DISCONNECT)
    assert (receipt.outcome, receipt.cause) == (
        receipt_pb2.CANCEL_OUTCOME_CANCELLED,
        receipt_pb2.CANCEL_CAUSE_DISCONNECT,
    )
    call.cancel()


@pytest.mark.parametrize("keeper", ["", "gateway-1"], ids=["a client", "a gateway"])
async def test_the_deadline_of_the_call_cancels(engine: ScriptedEngine, keeper: str) -> None:
    call = await begin(engine, timeout=0.3, keeper=keeper)
    code, _, _ = await refusal_of(call)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    await engine.cancelled("local/mine")
    engine.runner.go()
    await engine.all_ended()
    receipt = await engine.cancel("mine")
    assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
    assert receipt.cause == receipt_pb2.CANCEL_CAUSE_DEADLINE


async def test_max_duration_ends_the_stream_with_deadline_exceeded(engine: ScriptedEngine) -> None:
    options = {"max_duration": {"nanos": 100_000_000}}
    call = await begin(engine, options=options)
    await engine.cancelled("local/mine")
    engine.runner.go()
    assert await refusal_of(call) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", [])
    await engine.all_ended()
    assert (await engine.cancel("mine")).cause == receipt_pb2.CANCEL_CAUSE_DEADLINE


async def test_a_request_that_finishes_in_time_knows_no_deadline(engine: ScriptedEngine) -> None:
    options = {"max_duration": {"seconds": 20}}
    assert await text_of(engine.generate("a", sampling={"max_tokens": 2}, options=options)) == "ab"


async def test_an_orphan_is_cancelled_when_nobody_takes_it_up() -> None:
    async with scripted_engine(orphan_s=SOON_S) as engine:
        call = await begin(engine, keeper="gateway-1")
        call.cancel()
        await engine.cancelled("local/mine")
        engine.runner.go()
        await engine.all_ended()
        receipt = await engine.cancel("mine")
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
        assert receipt.cause == receipt_pb2.CANCEL_CAUSE_ORPHANED


async def test_an_orphan_goes_on_until_its_keeper_cancels_it(engine: ScriptedEngine) -> None:
    call = await begin(engine, keeper="gateway-1")
    call.cancel()
    engine.runner.step(3)
    await engine.runner.entered(5)  # nobody reads, and steps go on
    receipt = await receipt_while_a_step_runs(engine)
    assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
    assert receipt.cause == receipt_pb2.CANCEL_CAUSE_CLIENT
    assert receipt.output_token_count == 4
    await engine.all_ended()


async def test_an_orphan_may_finish_by_itself(engine: ScriptedEngine) -> None:
    call = await begin(engine, keeper="gateway-1", sampling={"max_tokens": 8})
    call.cancel()
    engine.runner.go()
    await engine.all_ended()
    receipt = await engine.cancel("mine")
    assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
    assert (receipt.cause, receipt.output_token_count) == (receipt_pb2.CANCEL_CAUSE_UNSPECIFIED, 8)


LONG = "x" * 5000  # tokenized in a thread


async def test_a_request_can_be_cancelled_while_its_prompt_is_tokenized(engine: ScriptedEngine) -> None:
    engine.tokenizer.hold()
    call = engine.generate(LONG, request_id="mine")
    reading = asyncio.ensure_future(events_of(call))
    await engine.tokenizer.entered()
    asking = asyncio.ensure_future(engine.cancel("mine"))
    await engine.asked("mine")
    loop = asyncio.get_running_loop()
    asked_s = loop.time()
    await asyncio.to_thread(lambda: None)  # takes a moment, which is part of what the cancel takes
    held_s = loop.time() - asked_s
    engine.tokenizer.go()
    receipt, events = await asking, await reading
    assert receipt.elapsed.ToNanoseconds() >= held_s * 1e9
    assert (receipt.outcome, receipt.steps_after) == (receipt_pb2.CANCEL_OUTCOME_CANCELLED, 0)
    assert (receipt.freed_block_count, receipt.output_token_count) == (0, 0)
    assert events[-2].finished.reason == generation_pb2.FINISH_REASON_CANCELLED
    await engine.all_ended()


async def test_a_client_that_leaves_while_its_prompt_is_tokenized_leaves_nothing(engine: ScriptedEngine) -> None:
    engine.tokenizer.hold()
    call = engine.generate(LONG, request_id="mine")
    await engine.tokenizer.entered()
    call.cancel()
    await engine.all_ended()
    engine.tokenizer.go()
    assert (await engine.cancel("mine")).outcome == receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED


async def test_a_request_that_is_refused_while_it_is_cancelled_counts_as_one_that_never_came(
    engine: ScriptedEngine,
) -> None:
    engine.tokenizer.hold()
    call = engine.generate(LONG * 2, request_id="mine")
    refused = asyncio.ensure_future(refusal_of(call))
    await engine.tokenizer.entered()
    asking = asyncio.ensure_future(engine.cancel("mine"))
    await engine.asked("mine")
    engine.tokenizer.go()
    assert (await refused)[:2] == (grpc.StatusCode.OUT_OF_RANGE, "PROMPT_TOO_LONG")
    assert (await asking).outcome == receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED
    assert await refusal_of(engine.generate(request_id="mine")) == TOMBSTONED


async def test_a_step_that_hangs_leaves_the_cancel_unproven() -> None:
    async with scripted_engine(memory=Memory(receipt_wait_s=SOON_S)) as engine:
        call = await begin(engine)
        receipt = await engine.cancel("mine")
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_UNPROVEN
        assert receipt.level == receipt_pb2.CANCEL_LEVEL_REQUESTED
        engine.runner.go()
        await events_of(call)
        receipt = await engine.cancel("mine")
        assert (receipt.outcome, receipt.steps_after) == (receipt_pb2.CANCEL_OUTCOME_CANCELLED, 1)


async def test_cancelling_half_changes_no_token_of_the_others(engine: ScriptedEngine) -> None:
    sampling = {"max_tokens": 200}
    engine.runner.hold()
    calls = [engine.generate("a", request_id=str(number), sampling=sampling) for number in range(24)]
    for call in calls:
        await call.read()
    engine.runner.step(50)
    await engine.runner.entered(51)
    asking = [asyncio.ensure_future(engine.cancel(str(number))) for number in range(0, 24, 2)]
    for number in range(0, 24, 2):
        await engine.cancelled(f"local/{number}")
    engine.runner.go()
    receipts = await asyncio.gather(*asking)
    texts = await asyncio.gather(*map(text_of, calls))
    whole = "".join(chr(int(alphabet([ord("a")], position))) for position in range(200))  # type: ignore[arg-type]
    assert set(texts[1::2]) == {whole}
    assert all(whole.startswith(text) and len(text) < 100 for text in texts[::2])
    assert {receipt.freed_block_count for receipt in receipts} == {-(-52 // BLOCK_SIZE)}
    assert {receipt.steps_after for receipt in receipts} == {1}
    await engine.all_ended()
