"""What a resumed run promises, and what a keeper is given so that it can be resumed at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
import pytest_asyncio

from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.channel import cancelling
from roundhouse.v1 import generation_pb2
from tests.support.scripted_engine import ScriptedEngine, events_of, hop, refusal_of, scripted_engine
from tests.support.scripted_model import CharacterGrammars

EXACT, APPROXIMATE = generation_pb2.EXACTNESS_EXACT, generation_pb2.EXACTNESS_APPROXIMATE
DIFFERS: tuple[object, ...] = (grpc.StatusCode.FAILED_PRECONDITION, "FINGERPRINT_DIFFERS", [])
OWN, OTHER = "fingerprint of the script", "fingerprint of another"
POLICIES = {
    "": "FAILOVER_POLICY_UNSPECIFIED",
    "exact": "FAILOVER_POLICY_EXACT_ONLY",
    "any": "FAILOVER_POLICY_APPROXIMATE_OK",
}


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine() as it:
        yield it


def output(choice: int, text: str) -> dict[str, Any]:
    return {"choice": choice, "output_token_ids": {"ids": list(map(ord, text))}}


def exactness_of(events: Sequence[Any]) -> int:
    [told] = {event.finished.exactness for event in events if event.HasField("finished")}
    return int(told)


async def kept_of(call: Any) -> Any:
    """Reads the first message of a keeper's call, and returns what it is to keep."""
    first = hop_pb2.KeptResponse.FromString((await call.read()).SerializeToString())
    assert first.events[0].HasField("started")
    return first.kept


@pytest.mark.parametrize(
    ("fingerprint", "given", "is_invariant", "policy", "told"),
    [
        pytest.param(OWN, "ab", True, "", EXACT, id="the same engine"),
        pytest.param(OWN, "ab", True, "any", EXACT, id="the same engine, though another would do"),
        pytest.param(OWN, "ab", False, "", None, id="one whose tokens depend on others"),
        pytest.param(OWN, "ab", False, "any", APPROXIMATE, id="one whose tokens depend on others will do"),
        pytest.param(OWN, "", False, "", EXACT, id="one whose tokens depend on others, from the beginning"),
        pytest.param(OTHER, "ab", True, "", None, id="another engine"),
        pytest.param(OTHER, "ab", True, "exact", None, id="another engine, and only an exact one will do"),
        pytest.param(OTHER, "ab", True, "any", APPROXIMATE, id="another engine will do"),
        pytest.param(OTHER, "", True, "", None, id="another engine, from the beginning"),
        pytest.param("", "ab", True, "", APPROXIMATE, id="an unknown engine"),
        pytest.param("", "ab", True, "exact", APPROXIMATE, id="an unknown engine, though only an exact one will do"),
    ],
)
async def test_a_run_goes_on_only_where_it_may_and_says_what_it_is(
    fingerprint: str, given: str, is_invariant: bool, policy: str, told: int | None
) -> None:
    async with scripted_engine(is_batch_invariant=is_invariant) as engine:
        resume = {"fingerprint": fingerprint, "choices": [output(0, given)]}
        options = {"resume": resume, "failover": POLICIES[policy]}
        call = engine.generate("a", request_id="mine", sampling={"max_tokens": 5}, options=options)
        if told is None:
            assert await refusal_of(call) == DIFFERS
            assert engine.requests.live == ()
        else:
            assert exactness_of(await events_of(call)) == told


async def test_another_tokenizer_will_never_do(engine: ScriptedEngine) -> None:
    for tokenizer in ("one id for each character", "another"):
        resume = {"fingerprint": OWN, "tokenizer_fingerprint": tokenizer, "choices": [output(0, "ab")]}
        options = {"resume": resume, "failover": POLICIES["any"]}
        call = engine.generate("a", sampling={"max_tokens": 5}, options=options)
        if tokenizer == "another":
            assert await refusal_of(call) == DIFFERS
        else:
            events = await events_of(call)
            assert events[0].started.tokenizer_fingerprint == tokenizer


async def test_what_may_differ_once_is_exact_nowhere_any_more(engine: ScriptedEngine) -> None:
    async with scripted_engine(fingerprint=OTHER) as other:
        keeper: dict[str, Any] = {"keeper": "gateway-1", "wants_kept": True}
        fields: dict[str, Any] = {"sampling": {"max_tokens": 9}, "options": {"failover": POLICIES["any"]}}
        first = engine.generate("a", request_id="mine", keeper="gateway-1", facts={"wants_kept": True}, **fields)
        async with cancelling(first):
            request = (await kept_of(first)).generate
        assert request.options.resume.fingerprint == OWN
        request.options.resume.choices.add().output_token_ids.ids.extend(b"ab")
        second = other.resume(request, attempt=2, **keeper)
        again = (await kept_of(second)).generate
        assert exactness_of(await events_of(second)) == APPROXIMATE
        assert again.options.resume.fingerprint not in (OWN, OTHER, "")
        assert again.options.resume.choices[0].output_token_ids.ids == list(b"ab")
        third = engine.resume(again, attempt=3, **keeper)
        last = (await kept_of(third)).generate
        assert exactness_of(await events_of(third)) == APPROXIMATE
        assert last.options.resume.fingerprint == again.options.resume.fingerprint
        last.options.failover = generation_pb2.FAILOVER_POLICY_EXACT_ONLY
        assert await refusal_of(engine.resume(last, attempt=4)) == DIFFERS


async def test_a_keeper_is_given_all_that_it_takes_to_go_on(engine: ScriptedEngine) -> None:
    fields: dict[str, Any] = {
        "echo": True,
        "sampling": {"max_tokens": 9, "n": 2, "stop": ["zz"], "logit_bias": {9: 1.0}},
        "options": {"priority": 3, "labels": {"team": "blue"}, "max_duration": {"seconds": 20}, "failover": 2},
    }
    engine.runner.hold()
    call = engine.generate("abc", request_id="mine", keeper="gateway-1", facts={"wants_kept": True}, **fields)
    async with cancelling(call):
        request = (await kept_of(call)).generate
        engine.runner.step()
        told = 0
        while told < 2:
            told += len((await call.read()).events)
        attached = engine.attach("mine", {1: 1}, keeper="gateway-2", wants_kept=True)
        async with cancelling(attached):
            later = (await kept_of(attached)).generate
        engine.runner.go()
    assert (request.deployment, request.request_id, request.echo, len(request.prompt)) == ("chat", "mine", True, 0)
    assert (request.sampling.n, list(request.sampling.stop), request.sampling.logit_bias[9]) == (2, ["zz"], 1.0)
    assert (request.options.priority, request.options.labels["team"], request.options.failover) == (3, "blue", 2)
    assert 10 < request.options.max_duration.ToSeconds() + request.options.max_duration.nanos / 1e9 < 20
    resume = request.options.resume
    assert list(resume.prompt_token_ids.ids) == [1, *map(ord, "abc")]
    assert (resume.fingerprint, resume.tokenizer_fingerprint) == (OWN, "one id for each character")
    assert not resume.choices
    assert [(each.choice, list(each.output_token_ids.ids)) for each in later.options.resume.choices] == [
        (1, [ord("d")])
    ]
    assert later.options.resume.seed == resume.seed
    assert later.options.max_duration.ToNanoseconds() <= request.options.max_duration.ToNanoseconds()


DETACHES = {"on_disconnect": {"policy": "DISCONNECT_POLICY_DETACH"}}


@pytest.mark.parametrize(
    ("timeout", "options", "most_s"),
    [
        pytest.param(20.0, {}, 20, id="its call"),
        pytest.param(20.0, {"max_duration": {"seconds": 10}}, 10, id="its own wish, within its call"),
        pytest.param(20.0, {"max_duration": {"seconds": 300}}, 20, id="its call, within its own wish"),
        pytest.param(20.0, {"max_duration": {"seconds": 300}, **DETACHES}, 300, id="its own wish, if it detaches"),
        pytest.param(20.0, DETACHES, None, id="nothing, if it detaches"),
        pytest.param(None, {}, None, id="nothing"),
    ],
)
async def test_who_goes_on_is_bounded_by_what_bounded_the_first(
    engine: ScriptedEngine, timeout: float | None, options: Any, most_s: float | None
) -> None:
    engine.runner.hold()
    fields: dict[str, Any] = {"sampling": {"max_tokens": 3}, "options": options, "keeper": "gateway-1"}
    call = engine.generate("a", request_id="mine", timeout=timeout, **fields)
    await call.read()
    attached = engine.attach("mine", keeper="gateway-2", wants_kept=True, timeout=60.0)
    kept = (await kept_of(attached)).generate.options
    engine.runner.go()
    await events_of(attached)
    await events_of(call)
    assert kept.HasField("max_duration") == (most_s is not None)
    if most_s is not None:
        left_s = kept.max_duration.ToMilliseconds() / 1000
        assert most_s / 2 < left_s < most_s * 1.05  # gRPC rounds a timeout up on its way


async def test_a_conversation_is_kept_as_one(engine: ScriptedEngine) -> None:
    messages = [{"role": "ROLE_USER", "content": [{"text": "hi"}]}]
    call = engine.chat(messages=messages, sampling={"max_tokens": 3}, facts={"wants_kept": True})
    kept = await kept_of(call)
    await events_of(call)
    assert kept.WhichOneof("request") == "chat"
    assert not kept.chat.messages
    assert "".join(map(chr, kept.chat.options.resume.prompt_token_ids.ids)) == "user:hi;"
    kept.chat.request_id = "again"
    assert exactness_of(await events_of(engine.inference.Chat(kept.chat, metadata=hop()))) == EXACT


async def test_what_is_kept_has_no_gap_before_what_is_told(engine: ScriptedEngine) -> None:
    engine.runner.hold()
    call = engine.generate("a", request_id="mine", keeper="gateway-1", sampling={"max_tokens": 9})
    await call.read()
    attached = engine.attach("mine", {0: 3}, keeper="gateway-2", wants_kept=True)
    reading = asyncio.ensure_future(kept_of(attached))
    await engine.followed("mine", 2)
    engine.runner.go()
    request = (await reading).generate
    assert request.options.resume.choices[0].output_token_ids.ids == list(b"abc")
    deltas = [event.delta for event in await events_of(attached) if event.HasField("delta")]
    assert (deltas[0].first_position, "".join(delta.text for delta in deltas)) == (3, "defghi")
    await events_of(call)


async def test_what_is_kept_of_the_best_of_several_has_no_gap_either(engine: ScriptedEngine) -> None:
    engine.runner.hold()
    sampling = {"n": 2, "best_of": 4, "max_tokens": 5}
    call = engine.generate("a", request_id="mine", keeper="gateway-1", facts={"wants_kept": True}, sampling=sampling)
    assert not (await kept_of(call)).generate.options.resume.choices  # at once, as nothing lies before it
    engine.runner.step(2)
    await engine.runner.entered(3)
    attached = engine.attach("mine", {0: 1, 1: 3}, keeper="gateway-2", wants_kept=True)
    reading = asyncio.ensure_future(kept_of(attached))
    await engine.followed("mine", 2)
    engine.runner.go()
    choices = (await reading).generate.options.resume.choices
    ids = {each.choice: list(each.output_token_ids.ids) for each in choices}
    deltas = [event.delta for event in await events_of(attached) if event.HasField("delta")]
    for delta in deltas:
        assert delta.first_position == len(ids[delta.choice])
        ids[delta.choice] += delta.token_ids
    whole = [event.delta for event in await events_of(call) if event.HasField("delta")]
    assert ids == {choice: [t for each in whole if each.choice == choice for t in each.token_ids] for choice in (0, 1)}


async def test_the_best_of_several_may_begin_again(engine: ScriptedEngine) -> None:
    sampling = {"n": 1, "best_of": 3, "max_tokens": 4, "seed": 5}
    call = engine.generate("a", request_id="mine", keeper="gateway-1", facts={"wants_kept": True}, sampling=sampling)
    request = (await kept_of(call)).generate
    whole = await events_of(call)
    assert not request.options.resume.choices
    again = await events_of(engine.resume(request, attempt=2))
    assert [event.finished for event in again if event.HasField("finished")] == [
        event.finished for event in whole if event.HasField("finished")
    ]


@pytest.mark.parametrize("fingerprint", [OWN, OTHER])
async def test_the_best_of_several_begins_again_only_where_it_comes_out_the_same(
    engine: ScriptedEngine, fingerprint: str
) -> None:
    sampling = {"n": 1, "best_of": 3, "max_tokens": 4}
    resume = {"seed": 5, "fingerprint": fingerprint, "tokenizer_fingerprint": "one id for each character"}
    call = engine.generate("a", sampling=sampling, options={"resume": resume})
    if fingerprint == OWN:
        assert exactness_of(await events_of(call)) == EXACT
    else:
        assert await refusal_of(call) == DIFFERS


@pytest.mark.parametrize("given", ["", "ab", "abc"], ids=["nothing", "a part", "all"])
async def test_who_goes_on_serves_the_output_from_its_beginning(engine: ScriptedEngine, given: str) -> None:
    resume = {"fingerprint": OWN, "choices": [output(0, given)]}
    call = engine.generate("a", request_id="mine", sampling={"max_tokens": 3}, options={"resume": resume})
    assert "".join(event.delta.text for event in await events_of(call)) == "abc"[len(given) :]
    assert "".join(event.delta.text for event in await events_of(engine.attach("mine"))) == "abc"
    assert "".join(event.delta.text for event in await events_of(engine.attach("mine", {0: 1}))) == "bc"


async def test_logprobs_of_what_was_given_are_not_there(engine: ScriptedEngine) -> None:
    resume = {"fingerprint": OWN, "choices": [output(0, "ab")]}
    sampling = {"max_tokens": 4, "logprobs": 1}
    await events_of(engine.generate("a", request_id="mine", sampling=sampling, options={"resume": resume}))
    refusal = await refusal_of(engine.attach("mine"))
    assert refusal == (grpc.StatusCode.OUT_OF_RANGE, "POSITION_DROPPED", [])
    [delta] = [event.delta for event in await events_of(engine.attach("mine", {0: 2})) if event.HasField("delta")]
    assert (delta.text, len(delta.logprobs)) == ("cd", 2)


async def test_a_form_is_kept_with_its_request() -> None:
    async with scripted_engine(grammars=CharacterGrammars()) as engine:
        sampling = {"constraint": {"choice": {"texts": ["yes", "no"]}}}
        call = engine.generate("y", request_id="mine", facts={"wants_kept": True}, sampling=sampling)
        request = (await kept_of(call)).generate
        await events_of(call)
        request.options.resume.choices.add().output_token_ids.ids.extend(b"y")
        events = await events_of(engine.resume(request, attempt=2))
        assert "".join(event.delta.text for event in events) == "es"
        assert exactness_of(events) == EXACT
