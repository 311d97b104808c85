"""What an engine says of itself, also while a step hangs, and how it is emptied."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from engines.loading import Count, Loading, LoadStage
from engines.service.lifecycle import Lifecycle
from roundhouse.internal.v1 import engine_service_pb2
from roundhouse.kit.channel import cancelling
from roundhouse.v1 import deployment_pb2, generation_pb2, receipt_pb2
from tests.support.scripted_engine import (
    BLOCK_SIZE,
    IDENTITY,
    TOTAL_BLOCKS,
    ScriptedEngine,
    events_of,
    hop,
    refusal_of,
    scripted_engine,
    served,
    text_of,
)
from tests.support.scripted_model import VOCABULARY_SIZE

LOADING = engine_service_pb2.ENGINE_STATE_LOADING
SERVING = engine_service_pb2.ENGINE_STATE_SERVING
DRAINING = engine_service_pb2.ENGINE_STATE_DRAINING
HEALTH = health_pb2.HealthCheckResponse


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine() as it:
        yield it


def watch(engine: ScriptedEngine, period_ms: int | None = None) -> Any:
    request = engine_service_pb2.WatchRequest()
    if period_ms is not None:
        request.period.FromMilliseconds(period_ms)
    return engine.engine.Watch(request, metadata=hop(), timeout=30)


async def next_status(call: Any) -> Any:
    response = await call.read()
    return response.statuses[-1]


async def until(call: Any, holds: Callable[[Any], object]) -> Any:
    """Returns the first status of which something holds."""
    while not holds(status := await next_status(call)):
        pass
    return status


async def test_describe_says_who_it_is_and_what_it_serves(engine: ScriptedEngine) -> None:
    answer = await engine.engine.Describe(engine_service_pb2.DescribeRequest(), metadata=hop())
    assert (answer.engine_uuid, answer.replica, answer.replica_uid) == (
        IDENTITY.engine_uuid,
        IDENTITY.replica,
        IDENTITY.replica_uid,
    )
    assert (answer.pid, answer.deployment_generation) == (os.getpid(), 3)
    assert answer.status.state == SERVING
    assert answer.fingerprint == "fingerprint of the script"
    model = answer.model
    assert (model.model_type, model.dtype, model.device, model.has_chat_template) == (
        "scripted",
        "float32",
        "cpu",
        True,
    )
    assert (model.vocabulary_size, model.block_size, model.total_block_count) == (
        VOCABULARY_SIZE,
        BLOCK_SIZE,
        TOTAL_BLOCKS,
    )
    assert dict(answer.package_versions) == {"torch": "2.0"}
    assert IDENTITY.engine_key not in answer.SerializeToString()


async def test_an_engine_that_loads_says_how_far_it_is_and_takes_no_requests() -> None:
    async with scripted_engine(is_loaded=False) as engine:
        call = watch(engine, 60_000)
        async with cancelling(call):
            status = await next_status(call)
            assert (status.state, status.HasField("load")) == (LOADING, False)
            engine.lifecycle.load("loading weights")
            assert (await next_status(call)).message == "loading weights"
            assert (await refusal_of(engine.generate()))[0] is grpc.StatusCode.UNAVAILABLE
            answer = await engine.engine.Describe(engine_service_pb2.DescribeRequest(), metadata=hop())
            assert (answer.HasField("model"), answer.fingerprint) == (False, "")
            assert (await engine.cancel("mine")).outcome == receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED
            engine.lifecycle.serve(served(engine.steps, engine.tokenizer))
            status = await next_status(call)
            assert (status.state, status.load.total_block_count) == (SERVING, TOTAL_BLOCKS)
            assert (status.load.max_running_count, status.load.kv_token_count) == (32, TOTAL_BLOCKS * BLOCK_SIZE)
        assert await text_of(engine.generate("a", sampling={"max_tokens": 2})) == "ab"


async def test_an_engine_that_loads_says_its_stage_and_how_many_bytes_are_done() -> None:
    async with scripted_engine(is_loaded=False) as engine:
        call = watch(engine, 50)
        async with cancelling(call):
            assert not (await next_status(call)).HasField("progress")
            count = Count()
            engine.lifecycle.load("loading weights", Loading(LoadStage.LOADING_WEIGHTS, 1000.0, count))
            progress = (await until(call, lambda status: status.HasField("progress"))).progress
            assert progress.stage == deployment_pb2.LAUNCH_STAGE_LOADING_WEIGHTS
            assert progress.stage_start_time.ToSeconds() == 1000
            assert not progress.HasField("fraction"), "nobody knows yet of how many"
            count.expect(400)
            count.add(100)
            progress = (await until(call, lambda status: status.progress.done_bytes)).progress
            assert (progress.done_bytes, progress.total_bytes, progress.fraction) == (100, 400, 0.25)
            engine.lifecycle.load("still loading weights")
            same = await until(call, lambda status: status.message == "still loading weights")
            assert same.progress == progress, "the stage goes on"
            engine.lifecycle.serve(served(engine.steps, engine.tokenizer))
            assert not (await until(call, lambda status: status.state == SERVING)).HasField("progress")


async def test_watch_counts_what_the_step_loop_does(engine: ScriptedEngine) -> None:
    await events_of(engine.generate("a", sampling={"max_tokens": 7}))
    call = watch(engine)
    async with cancelling(call):
        load = (await next_status(call)).load
    assert (load.step_count, load.output_token_count) == (7, 7)
    assert (load.running_count, load.waiting_count) == (0, 0)
    assert load.free_block_count == load.total_block_count == TOTAL_BLOCKS
    assert load.HasField("last_step_age")


async def test_a_step_that_hangs_is_seen(engine: ScriptedEngine) -> None:
    engine.runner.hold()
    request, call = engine.generate("a", sampling={"max_tokens": 16}), watch(engine, 50)
    async with cancelling(request), cancelling(call):
        await engine.runner.entered(1)
        ages_ns: list[int] = []
        while len(ages_ns) < 4:
            load = (await next_status(call)).load
            if load.running_count:  # the first message may have been on its way before the request
                assert (load.step_count, load.free_block_count) == (0, TOTAL_BLOCKS - 1)
                ages_ns.append(load.last_step_age.ToNanoseconds())
        assert ages_ns == sorted(ages_ns)
        assert ages_ns[-1] - ages_ns[0] >= 100_000_000


@pytest.mark.parametrize("period_ms", [-1, 0, 49, 60_001])
async def test_a_period_out_of_range_is_refused(engine: ScriptedEngine, period_ms: int) -> None:
    refusal = await refusal_of(watch(engine, period_ms))
    assert refusal == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", ["period"])


async def test_watchers_are_let_go_when_the_engine_stops(engine: ScriptedEngine) -> None:
    call = watch(engine, 60_000)
    assert (await next_status(call)).state == SERVING
    engine.lifecycle.stop()
    assert (await next_status(call)).state == DRAINING
    assert await call.read() is grpc.aio.EOF


async def test_an_engine_that_cannot_be_loaded_ends_without_a_drain() -> None:
    # Whoever heard of one would take its death for an end that was asked for, and start it again at once, for ever.
    async with scripted_engine(is_loaded=False) as engine:
        call = watch(engine, 60_000)
        assert (await next_status(call)).state == LOADING
        engine.lifecycle.load("loading weights", Loading(LoadStage.LOADING_WEIGHTS, 7.0))
        await next_status(call)
        engine.lifecycle.stop()
        engine.lifecycle.serve(served(engine.steps, engine.tokenizer))
        last = await next_status(call)
        assert (last.state, last.progress.stage) == (LOADING, deployment_pb2.LAUNCH_STAGE_LOADING_WEIGHTS)
        assert await call.read() is grpc.aio.EOF


async def test_health_serves_only_while_requests_are_taken() -> None:
    async with scripted_engine(is_loaded=False) as engine:
        health: Any = health_pb2_grpc.HealthStub(engine.channel)
        names = ("", "roundhouse.v1.InferenceService", "roundhouse.internal.v1.EngineService")
        calls = [health.Watch(health_pb2.HealthCheckRequest(service=name)) for name in names]

        async def statuses() -> set[int]:
            return {(await call.read()).status for call in calls}

        assert await statuses() == {HEALTH.NOT_SERVING}
        engine.lifecycle.serve(served(engine.steps, engine.tokenizer))
        assert await statuses() == {HEALTH.SERVING}
        assert (await engine.drain(0)).finished_count == 0
        assert await statuses() == {HEALTH.NOT_SERVING}
        for call in calls:
            call.cancel()


async def test_a_drain_lets_requests_finish_and_takes_no_more(engine: ScriptedEngine) -> None:
    engine.runner.hold()
    call = engine.generate("a", sampling={"max_tokens": 3})
    await call.read()
    watching = watch(engine, 60_000)
    async with cancelling(watching):
        await next_status(watching)
        draining = asyncio.ensure_future(engine.drain(None))
        assert (await next_status(watching)).state == DRAINING
    assert await refusal_of(engine.generate()) == (grpc.StatusCode.UNAVAILABLE, "DRAINING", [])
    engine.runner.go()
    assert await text_of(call) == "abc"
    answer = await draining
    assert (answer.finished_count, answer.cancelled_count) == (1, 0)
    await engine.all_ended()
    answer = await engine.drain(0)
    assert (answer.finished_count, answer.cancelled_count) == (1, 0)


async def test_a_drain_cancels_what_is_left_after_the_grace(engine: ScriptedEngine) -> None:
    engine.runner.hold()
    calls = [engine.generate(request_id=name, sampling={"max_tokens": 1000}) for name in ("one", "two")]
    for call in calls:
        await call.read()
    draining = asyncio.ensure_future(engine.drain(0))
    await engine.cancelled("local/one")
    await engine.cancelled("local/two")
    engine.runner.go()
    for call in calls:
        finished = (await events_of(call))[-2].finished
        assert finished.reason == generation_pb2.FINISH_REASON_CANCELLED
        assert finished.cancel_cause == receipt_pb2.CANCEL_CAUSE_DELETED
    answer = await draining
    assert (answer.finished_count, answer.cancelled_count) == (0, 2)
    await engine.all_ended()
    assert (await engine.cancel("one")).cause == receipt_pb2.CANCEL_CAUSE_DELETED


async def test_draining_again_sets_the_grace_anew_and_who_leaves_does_not_undo_it(engine: ScriptedEngine) -> None:
    engine.runner.hold()
    call = engine.generate(request_id="mine", sampling={"max_tokens": 1000})
    await call.read()
    watching = watch(engine, 60_000)
    async with cancelling(watching):
        await next_status(watching)
        patient, impatient = asyncio.ensure_future(engine.drain(3600)), asyncio.ensure_future(engine.drain(3600))
        assert (await next_status(watching)).state == DRAINING
    impatient.cancel()
    third = asyncio.ensure_future(engine.drain(0))
    await engine.cancelled("local/mine")
    engine.runner.go()
    assert {(await each).cancelled_count for each in (patient, third)} == {1}
    await events_of(call)
    await engine.all_ended()


async def test_a_negative_grace_is_refused(engine: ScriptedEngine) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await engine.drain(-1)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await text_of(engine.generate("a", sampling={"max_tokens": 2})) == "ab"


async def test_an_engine_that_drains_before_it_is_loaded_never_serves(engine: ScriptedEngine) -> None:
    lifecycle = Lifecycle()
    lifecycle.drain()
    lifecycle.serve(served(engine.steps, engine.tokenizer))
    lifecycle.load("loading weights")
    assert lifecycle.stage.message == "draining"
