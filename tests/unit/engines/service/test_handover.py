"""Giving requests up so that another engine goes on: when it drains, or when it is told of a higher attempt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
import pytest_asyncio

from engines.service.requests import Memory
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.channel import cancelling
from roundhouse.v1 import generation_pb2, receipt_pb2
from tests.support.scripted_engine import (
    ScriptedEngine,
    events_of,
    refusal_of,
    scripted_engine,
    stream_of,
    text_of,
)

HANDED_OVER: tuple[object, ...] = (grpc.StatusCode.UNAVAILABLE, "HANDED_OVER", [])
KEY = "local/mine"


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine() as it:
        yield it


async def begun(engine: ScriptedEngine, request_id: str = "mine", **fields: Any) -> Any:
    """Starts a request; returns its call once it has three tokens."""
    engine.runner.hold()
    call = engine.generate("a", request_id=request_id, **{"sampling": {"max_tokens": 8}, **fields})
    await call.read()
    engine.runner.step(3)
    return call


def text(events: Sequence[Any]) -> str:
    return "".join(event.delta.text for event in events)


async def test_a_drain_that_hands_over_ends_streams_behind_all_that_was_computed(engine: ScriptedEngine) -> None:
    kept = await begun(engine, keeper="gateway-1")
    direct = await begun(engine, "direct")
    await engine.runner.entered(4)
    draining = asyncio.ensure_future(engine.drain(0.0, hands_over=True))
    await engine.cancelled(KEY)
    await engine.cancelled("local/direct")
    engine.runner.go()
    events, (code, reason) = await stream_of(kept)
    assert (code, reason) == HANDED_OVER[:2]
    assert not any(event.HasField("finished") or event.HasField("usage") for event in events)
    receipt = await engine.cancel("mine")
    assert receipt.cause == receipt_pb2.CANCEL_CAUSE_HANDOVER
    assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
    assert receipt.output_token_count == len(text(events)) >= 3
    assert (receipt.level, receipt.steps_after) == (receipt_pb2.CANCEL_LEVEL_FREED, 1)
    assert (await events_of(direct))[-2].finished.cancel_cause == receipt_pb2.CANCEL_CAUSE_DELETED
    drained = await draining
    assert (drained.finished_count, drained.cancelled_count, drained.handed_over_count) == (0, 1, 1)
    await engine.all_ended()


async def test_a_drain_that_does_not_hand_over_deletes(engine: ScriptedEngine) -> None:
    call = await begun(engine, keeper="gateway-1")
    draining = asyncio.ensure_future(engine.drain(0.0))
    await engine.cancelled(KEY)
    engine.runner.go()
    assert (await events_of(call))[-2].finished.cancel_cause == receipt_pb2.CANCEL_CAUSE_DELETED
    assert (await draining).handed_over_count == 0


async def test_what_ends_within_the_grace_is_not_handed_over(engine: ScriptedEngine) -> None:
    call = await begun(engine, keeper="gateway-1")
    stage = engine.lifecycle.stage
    draining = asyncio.ensure_future(engine.drain(30.0, hands_over=True))
    await engine.lifecycle.change_from(stage)
    engine.runner.go()
    assert text(await events_of(call)) == "abcdefgh"
    drained = await draining
    assert (drained.finished_count, drained.handed_over_count) == (1, 0)


async def test_an_orphan_is_handed_over_as_well_and_says_so_to_who_comes_for_it(engine: ScriptedEngine) -> None:
    call = await begun(engine, keeper="gateway-1")
    call.cancel()
    await engine.followed("mine", 0)
    draining = asyncio.ensure_future(engine.drain(0.0, hands_over=True))
    await engine.cancelled(KEY)
    engine.runner.go()
    assert (await draining).handed_over_count == 1
    attached = engine.attach("mine", {0: 1}, keeper="gateway-2", wants_kept=True)
    first = hop_pb2.KeptResponse.FromString((await attached.read()).SerializeToString())
    assert first.kept.generate.options.resume.choices[0].output_token_ids.ids == [ord("a")]
    events, (code, reason) = await stream_of(attached)
    assert (code, reason) == HANDED_OVER[:2]
    assert "abcdefgh"[1:].startswith(text(events))


async def test_another_engine_goes_on_and_nothing_is_lost_or_doubled(engine: ScriptedEngine) -> None:
    async with scripted_engine() as other:
        call = engine.generate(
            "a",
            request_id="mine",
            keeper="gateway-1",
            facts={"wants_kept": True},
            sampling={"max_tokens": 12, "n": 2, "seed": 4},
        )
        engine.runner.hold()
        first = hop_pb2.KeptResponse.FromString((await call.read()).SerializeToString())
        engine.runner.step(5)
        draining = asyncio.ensure_future(engine.drain(0.0, hands_over=True))
        await engine.cancelled(KEY)
        engine.runner.go()
        events, _ = await stream_of(call)
        await draining
        request = first.kept.generate
        for choice in range(2):
            ids = [token for event in events if event.delta.choice == choice for token in event.delta.token_ids]
            request.options.resume.choices.add(choice=choice).output_token_ids.ids.extend(ids)
        rest = await events_of(other.resume(request, attempt=2))
        assert rest[0].started.attempt == 2
        whole = [event.delta for event in [*events, *rest] if event.HasField("delta")]
        for choice, letters in enumerate(("abcdefghijkl", "bcdefghijklm")):
            assert "".join(delta.text for delta in whole if delta.choice == choice) == letters
        exactness = {event.finished.exactness for event in rest if event.HasField("finished")}
        assert exactness == {generation_pb2.EXACTNESS_EXACT}
        told = await events_of(other.attach("mine"))
        assert "".join(event.delta.text for event in told if event.delta.choice == 0) == "abcdefghijkl"


async def gone_on(engine: ScriptedEngine, other: ScriptedEngine, **fields: Any) -> Any:
    """Begins a request at one engine; returns its call at the other one, that goes on behind the first two tokens."""
    call = engine.generate("a", request_id="mine", keeper="gateway-1", facts={"wants_kept": True}, **fields)
    kept = hop_pb2.KeptResponse.FromString((await call.read()).SerializeToString()).kept
    await events_of(call)
    request = kept.generate
    request.echo = False  # it was told
    request.options.resume.choices.add(choice=0).output_token_ids.ids.extend(b"ab")
    return other.resume(request, attempt=2, keeper="gateway-1", words=kept.words, wants_kept=True)


@pytest.mark.parametrize("is_over", [False, True], ids=["while it runs", "when it has ended"])
async def test_a_call_that_is_repeated_follows_the_engine_that_goes_on(engine: ScriptedEngine, is_over: bool) -> None:
    fields: dict[str, Any] = {"sampling": {"max_tokens": 8, "seed": 4}, "options": {"priority": 1}}
    async with scripted_engine() as other:
        other.runner.hold()
        call = await gone_on(engine, other, **fields)
        other.runner.step()  # in which the text of what it goes on behind is read
        first = hop_pb2.KeptResponse.FromString((await call.read()).SerializeToString())
        if is_over:
            other.runner.go()
            assert text(await events_of(call)) == "cdefgh"
        again = other.generate("a", request_id="mine", facts={"wants_kept": True}, **fields)
        its_first = hop_pb2.KeptResponse.FromString((await again.read()).SerializeToString())
        assert (its_first.events[0].started.attempt, its_first.kept.words) == (2, first.kept.words)
        assert not its_first.kept.generate.options.resume.choices
        other.runner.go()
        events = await events_of(again)
        assert next(event.delta for event in events if event.HasField("delta")).first_position == 0
        assert text(events) == "abcdefgh"
        if not is_over:
            assert text(await events_of(call)) == "cdefgh"
        differing = other.generate("b", request_id="mine", **fields)
        assert (await refusal_of(differing))[1] == "REQUEST_EXISTS"


async def test_a_call_that_is_repeated_is_told_what_is_behind_its_own_output_however_far_the_next_engine_began(
    engine: ScriptedEngine,
) -> None:
    output = {"output_token_ids": {"ids": list(b"a")}}
    own = {"seed": 4, "fingerprint": "fingerprint of the script", "choices": [output]}
    fields: dict[str, Any] = {"sampling": {"max_tokens": 8}, "options": {"resume": own}}
    async with scripted_engine() as other:
        first = engine.generate("a", request_id="mine", keeper="gateway-1", facts={"wants_kept": True}, **fields)
        kept = hop_pb2.KeptResponse.FromString((await first.read()).SerializeToString()).kept
        assert text(await events_of(first)) == "bcdefgh"
        request = kept.generate
        request.options.resume.choices[0].output_token_ids.ids.extend(b"bc")
        goes_on = other.resume(request, attempt=2, keeper="gateway-1", words=kept.words)
        assert text(await events_of(goes_on)) == "defgh"
        events = await events_of(other.generate("a", request_id="mine", **fields))
        assert next(event.delta for event in events if event.HasField("delta")).first_position == 1
        assert text(events) == "bcdefgh"


async def test_a_call_that_is_repeated_behind_its_own_output_is_told_its_prompt_again(engine: ScriptedEngine) -> None:
    resume = {"choices": [{"output_token_ids": {"ids": list(b"ab")}}]}
    fields: dict[str, Any] = {"echo": True, "sampling": {"max_tokens": 4}, "options": {"resume": resume}}
    for _ in range(2):
        events = await events_of(engine.generate("a", request_id="mine", **fields))
        kinds = [event.WhichOneof("event") for event in events]
        assert kinds == ["started", "prompt", *["delta"] * kinds.count("delta"), "finished", "usage"]
        assert text(events) == "cd"


async def test_a_call_is_not_repeated_where_its_prompt_is_not_told_any_more(engine: ScriptedEngine) -> None:
    fields: dict[str, Any] = {"echo": True, "sampling": {"max_tokens": 8, "seed": 4}}
    async with scripted_engine() as other:
        assert text(await events_of(await gone_on(engine, other, **fields))) == "cdefgh"
        again = other.generate("a", request_id="mine", **fields)
        assert (await refusal_of(again))[1] == "REQUEST_EXISTS"
        assert text(await events_of(other.attach("mine"))) == "abcdefgh"


async def test_keepers_that_go_on_from_different_places_do_not_repeat_each_other(engine: ScriptedEngine) -> None:
    async with scripted_engine() as other:
        call = await gone_on(engine, other, sampling={"max_tokens": 8, "seed": 4})
        request = hop_pb2.KeptResponse.FromString((await call.read()).SerializeToString()).kept
        request.generate.options.resume.choices[0].output_token_ids.ids.append(ord("c"))
        late = other.resume(request.generate, attempt=2, keeper="gateway-2", words=request.words)
        assert (await refusal_of(late))[1] == "REQUEST_EXISTS"
        assert text(await events_of(other.attach("mine", {0: 3}, keeper="gateway-2"))) == "defgh"
        await events_of(call)


async def test_a_higher_attempt_ends_a_lower_one(engine: ScriptedEngine) -> None:
    call = await begun(engine, keeper="gateway-1")
    await engine.runner.entered(4)
    resume = {"choices": [{"output_token_ids": {"ids": list(b"ab")}}], "seed": 1}
    again = engine.generate(
        "a",
        request_id="mine",
        keeper="gateway-2",
        facts={"attempt": 2},
        sampling={"max_tokens": 8},
        options={"resume": resume},
    )
    reading = asyncio.ensure_future(events_of(again))
    await engine.cancelled(KEY)
    engine.runner.go()
    assert (await refusal_of(call)) == HANDED_OVER
    events = await reading
    assert (events[0].started.attempt, text(events)) == (2, "cdefgh")
    assert (await engine.cancel("mine")).attempt == 2
    await engine.all_ended()


async def test_a_lower_attempt_with_other_words_is_refused_and_disturbs_nothing(engine: ScriptedEngine) -> None:
    call = await begun(engine, keeper="gateway-2", facts={"attempt": 2})
    for attempt in (1, 2):
        late = engine.generate("b", request_id="mine", keeper="gateway-1", facts={"attempt": attempt})
        assert (await refusal_of(late))[1] == "REQUEST_EXISTS"
    engine.runner.go()
    assert text(await events_of(call)) == "abcdefgh"


async def test_a_higher_attempt_that_is_refused_disturbs_nothing(engine: ScriptedEngine) -> None:
    call = await begun(engine, keeper="gateway-1")
    fields: dict[str, Any] = {"request_id": "mine", "facts": {"attempt": 2}}
    assert (await refusal_of(engine.generate("a", sampling={"top_p": 2}, **fields)))[1] == "FIELD_INVALID"
    resume = {"fingerprint": "another"}
    assert (await refusal_of(engine.generate("a", options={"resume": resume}, **fields)))[1] == "FINGERPRINT_DIFFERS"
    stage = engine.lifecycle.stage
    draining = asyncio.ensure_future(engine.drain(30.0))
    await engine.lifecycle.change_from(stage)
    assert (await refusal_of(engine.generate("a", **fields)))[1] == "DRAINING"
    engine.runner.go()
    assert text(await events_of(call)) == "abcdefgh"
    assert (await draining).finished_count == 1


async def test_a_request_may_come_back_to_an_engine_where_it_has_ended(engine: ScriptedEngine) -> None:
    fields: dict[str, Any] = {"request_id": "mine", "sampling": {"max_tokens": 8}}
    assert await text_of(engine.generate("a", **fields)) == "abcdefgh"
    resume = {"choices": [{"output_token_ids": {"ids": list(b"abcdef")}}]}
    again = engine.generate("a", facts={"attempt": 3}, options={"resume": resume}, **fields)
    assert await text_of(again) == "gh"
    attached = await events_of(engine.attach("mine"))
    assert (attached[0].started.attempt, text(attached)) == (3, "abcdefgh")
    assert (await engine.get("mine")).attempt == 3
    assert (await refusal_of(engine.generate("b", facts={"attempt": 2}, **fields)))[1] == "REQUEST_EXISTS"


async def test_a_request_that_its_client_has_cancelled_does_not_come_back(engine: ScriptedEngine) -> None:
    call = await begun(engine)
    asking = asyncio.ensure_future(engine.cancel("mine"))
    await engine.cancelled(KEY)
    engine.runner.go()
    await asking
    await events_of(call)
    again = engine.generate("a", request_id="mine", facts={"attempt": 2})
    assert (await refusal_of(again))[:2] == (grpc.StatusCode.ABORTED, "REQUEST_TOMBSTONED")


async def test_an_attempt_whose_step_hangs_keeps_the_next_one_out() -> None:
    async with scripted_engine(memory=Memory(receipt_wait_s=0.05)) as engine:
        call = await begun(engine, keeper="gateway-1")
        async with cancelling(call):
            await engine.runner.entered(4)
            again = engine.generate("a", request_id="mine", facts={"attempt": 2})
            assert (await refusal_of(again))[0] is grpc.StatusCode.UNAVAILABLE
            engine.runner.go()


TOMBSTONED = (grpc.StatusCode.ABORTED, "REQUEST_TOMBSTONED")


@pytest.mark.parametrize("cause", ["HANDOVER", "ORPHANED"])
async def test_what_its_client_cancels_after_it_was_given_up_does_not_come_back(cause: str) -> None:
    async with scripted_engine(orphan_s=0.05) as engine:
        call = await begun(engine, keeper="gateway-1", facts={"attempt": 2})
        if cause == "ORPHANED":
            call.cancel()
            await engine.cancelled(KEY)
            engine.runner.go()
            await engine.all_ended()
        else:
            third = engine.generate("a", request_id="mine", facts={"attempt": 3}, sampling={"max_tokens": 40_000})
            assert (await asyncio.gather(refusal_of(third), handed_over(engine)))[0][1] == "PROMPT_TOO_LONG"
        first = await engine.cancel("mine")
        assert first.cause == getattr(receipt_pb2, f"CANCEL_CAUSE_{cause}")
        assert await engine.cancel("mine") == first
        for attempt in (3, 4):
            again = engine.generate("a", request_id="mine", keeper="gateway-2", facts={"attempt": attempt})
            assert (await refusal_of(again))[:2] == TOMBSTONED
        assert (await engine.get("mine")).receipt == first


async def handed_over(engine: ScriptedEngine) -> None:
    """Lets the step end once the request has been given up."""
    await engine.cancelled(KEY)
    engine.runner.go()
    await engine.all_ended()


@pytest.mark.parametrize("max_tokens", [8, 4], ids=["which goes on", "which ends by itself meanwhile"])
async def test_a_client_that_cancels_while_an_attempt_is_given_up_for_the_next_ends_both(
    engine: ScriptedEngine, max_tokens: int
) -> None:
    call = await begun(engine, keeper="gateway-1", sampling={"max_tokens": max_tokens})
    await engine.runner.entered(4)
    again = engine.generate("a", request_id="mine", keeper="gateway-2", facts={"attempt": 2})
    refused = asyncio.ensure_future(refusal_of(again))
    await engine.cancelled(KEY)
    asking = asyncio.ensure_future(engine.cancel("mine"))
    await engine.asked("mine")
    engine.runner.go()
    assert (await refused)[:2] == TOMBSTONED
    receipt = await asking
    assert (receipt.outcome, receipt.attempt) == (receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED, 1)
    assert (await engine.cancel("mine")) == receipt
    call.cancel()
    await engine.all_ended()
