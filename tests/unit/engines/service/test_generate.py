"""What a stream holds: started, deltas without gap or overlap, finished, usage."""

import asyncio
import base64
import hashlib
import struct
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
import pytest_asyncio

from engines.service.beside import QUICK
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.channel import cancelling
from roundhouse.kit.status import error_of
from roundhouse.v1 import generation_pb2
from tests.support.scripted_engine import (
    CONTEXT_TOKENS,
    IDENTITY,
    ScriptedEngine,
    events_of,
    messages_of,
    refusal_of,
    scripted_engine,
    text_of,
)
from tests.support.scripted_model import END_TOKEN, alphabet


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine() as it:
        yield it


def ids_of(events: Sequence[Any]) -> list[int]:
    """Returns the token ids of a stream, having checked that positions have neither gap nor overlap."""
    ids: list[int] = []
    for event in events:
        if event.HasField("delta"):
            assert event.delta.first_position == len(ids)
            assert event.delta.channel == generation_pb2.CHANNEL_CONTENT
            ids += event.delta.token_ids
    return ids


def kinds_of(events: Sequence[Any]) -> list[str]:
    kinds = [event.WhichOneof("event") for event in events]
    return [kind for number, kind in enumerate(kinds) if kind != "delta" or kinds[number - 1] != "delta"]


async def test_a_stream_is_started_deltas_finished_and_usage(engine: ScriptedEngine) -> None:
    events = await events_of(engine.generate("a", sampling={"max_tokens": 5, "seed": 42}))
    assert kinds_of(events) == ["started", "delta", "finished", "usage"]
    assert ids_of(events) == [ord(each) for each in "abcde"]
    started, finished, usage = events[0].started, events[-2].finished, events[-1].usage
    assert (started.seed, started.fingerprint, started.attempt) == (42, "fingerprint of the script", 1)
    assert (started.prompt_token_count, started.replica) == (
        2,
        "deployments/chat/replicas/0",
    )  # a special token before it
    assert finished.reason == generation_pb2.FINISH_REASON_LENGTH
    assert finished.exactness == generation_pb2.EXACTNESS_EXACT
    assert (finished.output_token_count, usage.output_token_count, usage.prompt_token_count) == (5, 5, 2)
    queue_s, first_s, total_s = (
        each.ToNanoseconds() for each in (usage.queue_duration, usage.first_token_duration, usage.total_duration)
    )
    assert 0 < queue_s <= first_s <= total_s


async def test_a_call_without_a_deadline_is_served(engine: ScriptedEngine) -> None:
    assert await text_of(engine.generate("a", sampling={"max_tokens": 2}, timeout=None)) == "ab"


async def test_the_initial_metadata_names_the_request_and_hides_the_key(engine: ScriptedEngine) -> None:
    call = engine.generate(request_id="mine", sampling={"max_tokens": 1})
    events = await events_of(call)
    metadata = dict(list(await call.initial_metadata()))
    started = events[0].started
    assert metadata["roundhouse-request-id"] == started.request_id == "mine"
    assert metadata["roundhouse-location"] == started.location
    packed = base64.urlsafe_b64decode(started.location + "=" * (-len(started.location) % 4))
    assert hop_pb2.Location.FromString(packed) == hop_pb2.Location(
        replica_uid=IDENTITY.replica_uid, engine_uuid=IDENTITY.engine_uuid, attempt=1
    )


async def test_an_id_and_a_seed_are_drawn_if_none_is_given(engine: ScriptedEngine) -> None:
    starts = [(await events_of(engine.generate(sampling={"max_tokens": 1})))[0].started for _ in range(2)]
    assert len({start.request_id for start in starts} | {start.seed for start in starts}) == 4


async def test_the_token_hash_is_the_chain_of_the_contract(engine: ScriptedEngine) -> None:
    events = await events_of(engine.generate("x", sampling={"max_tokens": 3}))
    chain = bytes(32)
    for token in ids_of(events):
        chain = hashlib.sha256(chain + struct.pack("<i", token)).digest()
    assert events[-2].finished.token_hash == chain


async def test_unset_sampling_takes_the_models_own_and_the_rest_of_the_context(engine: ScriptedEngine) -> None:
    engine.runner.hold()
    call = engine.generate(request_id="mine")
    async with cancelling(call):
        await engine.runner.entered(1)
        [run] = engine.requests.live
        work = engine.runner.works[run.key]
        engine.runner.go()
    assert (work.sampling.temperature, work.sampling.top_p, work.sampling.top_k) == (0.7, 0.9, 5)
    assert work.max_tokens == CONTEXT_TOKENS - len("\x01abc")
    assert work.stop_token_ids == {END_TOKEN}


async def test_parts_are_joined_in_order_and_special_tokens_come_once(engine: ScriptedEngine) -> None:
    parts = [{"text": "a"}, {"text": "b"}, {"token_ids": {"ids": [3, 4]}}, {"token_ids": {"ids": [5]}}, {"text": "c"}]
    events = await events_of(engine.generate(request_id="mine", prompt=parts, sampling={"max_tokens": 1}))
    assert events[0].started.prompt_token_count == 7
    assert engine.runner.works["local/mine"].prompt == (1, ord("a"), ord("b"), 3, 4, 5, ord("c"))


async def test_a_chat_is_written_by_the_template(engine: ScriptedEngine) -> None:
    messages = [
        {"role": "ROLE_SYSTEM", "content": [{"text": "be"}, {"text": " kind"}]},
        {"role": "ROLE_USER", "content": [{"text": "hi"}]},
    ]
    assert await text_of(engine.chat(request_id="mine", messages=messages, sampling={"max_tokens": 2})) == "ab"
    prompt = engine.runner.works["local/mine"].prompt
    assert "".join(map(chr, prompt)) == "system:be kind;user:hi;"


async def test_a_chat_without_a_template_is_refused() -> None:
    async with scripted_engine(has_chat_template=False) as engine:
        messages = [{"role": "ROLE_USER", "content": [{"text": "hi"}]}]
        code, _, _ = await refusal_of(engine.chat(messages=messages))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert await text_of(engine.generate("a", sampling={"max_tokens": 2})) == "ab"


async def test_an_end_token_ends_the_output_unless_it_is_ignored() -> None:
    async with scripted_engine(lambda prompt, position: END_TOKEN if position == 2 else ord("x")) as engine:
        events = await events_of(engine.generate(sampling={"max_tokens": 4}))
        finished = events[-2].finished
        assert (finished.reason, finished.matched_token_id) == (generation_pb2.FINISH_REASON_STOP_TOKEN, END_TOKEN)
        assert finished.output_token_count == len(ids_of(events)) == 3
        events = await events_of(engine.generate(sampling={"max_tokens": 4, "ignore_eos": True}))
        assert events[-2].finished.output_token_count == 4


async def test_a_stop_text_and_what_follows_it_are_not_sent(engine: ScriptedEngine) -> None:
    events = await events_of(engine.generate("a", sampling={"stop": ["cd"]}))
    assert "".join(event.delta.text for event in events) == "ab"
    assert events[-2].finished.reason == generation_pb2.FINISH_REASON_STOP_STRING
    assert events[-2].finished.matched_stop == "cd"


async def test_text_that_was_held_back_is_sent_with_the_last_token(engine: ScriptedEngine) -> None:
    events = await events_of(engine.generate("a", sampling={"stop": ["cx"], "max_tokens": 3}))
    assert "".join(event.delta.text for event in events) == "abc"
    assert ids_of(events) == [ord(each) for each in "abc"]
    assert all(event.delta.token_ids for event in events if event.HasField("delta")), "text has no position of its own"


@pytest.mark.parametrize(
    ("prompt_tokens", "max_tokens", "fits"),
    [
        pytest.param(CONTEXT_TOKENS - 1, None, True, id="room for one token"),
        pytest.param(CONTEXT_TOKENS - 1, 1, True, id="room for the one asked for"),
        pytest.param(CONTEXT_TOKENS - 1, 2, False, id="more asked for than there is room"),
        pytest.param(CONTEXT_TOKENS, None, False, id="no room"),
        pytest.param(CONTEXT_TOKENS + 1, 1, False, id="longer than the context"),
    ],
)
async def test_what_does_not_fit_the_context_is_refused_with_the_numbers(
    engine: ScriptedEngine, prompt_tokens: int, max_tokens: int | None, fits: bool
) -> None:
    prompt = [{"token_ids": {"ids": [5] * prompt_tokens}}]
    call = engine.generate(prompt=prompt, sampling={} if max_tokens is None else {"max_tokens": max_tokens})
    if fits:
        assert len(ids_of(await events_of(call))) == 1
        return
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await events_of(call)
    error = error_of(raised.value)
    assert raised.value.code() is grpc.StatusCode.OUT_OF_RANGE
    assert error.metadata["prompt_tokens"] == str(prompt_tokens)
    assert error.metadata["context_tokens"] == str(CONTEXT_TOKENS)
    await engine.all_ended()


async def test_a_long_prompt_is_tokenized_beside_the_event_loop(engine: ScriptedEngine) -> None:
    await events_of(engine.generate("short", sampling={"max_tokens": 1}))
    assert engine.tokenizer.threads == {threading.get_ident()}
    await events_of(engine.generate("x" * 5000, sampling={"max_tokens": 1}))
    assert len(engine.tokenizer.threads) == 2


async def test_a_request_id_in_use_or_lately_used_is_refused(engine: ScriptedEngine) -> None:
    refusal: tuple[object, ...] = (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_EXISTS", [])
    engine.runner.hold()
    call = engine.generate(request_id="mine", sampling={"max_tokens": 2})
    async with cancelling(call):
        await engine.runner.entered(1)
        assert await refusal_of(engine.generate(request_id="mine")) == refusal
        engine.runner.go()
        assert len(ids_of(await events_of(call))) == 2
    assert await refusal_of(engine.generate(request_id="mine")) == refusal


async def test_another_principal_may_use_the_same_id(engine: ScriptedEngine) -> None:
    await events_of(engine.generate(request_id="mine", sampling={"max_tokens": 1}))
    call = engine.generate(request_id="mine", sampling={"max_tokens": 1}, principal="other")
    assert len(ids_of(await events_of(call))) == 1


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    async with scripted_engine(batch_size=1, max_waiting=1) as engine:
        engine.runner.hold()
        running = engine.generate(sampling={"max_tokens": 1})
        await running.read()
        await engine.runner.entered(1)
        waiting = engine.generate(sampling={"max_tokens": 1})
        async with cancelling(running), cancelling(waiting):
            await waiting.read()
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await events_of(engine.generate())
            error = error_of(raised.value)
            assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert error.retry_after_s is not None
            engine.runner.go()
        await engine.all_ended()


async def test_requests_whose_prompts_are_being_tokenized_count_as_well() -> None:
    async with scripted_engine(batch_size=1, max_waiting=1) as engine:
        engine.tokenizer.hold()
        long = [engine.generate("x" * (QUICK + 1), sampling={"max_tokens": 1}) for _ in range(2)]
        async with cancelling(long[0]), cancelling(long[1]):
            await engine.tokenizer.entered(2)
            code, reason, _ = await refusal_of(engine.generate())
            assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
            engine.tokenizer.go()
        await engine.all_ended()


async def test_a_reader_that_is_behind_gets_many_tokens_in_one_message(engine: ScriptedEngine) -> None:
    count = 2000
    engine.runner.hold()
    call = engine.generate("a", sampling={"max_tokens": count})
    async with cancelling(call):
        started = await call.read()
        # While the event loop stands still, steps go on: whatever they give has to be joined.
        engine.runner.go()
        [run] = engine.requests.live
        engine.runner.wait_entered(count)
        messages = await messages_of(call)
        assert run.ended.done()
    events = [event for response in [started, *messages] for event in response.events]
    assert ids_of(events) == [alphabet([ord("a")], position) for position in range(count)]
    assert len(messages) < 20


async def test_a_failing_sequence_fails_alone() -> None:
    def script(prompt: Sequence[int], position: int) -> int | Exception:
        return ValueError("no finite logit") if prompt[-1] == ord("z") and position == 3 else alphabet(prompt, position)

    async with scripted_engine(script) as engine:
        sampling = {"max_tokens": 20}
        calls = [engine.generate(last, sampling=sampling) for last in "azm"]
        first, failed, third = await asyncio.gather(*map(text_of, calls), return_exceptions=True)
        assert first == "abcdefghijklmnopqrst"
        assert third == "mnopqrstuvwxyzabcdef"
        assert isinstance(failed, grpc.aio.AioRpcError)
        assert failed.code() is grpc.StatusCode.INTERNAL
        assert "logit" not in str(failed.details())
        await engine.all_ended()


async def test_many_streams_each_get_their_own_tokens(engine: ScriptedEngine) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz" * 3
    calls = [engine.generate(letter, sampling={"max_tokens": 60 + number}) for number, letter in enumerate(letters)]
    streams = await asyncio.gather(*map(events_of, calls))
    for number, (letter, events) in enumerate(zip(letters, streams, strict=True)):
        assert ids_of(events) == [alphabet([ord(letter)], position) for position in range(60 + number)]
    await engine.all_ended()
