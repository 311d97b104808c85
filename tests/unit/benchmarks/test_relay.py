"""What is measured of a relay: streams as an engine gives them, looked at whole, and the table made of that."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import pytest

from benchmarks.support.relay_report import table
from benchmarks.support.relays import envoy_config
from benchmarks.support.token_reader import METHOD, PROMPT_COUNT, Stream, figures, first_tokens, request
from benchmarks.support.token_reader import stream as stream_all
from benchmarks.support.token_source import DEPLOYMENT, Source, token_id, told
from benchmarks.support.token_steps import Steps
from roundhouse.internal.hops import HOP_KEY
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.chain import EMPTY, chain
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.v1 import generation_pb2, inference_service_pb2, receipt_pb2

INFERENCE = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"]


@contextlib.asynccontextmanager
async def source() -> AsyncIterator[tuple[str, grpc.aio.Channel]]:
    async with (
        serve(Listen("127.0.0.1", 0), [Service(INFERENCE, Source())], grace_s=0.0) as serving,
        open_channel(serving.address) as channel,
    ):
        yield serving.address, channel


async def read(call: Any) -> list[bytes]:
    messages = []
    async with cancelling(call):
        while (message := await call.read()) is not grpc.aio.EOF:
            messages.append(message)
    return messages


def events(messages: list[bytes]) -> list[generation_pb2.GenerationEvent]:
    return [each for one in messages for each in inference_service_pb2.GenerateResponse.FromString(one).events]


async def test_the_source_streams_as_an_engine_does() -> None:
    async with source() as (_, channel):
        call: Any = channel.unary_stream(METHOD)
        started, *deltas, finished, usage = events(await read(call(request("a", 1, 500.0, 20))))
    assert (started.started.attempt, started.started.prompt_token_count) == (1, PROMPT_COUNT)
    ids = [each for event in deltas for each in event.delta.token_ids]
    assert ids == [token_id(position) for position in range(20)]
    assert [event.delta.first_position for event in deltas[1:]] == [
        sum(len(each.delta.token_ids) for each in deltas[: number + 1]) for number in range(len(deltas) - 1)
    ]
    assert finished.finished.token_hash == chain(EMPTY, ids)
    assert usage.usage.output_token_count == 20


async def test_the_source_tells_a_keeper_what_it_takes_to_go_on() -> None:
    hop = ((HOP_KEY, hop_pb2.Hop(wants_kept=True).SerializeToString()),)
    async with source() as (_, channel):
        call: Any = channel.unary_stream(METHOD)
        first, *_ = await read(call(request("a", 1, 500.0, 1), metadata=hop))
    response = hop_pb2.KeptResponse.FromString(first)
    assert response.events[0].started.attempt == 1
    assert len(response.kept.generate.options.resume.prompt_token_ids.ids) == PROMPT_COUNT
    assert not response.kept.generate.prompt


async def test_a_run_begins_when_its_last_stream_has_come() -> None:
    async with source() as (_, channel):
        call: Any = channel.unary_stream(METHOD)
        first = call(request("both", 2, 500.0, 3))
        async with cancelling(first):
            assert events([await first.read()])[0].HasField("started")
            alone = asyncio.ensure_future(first.read())
            others = events(await read(call(request("both", 2, 500.0, 3))))
            [begins] = events([await alone])
    assert begins.delta.text == others[1].delta.text  # both say the same time


async def test_a_stream_of_the_source_can_be_cancelled_by_its_id() -> None:
    async with source() as (_, channel):
        body = request("long", 1, 500.0, 1_000_000)
        request_id = inference_service_pb2.GenerateRequest.FromString(body).request_id
        call: Any = channel.unary_stream(METHOD)
        reading = asyncio.ensure_future(read(running := call(body)))
        await running.initial_metadata()
        cancel: Any = channel.unary_unary(
            METHOD.replace("Generate", "CancelRequest"),
            request_serializer=inference_service_pb2.CancelRequestRequest.SerializeToString,
            response_deserializer=inference_service_pb2.CancelRequestResponse.FromString,
        )
        asked = inference_service_pb2.CancelRequestRequest(deployment=DEPLOYMENT, request_id=request_id)
        assert (await cancel(asked)).receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
        *_, finished, _ = events(await reading)
        assert finished.finished.reason == generation_pb2.FINISH_REASON_CANCELLED
        assert (await cancel(asked)).receipt.outcome == receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED


async def test_first_tokens_are_timed_one_after_the_other() -> None:
    async with source() as (address, _):
        found = (await first_tokens(address, 10))["first_token_s"]
    assert len(found) == 10
    assert all(0 < each < 5 for each in found)


async def test_a_step_brings_several_tokens_where_timers_are_not_fine_enough() -> None:
    steps = Steps(1, 50_000.0)
    with steps.joined():
        await steps.begun()
        before = steps.due()
        assert before % 50 == 0
        while steps.due() == before:
            await steps.newer()
        assert steps.due() >= before + 50


def read_at(*messages: tuple[float, int, int]) -> Stream:
    return Stream([told(first, end) for _, first, end in messages], [at_s for at_s, _, _ in messages])


def test_tokens_are_late_by_their_step_and_those_that_come_together_by_the_first_of_them() -> None:
    # 10 tokens a second from 100.0 s on
    found = figures([read_at((100.01, 0, 1), (100.11, 1, 2), (100.51, 2, 6))], 10.0, 6, (100.0, 100.0, 102.0))
    assert found["tokens_per_s"] == 3.0
    assert found["messages_per_s"] == 1.5
    assert found["late_p50_s"] == pytest.approx(0.31)
    assert found["late_p99_s"] == pytest.approx(0.31)


def test_what_came_before_or_behind_the_window_is_not_counted() -> None:
    found = figures([read_at((100.0, 0, 1), (100.2, 1, 2), (100.9, 2, 3))], 10.0, 3, (100.0, 100.1, 100.6))
    assert found["tokens_per_s"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    "stream",
    [read_at((1.0, 0, 1), (1.1, 2, 3)), read_at((1.0, 0, 2), (1.1, 1, 3)), read_at((1.0, 0, 9))],
    ids=["a token is missing", "a token came twice", "there are more than were asked for"],
)
def test_a_stream_that_is_not_whole_is_no_result(stream: Stream) -> None:
    with pytest.raises(ValueError, match="came"):
        figures([stream], 10.0, 4, (1.0, 1.0, 2.0))


def stream(way: str, offered: int, *, round_: int = 0, keeps_up: bool = True, **fields: float) -> Mapping[str, Any]:
    given = {"late_p99_s": 0.02, "tokens_per_s": float(offered), "window_s": 2.0, **fields}
    return {
        "kind": "stream",
        "way": way,
        "streams": 100,
        "round": round_,
        "offered_per_s": offered,
        "keeps_up": keeps_up,
        **given,
    }


def first_token(way: str, p50_s: float, round_: int = 0) -> Mapping[str, Any]:
    return {"kind": "first token", "way": way, "round": round_, "p50_s": p50_s, "p99_s": 2 * p50_s}


def test_a_table_tells_what_a_relay_adds_takes_and_keeps_up_with() -> None:
    records = [
        *(first_token("direct", each, number) for number, each in enumerate((0.001, 0.002, 0.003))),
        *(first_token("gateway", each, number) for number, each in enumerate((0.0015, 0.003, 0.0055))),
        stream("direct", 5000),
        stream("direct", 20000),
        stream("gateway", 5000, relay_cpu_s=1.0),
        stream("gateway", 20000, relay_cpu_s=1.9, keeps_up=False),
    ]
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table(records).splitlines()]
    assert lines[0] == ["direct", "gateway"]
    assert lines[2] == ["first token, p50", "2.00 ms", "3.00 ms (+1.00)"]
    assert lines[4] == ["processor time for 1,000 tokens, 100 streams of 50/s", "–", "100.0 ms"]
    assert lines[5] == [
        "the most tokens/s, 100 streams, round by round",
        "at least 20,000 (20 ms)",
        "5,000 (20 ms)",
    ]


def test_a_round_in_which_nothing_was_kept_up_with_is_told_like_the_others() -> None:
    records = [
        *(first_token("direct", 0.001, number) for number in range(2)),
        *(stream("direct", 5000, round_=number) for number in range(2)),
        stream("gateway", 5000, round_=0),
        stream("gateway", 5000, round_=1, keeps_up=False),
        first_token("gateway", 0.002),
    ]
    assert table(records).splitlines()[-1].endswith("| at least 5,000 (20 ms) / none |")


def test_envoy_is_given_no_limit_that_a_run_could_reach() -> None:
    told_ = json.dumps(envoy_config(1234, "127.0.0.1:5678"))
    for name in ("max_concurrent_streams", "max_requests", "max_pending_requests", "initial_stream_window_size"):
        assert f'"{name}": {1 << 20}' in told_
    assert '"timeout": "0s"' in told_


async def test_streams_are_read_whole_and_measured_in_their_window() -> None:
    async with source() as (address, _):
        found = await stream_all(address, 5, 200.0, 0.1, 0.5, {"source": os.getpid()})
    assert (found["whole_count"], found["error"]) == (5, "")
    assert found["tokens_per_s"] == pytest.approx(1000, rel=0.5)
    assert found["source_cpu_s"] > 0
