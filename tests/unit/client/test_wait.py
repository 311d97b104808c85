"""Waiting for what was asked, and not for what somebody else asked."""

from __future__ import annotations

import asyncio
import math

import pytest

from roundhouse.client import Progress, deployment
from roundhouse.kit.errors import Conflict, InvalidArgument
from roundhouse.v1 import deployment_pb2
from tests.unit.client.conftest import World


async def test_a_count_that_is_replaced_meanwhile_is_a_conflict_that_names_both(world: World) -> None:
    four = await world.client.deployments.scale("demo", 4)
    three = await world.client.deployments.scale("demo", 3)
    with pytest.raises(Conflict, match=r'"demo" .* of 4 \(generation 2\) and meanwhile one of 3 \(generation 3\)'):
        await world.client.deployments.wait_ready("demo", 30, wanted=four)
    ready = await world.client.deployments.wait_ready("demo", 30, wanted=three)
    assert len(ready.replicas) == 3


async def test_a_later_change_that_wants_the_same_count_is_what_was_asked(world: World) -> None:
    four = await world.client.deployments.scale("demo", 4)
    await world.client.deployments.scale("demo", 3)
    await world.client.deployments.scale("demo", 4)
    ready = await world.client.deployments.wait_ready("demo", 30, wanted=four)
    assert len(ready.replicas) == 4


async def test_a_watch_that_still_shows_what_was_before_is_not_the_end(world: World) -> None:
    before = await world.client.deployments.get("demo")
    wanted = deployment_pb2.Deployment()
    wanted.CopyFrom(before)
    wanted.generation, wanted.replica_count = before.generation + 1, 4
    was_seen = asyncio.Event()

    def note(progress: Progress) -> None:
        was_seen.set()

    waiting = asyncio.create_task(world.client.deployments.wait_ready("demo", 30, note, wanted=wanted))
    await was_seen.wait()
    await world.client.deployments.scale("demo", 4)
    assert (await waiting).deployment.replica_count == 4


async def test_another_deployment_of_the_same_name_is_a_conflict(world: World) -> None:
    wanted = await world.client.deployments.create(deployment("brief", builtin="demo"))
    wanted.uid = "of an earlier one"
    with pytest.raises(Conflict, match='"brief" was deleted and created again meanwhile'):
        await world.client.deployments.wait_ready("brief", 30, wanted=wanted)


async def test_what_the_contract_cannot_carry_is_an_invalid_argument(world: World) -> None:
    asked = world.client.deployments
    for call in (
        asked.scale("demo", 99999999999),
        asked.delete("demo", drain_grace_s=math.nan),
        asked.delete("demo", drain_grace_s=math.inf),
        asked.delete("demo", drain_grace_s=1e300),
        asked.get("\udcff"),
        asked.create(deployment("chat", builtin="demo"), request_id="\udcff"),
    ):
        with pytest.raises(InvalidArgument, match="the contract cannot carry it"):
            await call
