"""Requests of several choices: what their stream, their usage and their receipt say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
import pytest_asyncio

from engines.model import NothingAllowed
from roundhouse.kit.chain import EMPTY, chain
from roundhouse.kit.channel import cancelling
from roundhouse.v1 import generation_pb2, receipt_pb2
from tests.support.scripted_engine import (
    BLOCK_SIZE,
    TOTAL_BLOCKS,
    ScriptedEngine,
    events_of,
    refusal_of,
    scripted_engine,
)
from tests.support.scripted_model import alphabet


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine() as it:
        yield it


def outputs_of(events: Sequence[Any]) -> dict[int, list[int]]:
    """Returns the ids of each choice, having checked positions, hashes, and that nothing follows an end."""
    ids: dict[int, list[int]] = {}
    ended: set[int] = set()
    for event in events:
        if event.HasField("delta"):
            assert event.delta.choice not in ended
            assert event.delta.first_position == len(ids.setdefault(event.delta.choice, []))
            ids[event.delta.choice] += event.delta.token_ids
        if event.HasField("finished"):
            ended.add(event.finished.choice)
            assert event.finished.token_hash == chain(EMPTY, ids[event.finished.choice])
            assert event.finished.output_token_count == len(ids[event.finished.choice])
    assert ended == set(ids)
    return ids


def letters(count: int, first: int) -> list[int]:
    return [int(alphabet([ord("a")], first + position)) for position in range(count)]  # type: ignore[arg-type]


async def test_every_choice_has_its_own_output_and_end(engine: ScriptedEngine) -> None:
    sampling = {"n": 3, "max_tokens": 40, "seed": 5}
    events = await events_of(engine.generate("a", request_id="mine", sampling=sampling))
    assert outputs_of(events) == {choice: letters(40, choice) for choice in range(3)}
    usage = events[-1].usage
    assert (usage.prompt_token_count, usage.output_token_count, usage.cached_prompt_token_count) == (2, 120, 0)
    works = [engine.runner.works[f"local/mine/{choice}"] for choice in range(3)]
    assert [work.choice for work in works] == [0, 1, 2]
    assert {work.sampling.seed for work in works} == {5}
    await engine.all_ended()


async def test_choices_may_end_one_after_the_other() -> None:
    def script(prompt: Sequence[int], position: int) -> int:
        return 0 if position == 5 else ord("x")

    async with scripted_engine(script) as engine:
        events = await events_of(engine.generate(sampling={"n": 3, "max_tokens": 4}))
        assert {choice: len(ids) for choice, ids in outputs_of(events).items()} == {0: 4, 1: 4, 2: 4}
        reasons = {event.finished.choice: event.finished.reason for event in events if event.HasField("finished")}
        assert reasons == {
            0: generation_pb2.FINISH_REASON_LENGTH,
            1: generation_pb2.FINISH_REASON_LENGTH,
            2: generation_pb2.FINISH_REASON_STOP_TOKEN,
        }
        receipt = await engine.cancel(events[0].started.request_id)
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
        assert [each.output_token_count for each in receipt.positions] == [4, 4, 4]
        await engine.all_ended()


async def test_the_best_are_sent_whole_the_best_first(engine: ScriptedEngine) -> None:
    # The script says that ids nearer to 0 are likelier, so that earlier letters are better.
    events = await events_of(engine.generate("a", request_id="mine", sampling={"n": 2, "best_of": 4, "max_tokens": 3}))
    assert outputs_of(events) == {0: letters(3, 0), 1: letters(3, 1)}
    assert [event.WhichOneof("event") for event in events] == [
        "started",
        *["delta", "finished"] * 2,
        "usage",
    ]
    assert events[-1].usage.output_token_count == 12
    assert engine.runner.works["local/mine/3"].logprobs == 0
    receipt = await engine.cancel("mine")
    assert [each.choice for each in receipt.positions] == [0, 1, 2, 3]


async def test_a_cancel_ends_all_choices_and_its_receipt_counts_them(engine: ScriptedEngine) -> None:
    engine.runner.hold()
    prompt = [{"token_ids": {"ids": [5] * (2 * BLOCK_SIZE)}}]
    call = engine.generate(request_id="mine", prompt=prompt, sampling={"n": 3, "max_tokens": 100})
    async with cancelling(call):
        await call.read()
        engine.runner.step(4)
        await engine.runner.entered(5)
        before = engine.pool.free_count
        asking = asyncio.ensure_future(engine.cancel("mine"))
        await engine.cancelled("local/mine")
        engine.runner.go()
        receipt, events = await asking, await events_of(call)
    assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
    assert receipt.steps_after == 1
    assert (receipt.free_block_count_before, receipt.free_block_count) == (before, TOTAL_BLOCKS)
    assert receipt.freed_block_count == TOTAL_BLOCKS - before
    counts = {choice: len(ids) for choice, ids in outputs_of(events).items()}
    assert {each.choice: each.output_token_count for each in receipt.positions} == counts
    assert receipt.output_token_count == sum(counts.values()) == events[-1].usage.output_token_count
    ends = [event.finished for event in events if event.HasField("finished")]
    assert {each.reason for each in ends} == {generation_pb2.FINISH_REASON_CANCELLED}
    assert len(ends) == 3
    await engine.all_ended()


async def test_a_choice_that_fails_ends_its_request_and_no_other() -> None:
    def script(prompt: Sequence[int], position: int) -> int | Exception:
        return ValueError("no finite logit") if prompt[-1] == ord("z") and position == 5 else alphabet(prompt, position)

    async with scripted_engine(script) as engine:
        failing = engine.generate("z", request_id="mine", sampling={"n": 3, "max_tokens": 5000})
        other = engine.generate("a", sampling={"n": 2, "max_tokens": 30})
        refusal, events = await asyncio.gather(refusal_of(failing), events_of(other))
        assert refusal[0] is grpc.StatusCode.INTERNAL
        assert outputs_of(events) == {0: letters(30, 0), 1: letters(30, 1)}
        await engine.all_ended()
        receipt = await engine.cancel("mine")
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
        assert receipt.cause == receipt_pb2.CANCEL_CAUSE_UNSPECIFIED


async def test_an_output_that_forbids_all_that_could_come_next_is_ended_by_name() -> None:
    def script(prompt: Sequence[int], position: int) -> int | Exception:
        return NothingAllowed("no token may come next") if position == 3 else alphabet(prompt, position)

    async with scripted_engine(script) as engine:
        call = engine.generate("a", sampling={"n": 2, "max_tokens": 50})
        refusal = await refusal_of(call)
        assert refusal == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", ["sampling"])
        await engine.all_ended()


@pytest.mark.parametrize("best_of", [None, 3], ids=["each", "the best"])
async def test_a_deadline_ends_all_choices(engine: ScriptedEngine, best_of: int | None) -> None:
    engine.runner.hold()
    sampling = {"n": 2, **({} if best_of is None else {"best_of": best_of})}
    call = engine.generate(request_id="mine", sampling=sampling, options={"max_duration": {"nanos": 50_000_000}})
    await call.read()
    await engine.cancelled("local/mine")
    engine.runner.go()
    assert (await refusal_of(call))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    await engine.all_ended()
    assert (await engine.cancel("mine")).cause == receipt_pb2.CANCEL_CAUSE_DEADLINE


async def test_choices_count_in_the_queue() -> None:
    async with scripted_engine(batch_size=2, max_waiting=3) as engine:
        engine.runner.hold()
        call = engine.generate(sampling={"n": 6, "max_tokens": 2})  # more than the engine has places for, at once
        async with cancelling(call):
            await call.read()
            assert (await refusal_of(engine.generate()))[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
            engine.runner.go()
            assert {len(ids) for ids in outputs_of(await events_of(call)).values()} == {2}
        await engine.all_ended()
        assert len(outputs_of(await events_of(engine.generate(sampling={"max_tokens": 2})))) == 1
