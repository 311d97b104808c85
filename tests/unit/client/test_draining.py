"""What is asked about nodes that are taken out of use."""

from __future__ import annotations

import asyncio

import pytest

from roundhouse.kit.errors import Conflict, DeadlineExceeded, InvalidArgument, NotFound
from roundhouse.v1 import node_pb2
from tests.unit.client.conftest import World


async def test_a_node_is_cordoned_drained_and_uncordoned(world: World) -> None:
    nodes = world.client.nodes
    assert (await nodes.cordon("one")).is_cordoned
    assert (await nodes.drain("nodes/one", drain_grace_s=2.5, allow_unserved=True)).drain.grace.nanos == 500_000_000
    assert (await nodes.wait_drained("one", 20)).name == "nodes/one"
    assert not (await nodes.uncordon("one")).is_cordoned


async def test_waiting_tells_what_is_left_and_why(world: World) -> None:
    await world.client.nodes.drain("one")
    seen: list[node_pb2.Node] = []
    with pytest.raises(DeadlineExceeded, match=r'"one" is not drained after 0.2 s: 3 replicas are left; demo-0 stays'):
        await world.client.nodes.wait_drained("one", 0.2, seen.append)
    assert [len(each.replicas) for each in seen][:1] == [3]


async def test_waiting_ends_when_somebody_else_uncordons_the_node(world: World) -> None:
    await world.client.nodes.drain("one")
    seen = asyncio.Event()
    waiting = asyncio.create_task(world.client.nodes.wait_drained("one", 20, lambda _: seen.set()))
    await seen.wait()
    await world.client.nodes.uncordon("one")
    with pytest.raises(Conflict, match="somebody has uncordoned it"):
        await waiting


async def test_what_cannot_be_is_refused_here(world: World) -> None:
    with pytest.raises(InvalidArgument, match="the contract cannot carry it"):
        await world.client.nodes.drain("one", drain_grace_s=1e300)
    with pytest.raises(NotFound):
        await world.client.nodes.wait_drained("two", 20)
