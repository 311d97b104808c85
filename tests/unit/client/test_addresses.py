"""Clients with several addresses: which is called, and which when that does not answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from roundhouse.client import Client, NotConnected
from roundhouse.client.addresses import CONNECT_S
from roundhouse.kit.errors import (
    DeadlineExceeded,
)
from tests.support.cut_network import WORDS, World, cut_network, losing, read
from tests.support.scripted_cluster import scripted_cluster
from tests.support.tcp_proxy import TcpProxy


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with cut_network() as it:
        yield it


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
