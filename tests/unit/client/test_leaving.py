"""Clients that leave their requests, come back to them, and look for them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping

import pytest

from roundhouse.client import Client
from roundhouse.kit.errors import (
    InvalidArgument,
    NotFound,
)
from roundhouse.v1 import generation_pb2, receipt_pb2
from tests.support.cut_network import WORDS, World, cut_network, whole


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with cut_network() as it:
        yield it


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
