"""What a request may ask to be told besides its output, and how it is treated on its way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from roundhouse.internal.v1 import engine_service_pb2
from roundhouse.v1 import inference_service_pb2
from tests.support.scripted_engine import ScriptedEngine, events_of, hop, scripted_engine
from tests.support.scripted_model import PATIENCE_S, CharacterGrammars, logprobs_of


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine(grammars=CharacterGrammars()) as it:
        yield it


def scores_of(events: list[Any], kind: str) -> list[Any]:
    return [score for event in events for score in getattr(event, kind).logprobs]


async def test_every_output_token_comes_with_its_logprobs(engine: ScriptedEngine) -> None:
    events = await events_of(engine.generate("a", sampling={"max_tokens": 30, "logprobs": 3}))
    ids = [token for event in events for token in event.delta.token_ids]
    scores = scores_of(events, "delta")
    assert [each.chosen.token_id for each in scores] == ids
    told = logprobs_of(ids[0], 3)
    assert scores[0].chosen.logprob == pytest.approx(told.chosen.logprob)
    assert [(each.token_id, each.rank) for each in scores[0].top] == [(each.token, each.rank) for each in told.top]
    assert all(len(event.delta.logprobs) == len(event.delta.token_ids) for event in events)


async def test_logprobs_of_0_tell_of_the_token_alone_and_none_of_nothing(engine: ScriptedEngine) -> None:
    events = await events_of(engine.generate("a", sampling={"max_tokens": 3, "logprobs": 0}))
    assert [(each.HasField("chosen"), len(each.top)) for each in scores_of(events, "delta")] == [(True, 0)] * 3
    assert scores_of(await events_of(engine.generate("a", sampling={"max_tokens": 3})), "delta") == []


async def test_an_echo_is_the_prompt_before_the_output(engine: ScriptedEngine) -> None:
    events = await events_of(engine.generate("abc", echo=True, sampling={"max_tokens": 2, "n": 2}))
    assert [event.WhichOneof("event") for event in events[:2]] == ["started", "prompt"]
    prompt = events[1].prompt
    assert (list(prompt.token_ids), prompt.text) == ([1, *map(ord, "abc")], "\x01abc")
    assert sum(event.HasField("prompt") for event in events) == 1


@pytest.mark.parametrize("echo", [True, False])
async def test_a_prompt_is_scored_once_whatever_its_choices(engine: ScriptedEngine, echo: bool) -> None:
    sampling = {"max_tokens": 2, "n": 3, "prompt_logprobs": 2}
    events = await events_of(engine.generate("abc", request_id="mine", echo=echo, sampling=sampling))
    [prompt] = [event.prompt for event in events if event.HasField("prompt")]
    assert prompt.text == ("\x01abc" if echo else "")
    nothing, *scores = prompt.logprobs
    assert not nothing.HasField("chosen")
    assert [(each.chosen.token_id, len(each.top)) for each in scores] == [(ord(each), 2) for each in "abc"]
    asked = [engine.runner.works[f"local/mine/{choice}"].prompt_logprobs for choice in range(3)]
    assert asked == [2, None, None]


async def test_a_chat_is_scored_as_its_template_wrote_it(engine: ScriptedEngine) -> None:
    messages = [{"role": "ROLE_USER", "content": [{"text": "hi"}]}]
    events = await events_of(engine.chat(messages=messages, sampling={"max_tokens": 1, "prompt_logprobs": 0}))
    [prompt] = [event.prompt for event in events if event.HasField("prompt")]
    assert "".join(map(chr, prompt.token_ids)) == "user:hi;"


async def test_all_that_is_asked_reaches_the_sequence(engine: ScriptedEngine) -> None:
    sampling = {
        "max_tokens": 9,
        "min_tokens": 2,
        "temperature": 0.5,
        "min_p": 0.1,
        "typical_p": 0.9,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "logit_bias": {9: 1.0, 5: -100.0},
        "bad_words": ["no"],
        "bad_token_runs": [{"ids": [3, 4]}],
        "include_stop": True,
        "stop": ["z"],
        "logprobs": 1,
    }
    request = inference_service_pb2.GenerateRequest(
        deployment="chat", request_id="mine", prompt=[{"text": "a"}], sampling=sampling, options={"priority": 7}
    )
    metadata = hop(tenant="blue")
    await events_of(engine.inference.Generate(request, metadata=metadata, timeout=PATIENCE_S))
    work = engine.runner.works["local/mine"]
    chosen = work.sampling
    assert (work.max_tokens, work.include_stop, work.stop, work.logprobs) == (9, True, ("z",), 1)
    assert (work.priority, work.tenant) == (7, "blue")
    assert work.deadline_s is not None
    assert (chosen.temperature, chosen.min_p, chosen.typical_p, chosen.min_tokens) == (0.5, 0.1, 0.9, 2)
    assert (chosen.repetition_penalty, chosen.presence_penalty, chosen.frequency_penalty) == (1.1, 0.2, 0.3)
    assert chosen.logit_bias == ((5, -100.0), (9, 1.0))
    assert chosen.bad_words == (tuple(map(ord, "no")), tuple(map(ord, " no")), (3, 4))


async def test_what_numbers_of_the_machine_cannot_hold_is_taken_for_the_nearest_that_they_can(
    engine: ScriptedEngine,
) -> None:
    """A logit divided by the least of doubles is infinite, and no timer waits for the age of the universe."""
    request = inference_service_pb2.GenerateRequest(
        deployment="chat",
        request_id="mine",
        prompt=[{"text": "a"}],
        sampling={"max_tokens": 1, "repetition_penalty": 5e-324},
        options={"max_duration": {"seconds": (1 << 63) - 1}},
    )
    await events_of(engine.inference.Generate(request, metadata=hop()))
    work = engine.runner.works["local/mine"]
    assert 1e-37 < work.sampling.repetition_penalty < 1e-20
    assert work.deadline_s is not None
    assert work.deadline_s < 1e9


async def test_an_output_is_one_of_the_texts_that_it_may_be(engine: ScriptedEngine) -> None:
    constraint = {"choice": {"texts": ["yes", "no", "none"]}}
    events = await events_of(engine.generate("n", sampling={"constraint": constraint, "n": 2}))
    texts: dict[int, str] = {}
    for event in events:
        if event.HasField("delta"):
            texts[event.delta.choice] = texts.get(event.delta.choice, "") + event.delta.text
    assert set(texts) == {0, 1}
    assert set(texts.values()) <= {"yes", "no", "none"}
    await engine.all_ended()


async def test_prompts_that_were_found_in_the_cache_are_counted(engine: ScriptedEngine) -> None:
    prompt = [{"token_ids": {"ids": [5] * 100}}]
    first, second = [
        (await events_of(engine.generate(prompt=prompt, sampling={"max_tokens": 2, "n": 2})))[-1].usage
        for _ in range(2)
    ]
    assert (first.cached_prompt_token_count, second.cached_prompt_token_count) == (0, 96)
    status = await engine.engine.Describe(engine_service_pb2.DescribeRequest(), metadata=hop())
    load = status.status.load
    assert (load.prompt_token_count, load.preemption_count, load.drafted_token_count) == (400, 0, 0)
    assert load.cached_prompt_token_count == 96 * 3
