"""Streams through connections that break, engines that are lost and clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

import pytest

from roundhouse.client import Client, Generation, NotConnected, OutOfOrder, TokensDiffer
from roundhouse.client.addresses import CONNECT_S
from roundhouse.client.requests import Failover
from roundhouse.kit.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    NotReady,
    TooLong,
    Unreachable,
)
from roundhouse.v1 import errors_pb2, generation_pb2, receipt_pb2
from tests.support.scripted_cluster import scripted_cluster
from tests.support.scripted_inference import ScriptedInference
from tests.support.scripted_run import token_id
from tests.support.tcp_proxy import TcpProxy

WORDS = " ".join(f"word{number}" for number in range(40))
MOST_BYTES = 2_500  # less than an answer takes with all that belongs to it


@dataclass
class World:
    """A client behind a network that can be cut."""

    client: Client
    inference: ScriptedInference
    proxy: TcpProxy
    address: str


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with (
        scripted_cluster() as (serving, _, inference),
        TcpProxy(serving.address).serving() as proxy,
        Client(proxy.address) as client,
    ):
        yield World(client, inference, proxy, serving.address)


async def whole(generation: Generation, choices: int = 1) -> list[str]:
    """Reads to the end and checks that everything came once and in order; returns the kinds of the events."""
    kinds, prompt, ids, texts = [], "", dict[int, list[int]](), dict[int, str]()
    async with generation:
        async for event in generation.events():
            kinds.append(str(event.WhichOneof("event")))
            prompt += event.prompt.text
            if event.HasField("delta"):
                delta = event.delta
                assert delta.first_position == len(ids.setdefault(delta.choice, []))
                ids[delta.choice] += delta.token_ids
                texts[delta.choice] = texts.get(delta.choice, "") + delta.text
    assert prompt in ("", f"{WORDS} ")
    words = WORDS.split(" ")
    for choice in range(choices):
        assert ids[choice] == [token_id(choice, position) for position in range(len(words))]
        assert texts[choice] == " ".join(f"{word}{choice or ''}" for word in words)
    assert kinds.count("started") == kinds.count("usage") == 1
    assert (kinds[0], kinds[-1]) == ("started", "usage")
    assert kinds.count("finished") == choices
    return kinds


async def read(generation: Generation, act: Callable[[generation_pb2.Delta], object]) -> Generation:
    """Reads to the end and does something at each piece of output."""
    async for delta in generation:
        act(delta)
    return generation


def losing(inference: ScriptedInference, request_id: str) -> Callable[[generation_pb2.Delta], None]:
    """Returns what loses a request when its first token has come."""

    def lose(delta: generation_pb2.Delta) -> None:
        if delta.first_position == 0:
            inference.lose(request_id)

    return lose


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


async def test_of_several_addresses_the_first_that_answers_is_used_and_the_next_when_it_breaks(world: World) -> None:
    async with (
        TcpProxy(world.address).serving() as other,
        Client(["127.0.0.1:1", world.proxy.address, other.address]) as client,
    ):
        assert (await client.deployments.list()).deployments
        assert client.address == world.proxy.address
        deltas = aiter(client.chat("demo", WORDS, timeout_s=60))
        texts = [(await anext(deltas)).text]
        world.proxy.cut()
        texts += [delta.text async for delta in deltas]
        assert "".join(texts) == WORDS
        assert client.address == other.address
        assert (await client.deployments.list()).deployments
        async with client.nodes.watch() as watch:
            assert await anext(aiter(watch))


async def test_streams_that_break_together_move_on_together(world: World) -> None:
    async with (
        TcpProxy(world.address).serving() as other,
        Client([world.proxy.address, other.address, "127.0.0.1:1"]) as client,
    ):
        streams = [aiter(client.chat("demo", WORDS, timeout_s=60)) for _ in range(6)]
        texts = [(await anext(each)).text for each in streams]
        world.proxy.cut()
        for first, each in zip(texts, streams, strict=True):
            assert "".join([first, *[delta.text async for delta in each]]) == WORDS
        assert client.address == other.address


async def test_a_cancel_goes_to_where_the_request_was_sent_though_others_have_moved_on(world: World) -> None:
    async with (
        scripted_cluster() as (serving, _, there),
        # The other is asked at one place whether it has what was lost, and at the next to begin it again.
        Client([world.address, serving.address, serving.address]) as client,
    ):
        generation = client.generate("demo", "on and on", ignore_eos=True)
        deltas = aiter(generation)
        await anext(deltas)
        other = client.chat("demo", WORDS, request_id="other")
        await read(other, losing(world.inference, "other"))
        assert client.address == serving.address
        generation.cancel()
        await generation.left()
    assert world.inference.cancelled.get_nowait() == generation.request_id
    assert there.cancelled.empty()


async def test_an_address_that_says_nothing_leaves_time_for_the_next(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        async with Client([address, world.address], timeout_s=2.0) as client:
            assert (await client.deployments.list()).deployments
            assert client.address == world.address


async def test_the_bound_of_a_call_holds_for_finding_an_address_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        # Without a bound, two that say nothing take that long to find.
        async with Client([address, address], timeout_s=0.2) as client, asyncio.timeout(2 * CONNECT_S):
            with pytest.raises(DeadlineExceeded, match="did not finish in time"):
                await client.deployments.list()


async def test_addresses_may_be_one_text(world: World) -> None:
    async with Client(f"127.0.0.1:1, {world.address}") as client:
        assert await client.chat("demo", "one two").text() == "one two"


async def test_nobody_at_any_address_is_said_at_once() -> None:
    async with Client("127.0.0.1:1,127.0.0.1:2") as client:
        with pytest.raises(NotConnected):
            await client.chat("demo", "hello").text()
        with pytest.raises(NotConnected):
            await client.requests("demo")


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

    def cut(delta: generation_pb2.Delta) -> None:
        if delta.first_position == 5:
            world.proxy.cut()
            world.proxy.mend()

    with pytest.raises(OutOfOrder, match="goes on at"):
        await read(world.client.generate("demo", WORDS, request_id="mine", ignore_eos=True), cut)
    assert await world.inference.cancelled.get() == "mine"


async def test_a_request_that_goes_on_though_it_cannot_be_told_any_more_is_cancelled(world: World) -> None:
    world.inference.refusal = TooLong("not kept any more", reason=errors_pb2.ERROR_REASON_POSITION_DROPPED)

    def cut(_: generation_pb2.Delta) -> None:
        world.proxy.cut()
        world.proxy.mend()

    with pytest.raises(TooLong):
        await read(world.client.generate("demo", "on and on", request_id="mine", ignore_eos=True), cut)
    assert await world.inference.cancelled.get() == "mine"
    assert not world.inference.runs["mine"].is_lost


async def test_a_request_whose_engine_is_lost_after_a_break_is_not_cancelled(world: World) -> None:
    world.inference.refusal = Unreachable("its engine is lost", reason=errors_pb2.ERROR_REASON_ENGINE_LOST)

    def cut(_: generation_pb2.Delta) -> None:
        world.proxy.cut()
        world.proxy.mend()

    with pytest.raises(Unreachable):
        await read(world.client.generate("demo", "on and on", request_id="mine", ignore_eos=True), cut)
    await world.client.__aexit__(None, None, None)
    assert world.inference.cancelled.empty()


async def test_tokens_that_are_not_what_the_engine_computed_are_an_error(world: World) -> None:
    with pytest.raises(TokensDiffer, match="not those that the engine computed"):
        await world.client.chat("demo", "one corrupt word").text()


async def test_leaving_sends_a_cancel_and_keeps_its_receipt(world: World) -> None:
    async with world.client.generate("demo", "on and on", ignore_eos=True) as generation:
        async for _ in generation:
            break
    receipt = await generation.left()
    assert receipt is not None
    assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
    assert world.inference.cancelled.get_nowait() == generation.request_id


async def test_a_client_that_is_closed_has_cancelled_what_it_was_reading(world: World) -> None:
    async with Client(world.address) as client:
        deltas = aiter(client.generate("demo", "on and on", ignore_eos=True, request_id="mine"))
        await anext(deltas)
    assert world.inference.cancelled.get_nowait() == "mine"
    assert [delta async for delta in deltas] == []


async def test_a_request_that_has_ended_is_not_cancelled(world: World) -> None:
    async with world.client.generate("demo", WORDS) as generation:
        await generation.text()
    generation.cancel()
    assert await generation.left() is None
    with contextlib.suppress(NotFound):
        await world.client.generate("nowhere", "x").text()
    await world.client.__aexit__(None, None, None)
    assert world.inference.cancelled.empty()


async def test_a_cancel_that_gets_through_to_nobody_is_given_up_and_has_no_receipt(world: World) -> None:
    async with (
        Client(world.proxy.address) as client,
        client.generate("demo", "on and on", ignore_eos=True) as generation,
    ):
        async for _ in generation:
            break
        world.proxy.cut()
    assert await generation.left() is None


async def test_what_is_detached_goes_on_and_is_come_back_to(world: World) -> None:
    async with world.client.generate("demo", WORDS, request_id="mine", detach_s=60) as generation:
        texts = []
        async for delta in generation:
            texts.append(delta.text)
            if delta.first_position == 9:
                generation.detach()
    assert generation.positions == {0: 10}
    rest = world.client.attach("demo", "mine", generation.location, after=generation.positions)
    assert "".join([*texts, await rest.text()]) == WORDS
    assert rest.started is not None
    assert rest.finished is not None
    assert rest.finished.exactness == generation_pb2.EXACTNESS_EXACT
    assert world.inference.cancelled.empty()
    assert await world.client.attach("demo", "mine").text() == WORDS


async def test_leaving_what_was_attached_to_leaves_it_to_others_and_cancel_ends_it(world: World) -> None:
    async with world.client.generate("demo", "on and on", ignore_eos=True, request_id="mine") as generation:
        deltas = aiter(generation)
        await anext(deltas)
        async with world.client.attach("demo", "mine") as second:
            async for _ in second:
                break
        assert await second.left() is None
        assert world.inference.cancelled.empty()
        third = world.client.attach("demo", "mine")
        async for _ in third:
            third.cancel()
        assert await world.inference.cancelled.get() == "mine"
        async for _ in deltas:
            pass
    assert generation.finished is not None
    assert generation.finished.reason == generation_pb2.FINISH_REASON_CANCELLED


async def test_an_attached_stream_survives_as_well_and_a_request_that_is_not_there_is_not_found(world: World) -> None:
    async with world.client.generate("demo", WORDS, request_id="mine") as generation:
        deltas = aiter(generation)
        await anext(deltas)
        world.proxy.limits.extend([700, 700])
        async with Client(world.proxy.address) as other:
            await whole(other.attach("demo", "mine"))
            with pytest.raises(NotFound):
                await other.attach("demo", "never").text()


@pytest.mark.parametrize("after", [{0: 2**31}, {2**31: 1}, {0: -(2**31) - 1}], ids=str)
async def test_a_position_that_the_contract_cannot_hold_is_refused_by_name(
    world: World, after: Mapping[int, int]
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        world.client.attach("demo", "mine", after=after)
    assert [each.field for each in caught.value.fields] == ["after"]


async def test_requests_are_listed_and_looked_up(world: World) -> None:
    for request_id in ("a", "b", "c"):
        await world.client.chat("demo", "one two", request_id=request_id, labels={"team": "x"}).text()
    listing = await world.client.requests("demo")
    assert [each.request_id for each in listing.requests] == ["c", "b", "a"]
    found = await world.client.request("demo", "b")
    assert found.receipt.outcome == receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
    assert found.labels == {"team": "x"}
    with pytest.raises(NotFound):
        await world.client.request("demo", "never")
