"""Every bound of the contract, as a client meets it: status, reason, and the field that is wrong."""

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from engines.service import checks
from roundhouse.kit.errors import InvalidArgument
from roundhouse.v1 import generation_pb2, inference_service_pb2
from tests.support.scripted_engine import CONTEXT_TOKENS, ScriptedEngine, events_of, refusal_of, scripted_engine
from tests.support.scripted_model import CharacterGrammars, alphabet

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
TEXT = [{"text": "abc"}]
USER = {"role": "ROLE_USER", "content": TEXT}


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine(grammars=CharacterGrammars()) as it:
        yield it


def sampling(field: str = "", **values: Any) -> Any:
    name = field or next(iter(values))
    return pytest.param({"sampling": values}, f"sampling.{name}", id=f"{name}={next(iter(values.values()))!s:.20}")


def option(field: str = "", **values: Any) -> Any:
    name = field or next(iter(values))
    return pytest.param({"options": values}, f"options.{name}", id=f"{name}={next(iter(values.values()))!s:.20}")


def resume(field: str, sampling: Any = None, **values: Any) -> Any:
    fields = {"options": {"resume": values}, "sampling": sampling or {}}
    if "prompt_token_ids" in values:
        fields["prompt"] = []
    return pytest.param(fields, f"options.resume.{field}", id=f"resume.{field}={values!s:.40}")


BAD_GENERATE = [
    pytest.param({"deployment": ""}, "deployment", id="no deployment"),
    pytest.param({"request_id": "a b"}, "request_id", id="a space in the id"),
    pytest.param({"request_id": "a\n"}, "request_id", id="a line end behind the id"),
    pytest.param({"request_id": "x" * 65}, "request_id", id="a long id"),
    pytest.param({"request_id": "ä"}, "request_id", id="another letter in the id"),
    pytest.param({"prompt": []}, "prompt", id="no prompt"),
    pytest.param({"prompt": [{"text": ""}, {"token_ids": {}}]}, "prompt", id="empty parts only"),
    pytest.param({"prompt": [{"text": "a"}, {}]}, "prompt[1]", id="a part of unknown kind"),
    pytest.param({"prompt": [{"token_ids": {"ids": [1, 128]}}]}, "prompt[0].token_ids.ids", id="an id too high"),
    pytest.param({"prompt": [{"token_ids": {"ids": [-1]}}]}, "prompt[0].token_ids.ids", id="a negative id"),
    sampling(temperature=-0.1),
    sampling(temperature=2.1),
    sampling(temperature=math.nan),
    sampling(temperature=math.inf),
    sampling(top_p=0.0),
    sampling(top_p=-1.0),
    sampling(top_p=1.01),
    sampling(top_p=math.nan),
    sampling(top_k=-1),
    sampling(max_tokens=0),
    sampling(max_tokens=-5),
    sampling(stop=["x"] * 17),
    sampling("stop[1]", stop=["x", ""]),
    sampling("stop[0]", stop=["x" * 257]),
    sampling(stop_token_ids=[5] * 65),
    sampling(stop_token_ids=[128]),
    sampling(min_p=-0.1),
    sampling(min_p=1.1),
    sampling(min_p=math.nan),
    sampling(typical_p=0.0),
    sampling(typical_p=1.1),
    sampling(typical_p=math.nan),
    sampling(repetition_penalty=0.0),
    sampling(repetition_penalty=2.1),
    sampling(repetition_penalty=math.inf),
    sampling(presence_penalty=-2.1),
    sampling(presence_penalty=2.1),
    sampling(presence_penalty=math.nan),
    sampling(frequency_penalty=-2.1),
    sampling(frequency_penalty=2.1),
    sampling(frequency_penalty=-math.inf),
    sampling("logit_bias[5]", logit_bias={5: 100.1}),
    sampling("logit_bias[5]", logit_bias={5: -100.1}),
    sampling("logit_bias[5]", logit_bias={5: math.nan}),
    sampling(logit_bias={128: 1.0}),
    sampling(logit_bias={-1: 1.0}),
    sampling(logit_bias=dict.fromkeys(range(1025), 1.0)),
    sampling(bad_words=["x"] * 17),
    sampling("bad_words[1]", bad_words=["x", ""]),
    sampling("bad_words[0]", bad_words=["x" * 257]),
    sampling(bad_token_runs=[{"ids": [1]}] * 65),
    sampling("bad_token_runs[1]", bad_token_runs=[{"ids": [1]}, {}]),
    sampling("bad_token_runs[0]", bad_token_runs=[{"ids": [1] * 65}]),
    sampling("bad_token_runs[0]", bad_token_runs=[{"ids": [128]}]),
    sampling(min_tokens=-1),
    sampling("min_tokens", max_tokens=3, min_tokens=4),
    sampling(min_tokens=CONTEXT_TOKENS),
    sampling(n=0),
    sampling(n=17),
    sampling("best_of", n=3, best_of=2),
    sampling(best_of=0),
    sampling(best_of=17),
    sampling(logprobs=-1),
    sampling(logprobs=21),
    sampling(prompt_logprobs=-1),
    sampling(prompt_logprobs=21),
    sampling("logprobs", n=16, logprobs=20),  # of each choice the rest of the context
    sampling(constraint={}),
    sampling("constraint.json_schema", constraint={"json_schema": ""}),
    sampling("constraint.regex", constraint={"regex": "x" * 65_537}),
    sampling("constraint.ebnf", constraint={"ebnf": ""}),
    sampling("constraint.choice.texts", constraint={"choice": {}}),
    sampling("constraint.choice.texts", constraint={"choice": {"texts": ["x"] * 1025}}),
    sampling("constraint.choice.texts", constraint={"choice": {"texts": ["x" * 1024] * 65}}),
    sampling("constraint.choice.texts[1]", constraint={"choice": {"texts": ["x", ""]}}),
    sampling("constraint.choice.texts[0]", constraint={"choice": {"texts": ["x" * 1025]}}),
    sampling("ignore_eos", ignore_eos=True, constraint={"json_object": {}}),
    resume("prompt_token_ids", prompt_token_ids={}),
    resume("prompt_token_ids", prompt_token_ids={"ids": [128]}),
    resume("choices[0].choice", choices=[{"choice": 1}]),
    resume("choices[0].choice", choices=[{"choice": -1}]),
    resume("choices", choices=[{}, {}]),
    resume("choices[0].output_token_ids", choices=[{"output_token_ids": {"ids": [-1]}}]),
    resume("choices", choices=[{"output_token_ids": {"ids": [5] * CONTEXT_TOKENS}}]),
    resume("choices[1].choice", {"n": 2}, choices=[{"choice": 1}, {"choice": 1}]),
    resume("choices[0].output_token_ids", {"max_tokens": 2}, choices=[{"output_token_ids": {"ids": [5] * 3}}]),
    resume("seed", {"seed": 5}, seed=6),
    pytest.param(
        {"options": {"resume": {"choices": [{"output_token_ids": {"ids": [5]}}]}}, "sampling": {"n": 2, "best_of": 3}},
        "sampling.best_of",
        id="the best of what was resumed",
    ),
    pytest.param(
        {"options": {"resume": {"prompt_token_ids": {"ids": [5]}}}}, "prompt", id="a prompt and another to resume"
    ),
    option("on_disconnect.policy", on_disconnect={"policy": 9}),
    option("on_disconnect.ttl", on_disconnect={"policy": "DISCONNECT_POLICY_DETACH", "ttl": {}}),
    option("on_disconnect.ttl", on_disconnect={"policy": "DISCONNECT_POLICY_DETACH", "ttl": {"seconds": -1}}),
    option("on_disconnect.ttl", on_disconnect={"policy": "DISCONNECT_POLICY_DETACH", "ttl": {"seconds": 3601}}),
    option(failover=9),
    option(max_duration={"seconds": 0}),
    option(max_duration={"seconds": -1}),
    option(session_key="x" * 256),
    option(priority=101),
    option(priority=-101),
    pytest.param({"prompt": [{"text": "x"}] * 4097}, "prompt", id="too many parts"),
    option(labels={str(number): "" for number in range(17)}),
    option(f'labels["{"x" * 63}"]', labels={"x" * 64: ""}),
    option('labels[""]', labels={"": "x"}),
    option('labels["a"]', labels={"a": "x" * 256}),
]


@pytest.mark.parametrize(("fields", "field"), BAD_GENERATE)
async def test_a_field_out_of_range_is_refused_by_name(engine: ScriptedEngine, fields: Any, field: str) -> None:
    assert await refusal_of(engine.generate(**fields)) == (*INVALID, [field])
    assert engine.requests.live == ()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        pytest.param({"messages": []}, "messages", id="no message"),
        pytest.param({"messages": [USER] * 4097}, "messages", id="too many messages"),
        pytest.param(
            {"messages": [{"role": "ROLE_USER", "content": TEXT * 2049}] * 2}, "messages.content", id="too many parts"
        ),
        pytest.param({"messages": [USER, {"content": TEXT}]}, "messages[1].role", id="no role"),
        pytest.param({"messages": [{"role": 7, "content": TEXT}]}, "messages[0].role", id="an unknown role"),
        pytest.param({"messages": [{"role": "ROLE_USER"}]}, "messages[0].content", id="no content"),
        pytest.param(
            {"messages": [{"role": "ROLE_USER", "content": [{"text": ""}]}]}, "messages[0].content", id="empty content"
        ),
        pytest.param(
            {"messages": [{"role": "ROLE_USER", "content": [{"token_ids": {"ids": [5]}}]}]},
            "messages[0].content[0].token_ids",
            id="token ids",
        ),
        pytest.param({"messages": [USER], "sampling": {"top_p": 2}}, "sampling.top_p", id="sampling as in Generate"),
        pytest.param({"messages": [USER], "request_id": "/"}, "request_id", id="an id as in Generate"),
        pytest.param(
            {"messages": [USER, {"role": "ROLE_ASSISTANT", "content": TEXT}]}, "messages", id="a template that refuses"
        ),
    ],
)
async def test_a_bad_conversation_is_refused_by_field(engine: ScriptedEngine, fields: Any, field: str) -> None:
    assert await refusal_of(engine.chat(**fields)) == (*INVALID, [field])
    assert engine.requests.live == ()


async def test_a_refusal_disturbs_nobody() -> None:
    """Every bad request beside one that runs, on one engine."""
    async with scripted_engine(grammars=CharacterGrammars()) as engine:
        engine.runner.hold()
        neighbour = engine.generate("a", sampling={"max_tokens": 5000, "logprobs": 1})
        await neighbour.read()
        await engine.runner.entered(1)
        engine.runner.go()
        reading = asyncio.ensure_future(events_of(neighbour))
        for each in BAD_GENERATE:
            fields, field = each.values
            assert await refusal_of(engine.generate(**fields)) == (*INVALID, [field])
        events = await reading
        text = "".join(event.delta.text for event in events)
        assert text == "".join(chr(int(alphabet([ord("a")], position))) for position in range(5000))  # type: ignore[arg-type]
        assert sum(len(event.delta.logprobs) for event in events) == 5000
        await engine.all_ended()


async def test_all_that_is_wrong_is_named_at_once(engine: ScriptedEngine) -> None:
    call = engine.generate(
        request_id="?", prompt=[], sampling={"top_p": 0, "max_tokens": 0}, options={"priority": 1000}
    )
    fields = ["request_id", "prompt", "sampling.top_p", "sampling.max_tokens", "options.priority"]
    assert await refusal_of(call) == (*INVALID, fields)


async def test_every_bound_itself_is_accepted(engine: ScriptedEngine) -> None:
    options = {
        "on_disconnect": {"policy": "DISCONNECT_POLICY_DETACH", "ttl": {"seconds": 3600}},
        "failover": "FAILOVER_POLICY_APPROXIMATE_OK",
        "max_duration": {"seconds": 30},
        "session_key": "x" * 255,
        "labels": {f"{number:063}": "x" * 255 for number in range(16)},
        "priority": -100,
    }
    for low_or_high in (
        {"temperature": 0, "top_p": 1, "top_k": 0, "max_tokens": 1},
        {"temperature": 2, "top_p": 5e-324, "top_k": 1, "max_tokens": 2, "seed": -(2**63)},
        {"stop": ["x" * 256] * 16, "stop_token_ids": [0, 127] * 32, "max_tokens": 1},
        {"min_p": 0, "typical_p": 5e-324, "repetition_penalty": 5e-324, "presence_penalty": -2, "max_tokens": 1},
        {"min_p": 1, "typical_p": 1, "repetition_penalty": 2, "frequency_penalty": 2, "min_tokens": 1, "max_tokens": 1},
        {"logit_bias": {0: -100, 127: 100}, "bad_words": ["x" * 256] * 16, "max_tokens": 1},
        {"bad_token_runs": [{"ids": [127] * 64}] * 64, "n": 16, "best_of": 16, "max_tokens": 1},
        {"logprobs": 20, "prompt_logprobs": 20, "n": 1, "best_of": 16, "max_tokens": 1},
        {"constraint": {"choice": {"texts": ["x" * 1024] * 64}}, "max_tokens": 1},
        {"constraint": {"choice": {"texts": ["x" * 64] * 1024}}, "max_tokens": 1},
    ):
        await events_of(engine.generate(request_id="", sampling=low_or_high, options=options))
    await events_of(engine.generate(request_id="Az09._:-" * 8, sampling={"max_tokens": 1}))


def test_a_number_that_is_just_out_of_range_is_shown_as_it_is() -> None:
    part = generation_pb2.ContentPart(text="a")
    sampling = {"temperature": 2.0000001, "top_p": 2, "min_p": math.nan, "presence_penalty": -math.inf}
    request = inference_service_pb2.GenerateRequest(deployment="chat", prompt=[part], sampling=sampling)
    with pytest.raises(InvalidArgument) as raised:
        checks.check_generate(request, 128)
    shown = {each.field: each.description.partition(" is ")[0] for each in raised.value.fields}
    assert shown == {
        "sampling.temperature": "2.0000001",
        "sampling.top_p": "2",
        "sampling.min_p": "nan",
        "sampling.presence_penalty": "-inf",
    }


async def test_an_unknown_deployment_is_not_found(engine: ScriptedEngine) -> None:
    refusal: tuple[object, ...] = (grpc.StatusCode.NOT_FOUND, "DEPLOYMENT_NOT_FOUND", [])
    assert await refusal_of(engine.generate(deployment="other")) == refusal
    assert await refusal_of(engine.chat(deployment="other", messages=[USER])) == refusal


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        pytest.param({"request_id": "a"}, ["deployment"], id="no deployment"),
        pytest.param({"deployment": "chat"}, ["request_id"], id="no id"),
        pytest.param({"deployment": "chat", "request_id": "a/b"}, ["request_id"], id="a malformed id"),
    ],
)
def test_a_cancel_names_what_it_means(fields: dict[str, str], wrong: list[str]) -> None:
    with pytest.raises(InvalidArgument) as raised:
        checks.check_named(inference_service_pb2.CancelRequestRequest(**fields))
    assert [each.field for each in raised.value.fields] == wrong


def test_no_message_of_a_violation_repeats_the_prompt() -> None:
    part = generation_pb2.ContentPart(text="a secret")
    request = inference_service_pb2.GenerateRequest(prompt=[part], request_id="a secret")
    with pytest.raises(InvalidArgument) as raised:
        checks.check_generate(request, 128)
    assert "a secret" not in str(raised.value)
