"""Following a request that runs or has ended, from any position, by several at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
import pytest_asyncio

from engines.service.requests import Memory
from roundhouse.kit.channel import cancelling
from roundhouse.kit.status import error_of
from roundhouse.v1 import generation_pb2, receipt_pb2
from tests.support.clock import FakeClock
from tests.support.scripted_engine import ScriptedEngine, events_of, refusal_of, scripted_engine, text_of
from tests.support.scripted_model import alphabet

NOT_FOUND: tuple[object, ...] = (grpc.StatusCode.NOT_FOUND, "REQUEST_NOT_FOUND", [])
DROPPED: tuple[object, ...] = (grpc.StatusCode.OUT_OF_RANGE, "POSITION_DROPPED", [])


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine() as it:
        yield it


def letters(first: int, end: int, choice: int = 0) -> str:
    return "".join(chr(int(alphabet([ord("a")], position + choice))) for position in range(first, end))  # type: ignore[arg-type]


def outputs_of(events: Sequence[Any]) -> dict[int, tuple[int, str]]:
    """Returns of each choice where its deltas begin and their text, having checked that there is no gap."""
    found: dict[int, tuple[int, str]] = {}
    for delta in (event.delta for event in events if event.HasField("delta")):
        first, text = found.get(delta.choice, (delta.first_position, ""))
        assert delta.first_position == first + len(text)
        assert "".join(map(chr, delta.token_ids)) == delta.text
        found[delta.choice] = first, text + delta.text
    return found


def kinds_of(events: Sequence[Any]) -> list[str]:
    kinds = [event.WhichOneof("event") for event in events]
    return [kind for number, kind in enumerate(kinds) if kind != "delta" or kinds[number - 1] != "delta"]


async def after_tokens(engine: ScriptedEngine, count: int, **fields: Any) -> Any:
    """Starts a request named `mine`, and returns its call once so many tokens are there."""
    engine.runner.hold()
    call = engine.generate("a", request_id="mine", **fields)
    await call.read()
    for _ in range(count):  # one at a time, so that it is read as it comes
        engine.runner.step()
        await call.read()
    await engine.runner.entered(count + 1)
    return call


async def test_who_attaches_is_told_what_it_has_not_seen(engine: ScriptedEngine) -> None:
    call = await after_tokens(engine, 10, sampling={"max_tokens": 30})
    attached = engine.attach("mine", {0: 4})
    async with cancelling(attached):
        started = (await attached.read()).events[0].started
        assert (started.request_id, started.attempt, started.prompt_token_count) == ("mine", 1, 2)
        [delta] = [event.delta for event in (await attached.read()).events]
        assert (delta.first_position, delta.text) == (4, letters(4, 10))
        engine.runner.go()
        rest = await events_of(attached)
    assert outputs_of(rest) == {0: (10, letters(10, 30))}
    assert kinds_of(rest)[-2:] == ["finished", "usage"]
    assert (await events_of(call))[-2:] == rest[-2:]


@pytest.mark.parametrize("is_over", [False, True], ids=["while it runs", "when it has ended"])
async def test_all_who_attach_are_told_the_same(engine: ScriptedEngine, is_over: bool) -> None:
    sampling = {"max_tokens": 40, "n": 2, "logprobs": 1, "seed": 3}
    engine.runner.hold()
    call = engine.generate("a", request_id="mine", echo=True, sampling=sampling)
    await call.read()
    engine.runner.step(7)
    await engine.runner.entered(8)
    if is_over:
        engine.runner.go()
        await engine.all_ended()
    calls = [engine.attach("mine", after) for after in ({}, {0: 0, 1: 0}, {0: 5, 1: 39}, {0: 40, 1: 40})]
    reading = [asyncio.ensure_future(events_of(each)) for each in calls]
    engine.runner.go()
    everything, *others = [await each for each in reading]
    assert kinds_of(everything)[:2] == ["started", "prompt"]
    assert outputs_of(everything) == {0: (0, letters(0, 40)), 1: (0, letters(0, 40, 1))}
    expected: list[dict[int, tuple[int, str]]] = [
        {0: (0, letters(0, 40)), 1: (0, letters(0, 40, 1))},
        {0: (5, letters(5, 40)), 1: (39, letters(39, 40, 1))},
        {},
    ]
    for events, output in zip(others, expected, strict=True):
        assert "prompt" not in kinds_of(events)
        assert outputs_of(events) == output
        ends = [event.finished for event in events if event.HasField("finished")]
        assert sorted(ends, key=lambda end: end.choice) == sorted(
            (event.finished for event in everything if event.HasField("finished")), key=lambda end: end.choice
        )
        assert (events[0], events[-1]) == (everything[0], everything[-1])
    scores = [score.chosen.token_id for event in everything for score in event.delta.logprobs]
    assert scores == [token for event in everything for token in event.delta.token_ids]
    call.cancel()


async def test_a_position_that_is_still_to_come_is_waited_for(engine: ScriptedEngine) -> None:
    call = await after_tokens(engine, 2, sampling={"max_tokens": 10})
    attached = engine.attach("mine", {0: 5})
    async with cancelling(call), cancelling(attached):
        await attached.read()
        engine.runner.go()
        assert outputs_of(await events_of(attached)) == {0: (5, letters(5, 10))}


async def test_a_position_behind_the_end_gets_the_end(engine: ScriptedEngine) -> None:
    await events_of(engine.generate("a", request_id="mine", sampling={"max_tokens": 3}))
    assert kinds_of(await events_of(engine.attach("mine", {0: 7}))) == ["started", "finished", "usage"]


async def test_a_choice_that_is_not_named_is_told_from_its_beginning_and_the_prompt_as_well(
    engine: ScriptedEngine,
) -> None:
    await events_of(engine.generate("a", request_id="mine", echo=True, sampling={"max_tokens": 4, "n": 2}))
    events = await events_of(engine.attach("mine", {1: 2}))
    assert kinds_of(events)[1] == "prompt"
    assert outputs_of(events) == {0: (0, letters(0, 4)), 1: (2, letters(2, 4, 1))}


async def test_the_best_of_several_are_told_alike_to_all(engine: ScriptedEngine) -> None:
    sampling = {"max_tokens": 5, "n": 2, "best_of": 4}
    call = await after_tokens(engine, 0, sampling=sampling)
    early = engine.attach("mine")
    await early.read()
    engine.runner.go()
    first, second = await events_of(call), await events_of(early)
    late = (await events_of(engine.attach("mine", {0: 0, 1: 4})))[1:]
    assert first == second
    assert outputs_of(first) == {0: (0, letters(0, 5)), 1: (0, letters(0, 5, 1))}
    assert outputs_of(late) == {0: (0, letters(0, 5)), 1: (4, letters(4, 5, 1))}


async def test_an_end_that_was_an_error_is_told_again() -> None:
    def script(prompt: Sequence[int], position: int) -> int | Exception:
        return ValueError("no finite logit") if position == 3 else alphabet(prompt, position)

    async with scripted_engine(script) as engine:
        assert (await refusal_of(engine.generate("a", request_id="mine")))[0] is grpc.StatusCode.INTERNAL
        call = engine.attach("mine", {0: 1})
        await call.read()
        assert outputs_of((await call.read()).events) == {0: (1, letters(1, 3))}
        assert (await refusal_of(call))[0] is grpc.StatusCode.INTERNAL


async def test_a_cancel_is_told_to_all(engine: ScriptedEngine) -> None:
    call = await after_tokens(engine, 3)
    attached = engine.attach("mine", {0: 3})
    await attached.read()
    cancelling_it = asyncio.ensure_future(engine.cancel("mine"))
    await engine.cancelled("local/mine")
    engine.runner.go()
    assert (await cancelling_it).outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
    for each in (call, attached):
        events = await events_of(each)
        assert events[-2].finished.reason == generation_pb2.FINISH_REASON_CANCELLED


async def test_the_request_of_another_principal_is_not_there(engine: ScriptedEngine) -> None:
    call = await after_tokens(engine, 1)
    async with cancelling(call):
        assert await refusal_of(engine.attach("mine", principal="other")) == NOT_FOUND
        assert await refusal_of(engine.attach("another")) == NOT_FOUND


@pytest.mark.parametrize(
    ("after", "field"),
    [({1: 0}, "after[0].choice"), ({-1: 0}, "after[0].choice"), ({0: -1}, "after[0].output_token_count")],
    ids=["a choice that it does not have", "a choice below 0", "a position below 0"],
)
async def test_what_cannot_be_attached_to_is_refused_by_name(
    engine: ScriptedEngine, after: dict[int, int], field: str
) -> None:
    await events_of(engine.generate("a", request_id="mine", sampling={"max_tokens": 3}))
    assert await refusal_of(engine.attach("mine", after)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "FIELD_INVALID",
        [field],
    )
    assert (await refusal_of(engine.attach("?")))[2] == ["request_id"]


async def test_what_has_ended_can_be_attached_to_for_a_minute() -> None:
    clock = FakeClock()
    async with scripted_engine(clock=clock) as engine:
        await events_of(engine.generate("a", request_id="mine", sampling={"max_tokens": 3}))
        clock.advance(59)
        assert await text_of(engine.attach("mine")) == "abc"
        clock.advance(1)
        assert await refusal_of(engine.attach("mine")) == NOT_FOUND
        assert (await engine.get("mine")).receipt.output_token_count == 3


async def test_the_oldest_logs_go_first_when_there_are_too_many() -> None:
    async with scripted_engine(memory=Memory(log_limit=100)) as engine:
        for name in ("first", "second", "third"):
            await events_of(engine.generate("a", request_id=name, sampling={"max_tokens": 40}))
        assert await refusal_of(engine.attach("first")) == NOT_FOUND
        for name in ("second", "third"):
            assert await text_of(engine.attach(name)) == letters(0, 40)


async def test_text_that_all_have_read_may_be_dropped() -> None:
    async with scripted_engine(memory=Memory(run_log_limit=16)) as engine:
        call = await after_tokens(engine, 40, sampling={"max_tokens": 60})
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await events_of(engine.attach("mine", {0: 3}))
        metadata = error_of(raised.value).metadata
        first = int(metadata["first_position"])
        assert (metadata["choice"], raised.value.code()) == ("0", grpc.StatusCode.OUT_OF_RANGE)
        assert 24 <= first <= 30
        attached = engine.attach("mine", {0: first})
        await attached.read()
        engine.runner.go()
        assert outputs_of(await events_of(attached)) == {0: (first, letters(first, 60))}
        assert (await events_of(call))[-2].finished.output_token_count == 60


async def test_what_one_has_not_read_is_kept_for_it() -> None:
    async with scripted_engine(memory=Memory(run_log_limit=16)) as engine:
        call = await after_tokens(engine, 0, sampling={"max_tokens": 500})
        attached = engine.attach("mine")
        await attached.read()
        engine.runner.go()
        assert outputs_of(await events_of(call)) == {0: (0, letters(0, 500))}
        assert outputs_of(await events_of(attached)) == {0: (0, letters(0, 500))}


async def test_one_who_attaches_in_vain_ends_nothing() -> None:
    async with scripted_engine(memory=Memory(run_log_limit=16)) as engine:
        call = await after_tokens(engine, 40, keeper="gateway-1", sampling={"max_tokens": 60})
        call.cancel()
        await engine.followed("mine", 0)
        assert await refusal_of(engine.attach("mine", {0: 3})) == DROPPED
        attached = engine.attach("mine", {0: 40})
        await attached.read()
        engine.runner.go()
        assert outputs_of(await events_of(attached)) == {0: (40, letters(40, 60))}


async def test_the_same_words_attach_from_the_beginning(engine: ScriptedEngine) -> None:
    fields: dict[str, Any] = {"echo": True, "sampling": {"max_tokens": 8, "seed": 1}}
    call = await after_tokens(engine, 3, **fields)
    again = engine.generate("a", request_id="mine", **fields)
    await again.read()
    engine.runner.go()
    events = await events_of(again)
    assert kinds_of(events) == ["prompt", "delta", "finished", "usage"]
    assert outputs_of(events) == {0: (0, letters(0, 8))}
    await events_of(call)
    later = await events_of(engine.generate("a", request_id="mine", **fields))
    assert kinds_of(later) == ["started", *kinds_of(events)]
    assert outputs_of(later) == outputs_of(events)
    assert engine.runner.entered_count == 8


async def test_what_is_left_of_a_duration_is_no_other_word(engine: ScriptedEngine) -> None:
    fields: dict[str, Any] = {"request_id": "mine", "sampling": {"max_tokens": 3}}
    for left_s in (9, 8):
        assert await text_of(engine.generate("a", options={"max_duration": {"seconds": left_s}}, **fields)) == "abc"
    assert engine.runner.entered_count == 3


@pytest.mark.parametrize(
    "change",
    [{"sampling": {"max_tokens": 4}}, {"prompt": [{"text": "b"}]}, {"options": {"priority": 1}}],
    ids=["another length", "another prompt", "another priority"],
)
async def test_other_words_with_the_same_id_are_refused(engine: ScriptedEngine, change: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"request_id": "mine", "prompt": [{"text": "a"}], "sampling": {"max_tokens": 3}}
    await events_of(engine.generate(**fields))
    refusal: tuple[object, ...] = (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_EXISTS", [])
    assert await refusal_of(engine.generate(**{**fields, **change})) == refusal
    messages = [{"role": "ROLE_USER", "content": [{"text": "a"}]}]
    assert await refusal_of(engine.chat(request_id="mine", messages=messages)) == refusal


async def test_the_same_words_are_refused_when_nothing_is_left_to_tell() -> None:
    clock = FakeClock()
    async with scripted_engine(clock=clock) as engine:
        await events_of(engine.generate("a", request_id="mine", sampling={"max_tokens": 3}))
        clock.advance(61)
        call = engine.generate("a", request_id="mine", sampling={"max_tokens": 3})
        assert (await refusal_of(call))[:2] == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_EXISTS")


LONG = "x" * 5000  # tokenized in a thread


async def test_a_call_may_be_repeated_while_the_prompt_is_tokenized(engine: ScriptedEngine) -> None:
    engine.tokenizer.hold()
    first = engine.generate(LONG, request_id="mine", sampling={"max_tokens": 3})
    await engine.tokenizer.entered()
    second = engine.generate(LONG, request_id="mine", sampling={"max_tokens": 3})
    await engine.followed("mine", 2)
    first.cancel()
    await engine.followed("mine", 1)
    engine.tokenizer.go()
    assert await text_of(second) == "xyz"


async def test_a_refusal_is_told_to_all_who_wait_for_the_start(engine: ScriptedEngine) -> None:
    engine.tokenizer.hold()
    calls = [engine.generate(LONG * 2, request_id="mine") for _ in range(2)]
    await engine.followed("mine", 2)
    engine.tokenizer.go()
    for call in calls:
        assert (await refusal_of(call))[:2] == (grpc.StatusCode.OUT_OF_RANGE, "PROMPT_TOO_LONG")
    assert await refusal_of(engine.attach("mine")) == NOT_FOUND


async def test_an_engine_that_drains_lets_others_attach(engine: ScriptedEngine) -> None:
    call = await after_tokens(engine, 3, sampling={"max_tokens": 8})
    stage = engine.lifecycle.stage
    draining = asyncio.ensure_future(engine.drain(30))
    await engine.lifecycle.change_from(stage)
    assert (await refusal_of(engine.generate("b")))[1] == "DRAINING"
    attached = engine.attach("mine", {0: 2})
    again = engine.generate("a", request_id="mine", sampling={"max_tokens": 8})
    await attached.read()
    await again.read()
    assert [each.request_id for each in (await engine.list()).requests] == ["mine"]
    engine.runner.go()
    assert outputs_of(await events_of(attached)) == {0: (2, letters(2, 8))}
    assert await text_of(again) == letters(0, 8)
    await events_of(call)
    assert (await draining).finished_count == 1
    assert await text_of(engine.attach("mine", {0: 7})) == letters(7, 8)
