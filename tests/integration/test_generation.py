"""All that a request may ask of an engine, asked of a process that serves the demo model."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from roundhouse.kit.channel import open_channel
from roundhouse.kit.status import error_of
from roundhouse.v1 import generation_pb2, inference_service_pb2, inference_service_pb2_grpc
from tests.support.engine_process import METADATA, PATIENCE_S, described, events_of, serving, start

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

SEEDED = {"temperature": 1.0, "top_p": 1.0, "seed": 7, "ignore_eos": True}
ASK = "What is 2 + 2?"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[grpc.aio.Channel]:
    engine = start(tmp_path_factory.mktemp("engine") / "bundle")
    try:
        async with open_channel(await engine.address()) as channel:
            await serving(channel)
            yield channel
    finally:
        engine.end()


def call_of(channel: grpc.aio.Channel, text: str = ASK, **fields: Any) -> Any:
    stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
    request = inference_service_pb2.GenerateRequest(deployment="chat", **{"prompt": [{"text": text}], **fields})
    return stub.Generate(request, metadata=METADATA, timeout=PATIENCE_S)


async def ask(channel: grpc.aio.Channel, text: str = ASK, **fields: Any) -> list[Any]:
    return await events_of(call_of(channel, text, **fields))


def ids_of(events: list[Any], choice: int = 0) -> list[int]:
    return [token for event in events if event.delta.choice == choice for token in event.delta.token_ids]


def text_of(events: list[Any], choice: int = 0) -> str:
    return "".join(event.delta.text for event in events if event.delta.choice == choice)


def finishes_of(events: list[Any]) -> dict[int, Any]:
    return {event.finished.choice: event.finished for event in events if event.HasField("finished")}


async def test_a_resumed_output_is_what_it_would_have_been(channel: grpc.aio.Channel) -> None:
    sampling: dict[str, Any] = {**SEEDED, "n": 2, "max_tokens": 30, "repetition_penalty": 1.2, "frequency_penalty": 0.3}
    whole = await ask(channel, sampling=sampling)
    assert ids_of(whole, 0) != ids_of(whole, 1)
    for count in (1, 13, 29, 30):
        given = ids_of(whole, 1)[:count]
        resume = {
            "seed": 7,
            "choices": [{"choice": 1, "output_token_ids": {"ids": given}}],
            "fingerprint": whole[0].started.fingerprint,
            "tokenizer_fingerprint": whole[0].started.tokenizer_fingerprint,
        }
        rest = await ask(channel, sampling=sampling, options={"resume": resume})
        assert [*given, *ids_of(rest, 1)] == ids_of(whole, 1)
        assert finishes_of(rest) == finishes_of(whole)


async def test_logprobs_are_those_of_the_tokens_and_the_likeliest_is_what_greed_takes(
    channel: grpc.aio.Channel,
) -> None:
    sampling = {"temperature": 0, "max_tokens": 12, "ignore_eos": True, "logprobs": 4, "prompt_logprobs": 2}
    events = await ask(channel, echo=True, sampling=sampling)
    scores = [score for event in events for score in event.delta.logprobs]
    assert [each.chosen.token_id for each in scores] == ids_of(events) == [each.top[0].token_id for each in scores]
    for each in scores:
        assert each.chosen.rank == 1
        logprobs = [one.logprob for one in each.top]
        assert logprobs == sorted(logprobs, reverse=True)
        assert sum(map(math.exp, logprobs)) <= 1.0001
    prompt = [event.prompt for event in events if event.HasField("prompt")]
    assert "".join(each.text for each in prompt) == ASK
    ids = [token for each in prompt for token in each.token_ids]
    told = [score for each in prompt for score in each.logprobs]
    assert [each.chosen.token_id for each in told[1:]] == ids[1:]
    # What was output of one request is prompt of another, and as likely.
    again = await ask(channel, prompt=[{"token_ids": {"ids": [*ids, *ids_of(events)]}}], sampling=sampling)
    told = [score for event in again for score in event.prompt.logprobs][len(ids) :]
    assert [each.chosen.logprob for each in told] == pytest.approx([each.chosen.logprob for each in scores], abs=1e-4)


async def test_what_is_forbidden_never_comes(channel: grpc.aio.Channel) -> None:
    plain = ids_of(await ask(channel, sampling={**SEEDED, "max_tokens": 40}))
    sampling = {**SEEDED, "max_tokens": 40, "logit_bias": {plain[0]: -100}}
    assert plain[0] not in ids_of(await ask(channel, sampling=sampling))
    sampling = {**SEEDED, "max_tokens": 40, "bad_token_runs": [{"ids": plain[3:5]}]}
    pairs = ids_of(await ask(channel, sampling=sampling))
    assert plain[3:5] not in [pairs[place : place + 2] for place in range(len(pairs))]


@pytest.mark.parametrize("temperature", [0, 5e-324, 1.0])
async def test_the_least_numbers_that_are_allowed_give_outputs(channel: grpc.aio.Channel, temperature: float) -> None:
    least = {"top_p": 5e-324, "typical_p": 5e-324, "repetition_penalty": 5e-324}
    for sampling in ({name: value} for name, value in least.items()):
        events = await ask(channel, sampling={"temperature": temperature, "max_tokens": 8, "min_tokens": 8, **sampling})
        assert finishes_of(events)[0].output_token_count == 8


async def test_an_end_is_put_off_and_its_text_may_be_shown(channel: grpc.aio.Channel) -> None:
    events = await ask(channel, sampling={"temperature": 0, "max_tokens": 40, "min_tokens": 25})
    assert finishes_of(events)[0].output_token_count >= 25
    whole = text_of(await ask(channel, "Once upon", sampling={"temperature": 0, "max_tokens": 30, "ignore_eos": True}))
    stop = whole[10:14]
    for shown in (True, False):
        sampling = {"temperature": 0, "max_tokens": 30, "ignore_eos": True, "stop": [stop], "include_stop": shown}
        events = await ask(channel, "Once upon", sampling=sampling)
        assert finishes_of(events)[0].matched_stop == stop
        assert text_of(events) == whole[: whole.index(stop) + len(stop) * shown]


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "schema": ({"json_schema": json.dumps(SCHEMA)}, r'\{\s*"name"\s*:\s*".*"\s*,\s*"age"\s*:\s*\d{1,2}\s*\}'),
    "regex": ({"regex": "[a-c]{3,6}-[0-9]{2}"}, "[a-c]{3,6}-[0-9]{2}"),
    "choice": ({"choice": {"texts": ["yes", "no", "never ever"]}}, "yes|no|never ever"),
    "Lark": ({"ebnf": 'start: "a" b+\nb: "x" | "yy"'}, "a(x|yy)+"),
    "GBNF": ({"ebnf": 'root ::= "a" ("x" | "yy")'}, "a(x|yy)"),
}


@pytest.mark.parametrize(("constraint", "pattern"), FORMS.values(), ids=FORMS)
async def test_outputs_have_the_form_that_they_have_to_have(
    channel: grpc.aio.Channel, constraint: Any, pattern: str
) -> None:
    sampling = {"temperature": 1.0, "seed": 3, "max_tokens": 600, "n": 2, "constraint": constraint}
    events = await ask(channel, sampling=sampling)
    for choice, finished in finishes_of(events).items():
        if finished.reason == generation_pb2.FINISH_REASON_STOP_TOKEN:
            assert re.fullmatch(pattern, text_of(events, choice), re.DOTALL)
        else:  # b+ may go on and on
            assert finished.reason == generation_pb2.FINISH_REASON_LENGTH
            assert constraint == FORMS["Lark"][0]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a schema that is no JSON": ({"constraint": {"json_schema": "{"}}, "sampling.constraint.json_schema"),
    "a schema of nothing": ({"constraint": {"json_schema": "false"}}, "sampling.constraint.json_schema"),
    "a schema without end": (
        {"constraint": {"json_schema": '{"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}'}},
        "sampling.constraint.json_schema",
    ),
    "a regex that is none": ({"constraint": {"regex": "("}}, "sampling.constraint.regex"),
    "a grammar that is none": ({"constraint": {"ebnf": "start: ::"}}, "sampling.constraint.ebnf"),
    "a grammar without end": ({"constraint": {"ebnf": 'start: "a" start'}}, "sampling.constraint.ebnf"),
    "nothing to end with": ({"constraint": {"regex": "a"}, "ignore_eos": True}, "sampling.ignore_eos"),
    "no number": ({"temperature": math.nan}, "sampling.temperature"),
    "an id of no token": ({"logit_bias": {1 << 20: 1.0}}, "sampling.logit_bias"),
    "too many choices": ({"n": 17}, "sampling.n"),
}


async def test_each_bad_request_is_refused_by_name_while_another_goes_on(channel: grpc.aio.Channel) -> None:
    """The other one is sampled: were one number of its logits another, other tokens would come."""
    alone = await ask(channel, sampling={**SEEDED, "max_tokens": 400})
    beside = asyncio.ensure_future(ask(channel, sampling={**SEEDED, "max_tokens": 400}))
    for sampling, field in BAD.values():
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(channel, sampling=sampling)
        error = error_of(refused.value)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert [each.field for each in error.fields] == [field]
    filled = call_of(channel, prompt=[{"token_ids": {"ids": [5] * 2048}}])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await events_of(filled)
    assert refused.value.code() is grpc.StatusCode.OUT_OF_RANGE
    # A form that allows one text, and that text forbidden, leave nothing.
    sampling = {"constraint": {"choice": {"texts": ["yes"]}}, "bad_words": ["y", "ye", "yes"]}
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask(channel, sampling=sampling)
    assert (refused.value.code(), [each.field for each in error_of(refused.value).fields]) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        ["sampling"],
    )
    assert ids_of(await beside) == ids_of(alone)
    load = (await described(channel)).status.load
    assert load.free_block_count == load.total_block_count
