"""Streams through connections that break, and engines that are lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from roundhouse.client import Client, NotConnected, OutOfOrder, TokensDiffer
from roundhouse.client.requests import Failover
from roundhouse.kit.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    NotReady,
    TooLong,
    Unreachable,
)
from roundhouse.v1 import errors_pb2, generation_pb2
from tests.support.cut_network import MOST_BYTES, WORDS, World, cut_network, cutting, losing, read, whole
from tests.support.scripted_run import token_id


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with cut_network() as it:
        yield it


@pytest.mark.parametrize("seed", range(12))
async def test_wherever_connections_are_cut_the_caller_sees_one_whole_stream(world: World, seed: int) -> None:
    draw = random.Random(seed)
    choices, cuts = draw.randint(1, 3), draw.randint(1, 6)
    world.proxy.limits.extend(draw.randint(200, MOST_BYTES // cuts) for _ in range(cuts))
    kinds = await whole(world.client.generate("demo", WORDS, n=choices, timeout_s=60, echo=True), choices)
    assert len(world.inference.requests) + len(world.inference.attached) > 1
    assert "resumed" not in kinds
    assert kinds.count("prompt") == 5
    assert len({each.request_id for each in world.inference.requests}) == 1
    assert world.inference.cancelled.empty()


@pytest.mark.parametrize("seed", range(12))
async def test_a_request_that_nobody_has_any_more_goes_on_behind_what_was_seen(world: World, seed: int) -> None:
    draw = random.Random(seed)
    lose_at = sorted(draw.randint(1, 40) for _ in range(draw.randint(1, 3)))
    times = len(lose_at)
    generation = world.client.generate("demo", WORDS, n=2, timeout_s=60, request_id="mine", ignore_eos=True)

    def lose(delta: generation_pb2.Delta) -> None:
        # What it told before it was lost comes still; it is lost again once another goes on.
        if lose_at and delta.first_position >= lose_at[0] and world.inference.lose("mine"):
            lose_at.pop(0)
        if len(generation.resumes) == times:
            world.inference.runs["mine"].ended.set()

    await read(generation, lose)
    assert generation.finished is not None
    assert generation.positions[0] == generation.positions[1] > 0
    assert [each.attempt for each in generation.resumes] == list(range(2, 2 + times))
    assert {each.exactness for each in generation.resumes} == {generation_pb2.EXACTNESS_EXACT}
    assert generation.location == f"there-{times + 1}"
    last = world.inference.requests[-1].options.resume
    assert (last.seed, last.fingerprint) == (7, "of this script")
    assert [each.choice for each in last.choices] == [0, 1]


async def test_a_request_that_is_lost_before_anything_was_seen_is_sent_again_with_what_is_left_of_its_time(
    world: World,
) -> None:
    world.proxy.limits.extend([60, 60])  # a connection, and nothing of an answer
    await whole(world.client.generate("demo", WORDS, timeout_s=60))
    bounds = [each.options.max_duration.ToNanoseconds() for each in world.inference.requests]
    assert bounds[0] == 60 * 10**9
    assert bounds == sorted(bounds, reverse=True)
    assert len(set(bounds)) == len(bounds) > 1
    for each in world.inference.requests:
        each.options.ClearField("max_duration")
    assert len({each.SerializeToString(deterministic=True) for each in world.inference.requests}) == 1
    assert world.inference.attached == []


async def test_a_request_with_the_id_of_another_one_is_refused_and_ends_nothing_though_its_first_call_broke_off(
    world: World,
) -> None:
    async with Client(world.address) as other, other.generate("demo", "on and on", request_id="job-7", ignore_eos=True):
        world.proxy.limits.append(60)  # a connection, and nothing of an answer
        with pytest.raises(AlreadyExists):
            await world.client.generate("demo", WORDS, request_id="job-7").text()
        assert world.inference.attached == []
        await world.client.__aexit__(None, None, None)
        assert world.inference.cancelled.empty()


async def test_an_answer_may_wait_through_a_network_that_is_away(world: World) -> None:
    generation = world.client.chat("demo", WORDS, detach_s=60)

    async def cut_and_mend() -> None:
        world.proxy.cut()
        await world.inference.left.get()
        world.proxy.mend()

    deltas = aiter(generation)
    first = await anext(deltas)
    mending = asyncio.create_task(cut_and_mend())
    rest = [delta.text async for delta in deltas]
    assert "".join([first.text, *rest]) == WORDS
    await mending


async def test_the_deadline_bounds_how_long_a_stream_is_tried_for(world: World) -> None:
    generation = world.client.generate("demo", "on and on", ignore_eos=True, timeout_s=1.0)
    with pytest.raises(DeadlineExceeded, match="allow more time"):
        await read(generation, lambda _: world.proxy.cut())


async def test_the_request_is_told_its_bounds(world: World) -> None:
    await world.client.chat("demo", "x", timeout_s=30).text()
    await world.client.chat("demo", "x").text()
    await world.client.chat("demo", "x", timeout_s=30, detach_s=0).text()
    bounded, unbounded, attached = [each.options for each in world.inference.requests]
    assert bounded.max_duration.seconds == 30
    assert bounded.on_disconnect.policy == generation_pb2.DISCONNECT_POLICY_DETACH
    assert bounded.on_disconnect.ttl.seconds == 10
    assert not unbounded.HasField("max_duration")
    assert attached == generation_pb2.RequestOptions()


async def test_what_is_not_detached_ends_with_its_connection(world: World) -> None:
    generation = world.client.generate("demo", "on and on", ignore_eos=True, detach_s=0)
    with pytest.raises(NotConnected):
        await read(generation, lambda _: world.proxy.cut())
    assert world.inference.attached == []


async def test_without_failover_what_is_lost_is_an_error(world: World) -> None:
    generation = world.client.generate("demo", WORDS, failover="never", request_id="mine", ignore_eos=True)
    with pytest.raises(Conflict) as caught:
        await read(generation, losing(world.inference, "mine"))
    assert caught.value.own_reason == errors_pb2.ERROR_REASON_REQUEST_LOST


async def test_an_engine_that_computes_something_else_may_go_on_only_if_that_was_allowed(world: World) -> None:
    world.inference.fingerprint_differs = True

    exact = world.client.generate("demo", WORDS, request_id="exact", ignore_eos=True)
    with pytest.raises(NotReady) as caught:
        await read(exact, losing(world.inference, "exact"))
    assert caught.value.own_reason == errors_pb2.ERROR_REASON_FINGERPRINT_DIFFERS
    other = world.client.generate(
        "demo", WORDS, request_id="other", failover="approximate", ignore_eos=True, max_tokens=400
    )
    await read(other, losing(world.inference, "other"))
    assert other.positions == {0: 400}


@pytest.mark.parametrize(
    ("failover", "fingerprint"),
    [("approximate", "of this script"), ("exact", "")],
    ids=["one that may differ", "one whose first output is of an unknown engine"],
)
async def test_an_output_that_may_differ_does_not_pass_for_exact_where_fingerprints_are_equal(
    world: World, failover: Failover, fingerprint: str
) -> None:
    before = generation_pb2.ResumeChoice(output_token_ids={"ids": [token_id(0, 0)]})
    resume = generation_pb2.Resume(seed=7, fingerprint=fingerprint, choices=[before])
    generation = world.client.generate(
        "demo", WORDS, request_id="mine", failover=failover, resume=resume, ignore_eos=True, max_tokens=60
    )
    deltas = aiter(generation)
    await anext(deltas)
    world.inference.lose("mine")
    async for _ in deltas:
        pass
    assert [each.exactness for each in generation.resumes] == [generation_pb2.EXACTNESS_APPROXIMATE]


async def test_the_best_of_several_is_made_again_with_its_seed_where_it_comes_out_the_same(world: World) -> None:
    generation = world.client.generate(
        "demo", WORDS, n=1, best_of=2, request_id="mine", ignore_eos=True, max_tokens=400
    )
    await read(generation, losing(world.inference, "mine"))
    assert generation.positions == {0: 400}
    again = world.inference.requests[-1].options.resume
    assert (again.seed, again.fingerprint, len(again.choices)) == (7, "of this script", 0)


async def test_the_best_of_several_is_not_made_again_by_an_engine_that_computes_something_else(world: World) -> None:
    world.inference.fingerprint_differs = True
    generation = world.client.generate("demo", WORDS, n=1, best_of=2, request_id="mine", ignore_eos=True)
    with pytest.raises(NotReady) as caught:
        await read(generation, losing(world.inference, "mine"))
    assert caught.value.own_reason == errors_pb2.ERROR_REASON_FINGERPRINT_DIFFERS


async def test_a_gap_is_an_error_and_ends_the_request(world: World) -> None:
    world.inference.gap = 2
    with pytest.raises(OutOfOrder, match="goes on at"):
        await read(world.client.generate("demo", WORDS, request_id="mine", ignore_eos=True), cutting(world, 5))
    assert await world.inference.cancelled.get() == "mine"


async def test_a_request_that_goes_on_though_it_cannot_be_told_any_more_is_cancelled(world: World) -> None:
    world.inference.refusal = TooLong("not kept any more", reason=errors_pb2.ERROR_REASON_POSITION_DROPPED)
    with pytest.raises(TooLong):
        await read(world.client.generate("demo", "on and on", request_id="mine", ignore_eos=True), cutting(world, 0))
    assert await world.inference.cancelled.get() == "mine"
    assert not world.inference.runs["mine"].is_lost


async def test_a_request_whose_engine_is_lost_after_a_break_is_not_cancelled(world: World) -> None:
    world.inference.refusal = Unreachable("its engine is lost", reason=errors_pb2.ERROR_REASON_ENGINE_LOST)
    with pytest.raises(Unreachable):
        await read(world.client.generate("demo", "on and on", request_id="mine", ignore_eos=True), cutting(world, 0))
    await world.client.__aexit__(None, None, None)
    assert world.inference.cancelled.empty()


async def test_tokens_that_are_not_what_the_engine_computed_are_an_error(world: World) -> None:
    with pytest.raises(TokensDiffer, match="not those that the engine computed"):
        await world.client.chat("demo", "one corrupt word").text()
