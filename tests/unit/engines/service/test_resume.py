"""Going on behind output that exists already, as if it had been given here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from roundhouse.v1 import generation_pb2
from tests.support.scripted_engine import CONTEXT_TOKENS, ScriptedEngine, events_of, refusal_of, scripted_engine
from tests.support.scripted_model import CharacterGrammars


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine(grammars=CharacterGrammars()) as it:
        yield it


def output(choice: int, text: str) -> dict[str, Any]:
    return {"choice": choice, "output_token_ids": {"ids": list(map(ord, text))}}


def finished_of(events: Sequence[Any]) -> dict[int, Any]:
    return {event.finished.choice: event.finished for event in events if event.HasField("finished")}


def text_of(events: Sequence[Any], choice: int = 0) -> str:
    return "".join(event.delta.text for event in events if event.delta.choice == choice)


async def test_the_rest_of_an_output_is_what_it_would_have_been(engine: ScriptedEngine) -> None:
    sampling = {"max_tokens": 10, "n": 2}
    whole = await events_of(engine.generate("a", sampling={**sampling, "seed": 5}))
    resume = {"seed": 5, "choices": [output(1, "bcd")], "fingerprint": whole[0].started.fingerprint}
    rest = await events_of(engine.generate("a", request_id="mine", sampling=sampling, options={"resume": resume}))
    assert rest[0].started.seed == 5
    assert (text_of(rest, 0), text_of(rest, 1)) == ("abcdefghij", "efghijk")
    [first, *_] = [event.delta for event in rest if event.HasField("delta") and event.delta.choice == 1]
    assert first.first_position == 3
    for choice, finished in finished_of(whole).items():
        assert finished_of(rest)[choice] == finished
    assert rest[-1].usage.output_token_count == 20
    assert engine.runner.works["local/mine/1"].output == tuple(map(ord, "bcd"))
    await engine.all_ended()


@pytest.mark.parametrize("method", ["generate", "chat"])
async def test_a_prompt_may_come_as_the_first_engine_saw_it(engine: ScriptedEngine, method: str) -> None:
    resume = {"prompt_token_ids": {"ids": [7, ord("k")]}, "choices": [output(0, "kl")]}
    fields: dict[str, Any] = {"prompt": []} if method == "generate" else {}
    call = getattr(engine, method)(sampling={"max_tokens": 4}, options={"resume": resume}, **fields)
    events = await events_of(call)
    assert text_of(events) == "mn"
    assert events[0].started.prompt_token_count == 2


async def test_a_conversation_beside_a_prompt_is_refused(engine: ScriptedEngine) -> None:
    messages = [{"role": "ROLE_USER", "content": [{"text": "hi"}]}]
    resume = {"prompt_token_ids": {"ids": [7]}}
    assert (await refusal_of(engine.chat(messages=messages, options={"resume": resume})))[2] == ["messages"]


@pytest.mark.parametrize(
    ("given", "sampling", "reason", "matched"),
    [
        pytest.param("abc", {"max_tokens": 3}, generation_pb2.FINISH_REASON_LENGTH, "", id="all its tokens"),
        pytest.param("abc\0", {}, generation_pb2.FINISH_REASON_STOP_TOKEN, "", id="an end token"),
        pytest.param("abc", {"stop": ["bc"]}, generation_pb2.FINISH_REASON_STOP_STRING, "bc", id="a stop text"),
    ],
)
async def test_what_had_ended_ends_at_once(
    engine: ScriptedEngine, given: str, sampling: Any, reason: int, matched: str
) -> None:
    call = engine.generate("a", sampling=sampling, options={"resume": {"choices": [output(0, given)]}})
    events = await events_of(call)
    finished = finished_of(events)[0]
    assert (finished.reason, finished.matched_stop) == (reason, matched)
    assert finished.output_token_count == len(given)
    assert text_of(events) == ""
    assert engine.runner.entered_count == 0
    await engine.all_ended()


async def test_a_prompt_is_scored_with_a_choice_that_has_not_ended(engine: ScriptedEngine) -> None:
    choices = [output(0, "bcd"), output(1, "bc"), output(2, "b\0")]
    sampling = {"max_tokens": 3, "n": 3, "prompt_logprobs": 1}
    events = await events_of(engine.generate("ab", sampling=sampling, options={"resume": {"choices": choices}}))
    [prompt] = [event.prompt for event in events if event.HasField("prompt")]
    assert [each.chosen.token_id for each in prompt.logprobs[1:]] == list(map(ord, "ab"))


async def test_text_that_was_held_back_is_told_by_who_goes_on(engine: ScriptedEngine) -> None:
    resume = {"choices": [output(0, "abc")]}
    sampling = {"max_tokens": 5, "stop": ["cx"]}
    assert text_of(await events_of(engine.generate("a", sampling=sampling, options={"resume": resume}))) == "cde"


async def test_output_that_fills_the_context_is_refused(engine: ScriptedEngine) -> None:
    resume = {"choices": [{"output_token_ids": {"ids": [5] * (CONTEXT_TOKENS - 2)}}]}
    events = await events_of(engine.generate("a", options={"resume": resume}))
    assert finished_of(events)[0].reason == generation_pb2.FINISH_REASON_LENGTH
    resume["choices"][0]["output_token_ids"]["ids"].append(5)
    assert (await refusal_of(engine.generate("a", options={"resume": resume})))[2] == ["options.resume.choices"]


async def test_a_form_goes_on_where_its_output_was(engine: ScriptedEngine) -> None:
    constraint = {"choice": {"texts": ["yes", "no", "none"]}}
    fields: dict[str, Any] = {
        "sampling": {"constraint": constraint},
        "options": {"resume": {"choices": [output(0, "ye")]}},
    }
    assert text_of(await events_of(engine.generate("a", **fields))) == "s"
    fields["options"] = {"resume": {"choices": [output(0, "yo")]}}
    assert (await refusal_of(engine.generate("a", **fields)))[2] == ["options.resume.choices"]
    await engine.all_ended()
