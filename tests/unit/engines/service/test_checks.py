"""Every bound of the contract, as a client meets it: status, reason, and the field that is wrong."""

import math
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from engines.service import checks
from roundhouse.kit.errors import InvalidArgument
from roundhouse.v1 import generation_pb2, inference_service_pb2
from tests.support.scripted_engine import ScriptedEngine, events_of, refusal_of, scripted_engine

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
NOT_SERVED = (grpc.StatusCode.UNIMPLEMENTED, "NOT_SERVED")
TEXT = [{"text": "abc"}]
USER = {"role": "ROLE_USER", "content": TEXT}


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine() as it:
        yield it


def sampling(field: str = "", **values: Any) -> Any:
    name = field or next(iter(values))
    return pytest.param({"sampling": values}, f"sampling.{name}", id=f"{name}={next(iter(values.values()))!s:.20}")


def option(field: str = "", **values: Any) -> Any:
    name = field or next(iter(values))
    return pytest.param({"options": values}, f"options.{name}", id=f"{name}={next(iter(values.values()))!s:.20}")


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
    option("on_disconnect.policy", on_disconnect={"policy": 9}),
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


@pytest.mark.parametrize(
    ("options", "field"),
    [
        pytest.param({"on_disconnect": {"policy": "DISCONNECT_POLICY_DETACH"}}, "on_disconnect.policy", id="DETACH"),
        pytest.param({"failover": "FAILOVER_POLICY_APPROXIMATE_OK"}, "failover", id="APPROXIMATE_OK"),
        pytest.param({"failover": "FAILOVER_POLICY_EXACT_ONLY"}, "failover", id="EXACT_ONLY"),
        pytest.param({"resume": {}}, "resume", id="an empty resume"),
        pytest.param({"priority": 1}, "priority", id="a priority"),
    ],
)
async def test_what_is_not_served_yet_is_refused_by_name(engine: ScriptedEngine, options: Any, field: str) -> None:
    assert await refusal_of(engine.generate(options=options)) == (*NOT_SERVED, [f"options.{field}"])


async def test_all_that_is_wrong_is_named_at_once(engine: ScriptedEngine) -> None:
    call = engine.generate(
        request_id="?", prompt=[], sampling={"top_p": 0, "max_tokens": 0}, options={"priority": 1000, "resume": {}}
    )
    fields = ["request_id", "prompt", "sampling.top_p", "sampling.max_tokens", "options.priority"]
    assert await refusal_of(call) == (*INVALID, fields)


async def test_every_bound_itself_is_accepted(engine: ScriptedEngine) -> None:
    options = {
        "on_disconnect": {"policy": "DISCONNECT_POLICY_CANCEL"},
        "failover": "FAILOVER_POLICY_NEVER",
        "max_duration": {"seconds": 30},
        "session_key": "x" * 255,
        "labels": {f"{number:063}": "x" * 255 for number in range(16)},
    }
    for low_or_high in (
        {"temperature": 0, "top_p": 1, "top_k": 0, "max_tokens": 1},
        {"temperature": 2, "top_p": 5e-324, "top_k": 1, "max_tokens": 2, "seed": -(2**63)},
        {"stop": ["x" * 256] * 16, "stop_token_ids": [0, 127] * 32, "max_tokens": 1},
    ):
        await events_of(engine.generate(request_id="", sampling=low_or_high, options=options))
    await events_of(engine.generate(request_id="Az09._:-" * 8, sampling={"max_tokens": 1}))


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
        checks.check_cancel(inference_service_pb2.CancelRequestRequest(**fields))
    assert [each.field for each in raised.value.fields] == wrong


def test_no_message_of_a_violation_repeats_the_prompt() -> None:
    part = generation_pb2.ContentPart(text="a secret")
    request = inference_service_pb2.GenerateRequest(prompt=[part], request_id="a secret")
    with pytest.raises(InvalidArgument) as raised:
        checks.check_generate(request, 128)
    assert "a secret" not in str(raised.value)
