"""An answer, read to its end, left, cancelled and broken."""

import asyncio
from typing import Any

import pytest

from roundhouse.client import Client, GenerationOptions, Messages
from roundhouse.kit.errors import DeadlineExceeded, InvalidArgument, NotFound, TooLong, Unreachable
from roundhouse.kit.times import to_duration
from roundhouse.v1 import errors_pb2, generation_pb2, inference_service_pb2, receipt_pb2
from tests.unit.client.conftest import World


async def test_an_answer_comes_as_deltas_and_leaves_its_start_end_and_cost_behind(world: World) -> None:
    async with world.client.generate("demo", "one two three") as generation:
        texts = [delta.text async for delta in generation]
    assert texts == ["one", " two", " three"]
    assert generation.started is not None
    assert generation.started.request_id == generation.request_id
    assert generation.location == "here"
    assert generation.finished is not None
    assert generation.finished.reason == generation_pb2.FINISH_REASON_STOP_TOKEN
    assert generation.usage is not None
    assert generation.usage.output_token_count == 3


async def test_text_collects_the_whole_answer_without_a_block(world: World) -> None:
    assert await world.client.chat("demo", "what is this").text() == "what is this"


async def test_events_are_those_of_the_contract_in_order(world: World) -> None:
    kinds = [event.WhichOneof("event") async for event in world.client.chat("demo", "a b").events()]
    assert kinds == ["started", "delta", "delta", "finished", "usage"]


async def test_leaving_the_block_cancels_the_call(world: World) -> None:
    async with world.client.generate("demo", "wait") as generation:
        async for event in generation.events():
            assert event.WhichOneof("event") == "started"
            break
    assert await world.inference.left.get() == generation.request_id


async def test_breaking_out_of_a_loop_without_a_block_cancels_the_call(world: World) -> None:
    generation = world.client.generate("demo", "on and on", ignore_eos=True)
    async for _ in generation:
        break
    assert await world.inference.left.get() == generation.request_id
    assert [delta async for delta in generation] == []


async def test_an_error_inside_the_block_cancels_the_call(world: World) -> None:
    async def fail_after_a_word() -> None:
        async with world.client.generate("demo", "on and on", ignore_eos=True, request_id="failing") as generation:
            async for _ in generation:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_after_a_word()
    assert await world.inference.left.get() == "failing"


async def test_cancelling_the_task_that_reads_cancels_the_call_and_the_task(world: World) -> None:
    generation = world.client.generate("demo", "wait")
    reading = asyncio.create_task(generation.text())
    await world.inference.arrived.get()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await world.inference.left.get() == generation.request_id


async def test_cancel_ends_a_loop_in_another_task_as_if_nothing_more_had_come(world: World) -> None:
    generation = world.client.generate("demo", "wait")
    reading = asyncio.create_task(generation.text())
    await world.inference.arrived.get()
    generation.cancel()
    assert await reading == ""
    assert await world.inference.left.get() == generation.request_id


async def test_a_request_cancelled_by_its_id_ends_with_finished_and_a_receipt(world: World) -> None:
    receipt = None
    async with world.client.generate("demo", "on and on", ignore_eos=True, max_tokens=10_000) as generation:
        async for _ in generation:
            if receipt is None:
                receipt = await world.client.cancel("demo", generation.request_id, generation.location)
    assert receipt is not None
    assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
    assert generation.finished is not None
    assert generation.finished.reason == generation_pb2.FINISH_REASON_CANCELLED


async def test_a_stream_that_breaks_raises_with_its_reason_after_what_had_come(world: World) -> None:
    deltas = aiter(world.client.generate("demo", "break"))
    assert (await anext(deltas)).text == "break"
    with pytest.raises(Unreachable) as caught:
        await anext(deltas)
    assert caught.value.own_reason == errors_pb2.ERROR_REASON_ENGINE_LOST


async def test_refusals_raise_the_class_that_says_who_can_cure_them(world: World) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        await world.client.chat("nowhere", "hello").text()
    with pytest.raises(TooLong, match="3000 tokens"):
        await world.client.generate("demo", " ".join(["word"] * 3000)).text()
    with pytest.raises(Unreachable) as caught:
        await world.client.chat("asleep", "hello").text()
    assert caught.value.retry_after_s == 1.0


async def test_options_that_are_set_are_sent_and_others_are_left_to_the_model(world: World) -> None:
    options = world.client.generate(
        "deployments/demo", [7, 8], max_tokens=2, temperature=0.0, seed=5, stop="end", request_id="mine"
    )
    await options.text()
    [sent] = world.inference.requests
    assert isinstance(sent, inference_service_pb2.GenerateRequest)
    assert (sent.deployment, sent.request_id) == ("demo", "mine")
    assert list(sent.prompt[0].token_ids.ids) == [7, 8]
    assert sent.sampling == generation_pb2.SamplingParams(max_tokens=2, temperature=0.0, seed=5, stop=["end"])


async def test_every_option_has_its_place_in_the_contract(world: World) -> None:
    resume = generation_pb2.Resume(seed=5, choices=[generation_pb2.ResumeChoice(choice=0)])
    await world.client.generate(
        "demo",
        "x",
        echo=True,
        min_tokens=1,
        min_p=0.1,
        typical_p=0.9,
        repetition_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        stop=["a", "b"],
        include_stop=True,
        logit_bias={7: -100},
        bad_words=["no"],
        bad_token_runs=[[1, 2], [3]],
        n=2,
        best_of=3,
        logprobs=4,
        prompt_logprobs=5,
        json_schema={"type": "null"},
        priority=6,
        resume=resume,
        failover="approximate",
        session_key="ada",
        labels={"team": "x"},
        max_duration_s=60,
        timeout_s=30,
        detach_s=20,
        seed=None,
    ).text()
    [sent] = world.inference.requests
    assert isinstance(sent, inference_service_pb2.GenerateRequest)
    assert sent.echo
    assert sent.options == generation_pb2.RequestOptions(
        priority=6,
        resume=resume,
        failover=generation_pb2.FAILOVER_POLICY_APPROXIMATE_OK,
        session_key="ada",
        labels={"team": "x"},
        max_duration=to_duration(60),
        on_disconnect={"policy": generation_pb2.DISCONNECT_POLICY_DETACH, "ttl": to_duration(20)},
    )
    assert sent.sampling == generation_pb2.SamplingParams(
        min_tokens=1,
        min_p=0.1,
        typical_p=0.9,
        repetition_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        stop=["a", "b"],
        include_stop=True,
        logit_bias={7: -100},
        bad_words=["no"],
        bad_token_runs=[{"ids": [1, 2]}, {"ids": [3]}],
        n=2,
        best_of=3,
        logprobs=4,
        prompt_logprobs=5,
        constraint={"json_schema": '{"type": "null"}'},
    )


def test_no_field_of_the_contract_lacks_an_option() -> None:
    fields = {field.name for field in generation_pb2.SamplingParams.DESCRIPTOR.fields} - {"constraint"}
    forms = {field.name for field in generation_pb2.Constraint.DESCRIPTOR.fields}
    assert fields | forms <= set(GenerationOptions.__annotations__)


async def test_a_text_where_several_may_be_is_one_of_them(world: World) -> None:
    await world.client.chat("demo", "x", stop="end", bad_words="never", choice="yes").text()
    [sent] = world.inference.requests
    assert sent.sampling == generation_pb2.SamplingParams(
        stop=["end"], bad_words=["never"], constraint={"choice": {"texts": ["yes"]}}
    )


@pytest.mark.parametrize(
    ("options", "constraint"),
    [
        ({"json_schema": '{"type": "null"}'}, {"json_schema": '{"type": "null"}'}),
        ({"json_object": True}, {"json_object": {}}),
        ({"json_object": False}, None),
        ({"regex": "a+"}, {"regex": "a+"}),
        ({"choice": ["a", "b"]}, {"choice": {"texts": ["a", "b"]}}),
        ({"ebnf": "start: A"}, {"ebnf": "start: A"}),
    ],
    ids=str,
)
async def test_each_form_of_an_output_is_sent_as_a_constraint(world: World, options: Any, constraint: Any) -> None:
    await world.client.chat("demo", "x", **options).text()
    [sent] = world.inference.requests
    assert sent.sampling == generation_pb2.SamplingParams(constraint=constraint)


async def test_the_texts_of_several_choices_are_kept_apart(world: World) -> None:
    generation = world.client.generate("demo", "a b", n=3)
    assert await generation.texts() == {0: "a b", 1: "a1 b1", 2: "a2 b2"}
    assert set(generation.finishes) == {0, 1, 2}
    assert generation.finished == generation.finishes[0]
    assert await world.client.generate("demo", "a b", n=2).text() == "a b"


async def test_a_conversation_may_be_a_text_pairs_dicts_or_messages(world: World) -> None:
    message = generation_pb2.Message(role=generation_pb2.ROLE_USER, content=[generation_pb2.ContentPart(text="fourth")])
    turns: Messages = [("system", "first"), {"role": "user", "content": "second"}, ("assistant", "third"), message]
    assert await world.client.chat("demo", turns).text() == "fourth"
    [sent] = world.inference.requests
    assert isinstance(sent, inference_service_pb2.ChatRequest)
    assert [each.content[0].text for each in sent.messages] == ["first", "second", "third", "fourth"]
    assert [each.role for each in sent.messages] == [1, 2, 3, 2]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_tokens": 1 << 40}, "sampling"),
        ({"stop_token_ids": [1 << 40]}, "sampling"),
        ({"logit_bias": {1 << 40: 1.0}}, "sampling"),
        ({"priority": 1 << 40}, "options"),
        ({"timeout_s": float("inf")}, "options"),
        ({"failover": "perhaps"}, "options.failover"),
        ({"regex": "a", "json_object": True}, "sampling.constraint"),
        ({"temprature": 0.5}, "sampling"),
    ],
    ids=["tokens", "ids", "biases", "priority", "time", "policy", "two forms", "a name of nothing"],
)
async def test_a_number_that_the_contract_cannot_hold_names_its_field(
    world: World, options: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        world.client.generate("demo", "x", **options)  # type: ignore[arg-type]
    assert [each.field for each in caught.value.fields] == [field]


async def test_an_unknown_role_is_refused_by_index(world: World) -> None:
    with pytest.raises(InvalidArgument) as caught:
        world.client.chat("demo", [("user", "x"), ("robot", "y")])
    assert [each.field for each in caught.value.fields] == ["messages[1].role"]


async def test_a_deadline_ends_a_request_that_says_nothing(world: World) -> None:
    with pytest.raises(DeadlineExceeded, match="allow more time"):
        await world.client.generate("demo", "wait", timeout_s=0.1).text()


async def test_a_client_that_is_not_open_says_how_to_open_it() -> None:
    with pytest.raises(RuntimeError, match="async with Client"):
        await Client().generate("demo", "x").text()
