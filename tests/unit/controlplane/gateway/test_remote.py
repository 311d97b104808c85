"""A gateway that follows a control plane which comes, goes, stands still and forgets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from controlplane.api.fleet import FleetApi
from controlplane.auth.told import ToldCallers
from controlplane.gateway.remote import HELD_S, RemoteRoutes
from controlplane.model import NodeId, ReplicaUid, Route, Routes
from roundhouse.internal.v1 import fleet_service_pb2
from roundhouse.kit.channel import open_channel
from roundhouse.kit.latest import Latest
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.kit.tasks import looping
from tests.support.clock import FakeClock

DESCRIPTOR = fleet_service_pb2.DESCRIPTOR.services_by_name["FleetService"]
ONE = Route("chat", 0, ReplicaUid("r"), 1, NodeId("a"), "10.0.0.1:1", "e", b"key", True, 3, 4)
CHAT = Routes({"chat": (ONE,)})
STALE = Routes({"chat": (replace(ONE, is_stale=True),)}, is_current=False)
SILENT = Routes({"chat": ()}, silent={"chat": {ONE.replica_uid: 0}})


class Gateway:
    """What a gateway knows, and the control planes that it hears of it from, one life after the other."""

    def __init__(self, *, silence_s: float = 20.0) -> None:
        self.told: Latest[Routes] = Latest(CHAT)
        self.clock = FakeClock()
        self.remote: RemoteRoutes
        self._address, self._silence_s = "127.0.0.1:0", silence_s
        self._life = contextlib.AsyncExitStack()

    async def start(self, servicer: object | None = None) -> None:
        """Starts a control plane, in the place of the one before."""
        serving = serve(Listen.parse(self._address), [Service(DESCRIPTOR, servicer or FleetApi(self.told))], grace_s=0)
        self._address = (await self._life.enter_async_context(serving)).address

    async def stop(self) -> None:
        """Ends it."""
        await self._life.aclose()

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follows for the block."""
        async with open_channel(self._address) as channel:
            self.remote = RemoteRoutes(
                channel,
                ToldCallers(self.clock, lambda: True),
                gateway_id="g",
                random=lambda: 0.0,
                now_s=self.clock.monotonic,
                silence_s=self._silence_s,
            )
            async with looping({"remote": self.remote.run}):
                yield

    async def until(self, holds: Callable[[Routes], bool]) -> Routes:
        """Waits until something holds of what is known."""
        async with asyncio.timeout(30):
            async for routes in self.remote.routes.watch():
                if holds(routes):
                    return routes
        raise AssertionError("a watch never ends")


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    it = Gateway()
    await it.start()
    try:
        async with it.following():
            yield it
    finally:
        await it.stop()


async def test_nothing_is_known_before_the_control_plane_knows(gateway: Gateway) -> None:
    await gateway.until(lambda routes: routes == CHAT)
    await gateway.stop()
    gateway.told = Latest(Routes({}, is_current=False))
    await gateway.start()
    assert await gateway.until(lambda routes: not routes.is_current) == STALE
    gateway.told.set(CHAT)
    await gateway.until(lambda routes: routes == CHAT)


async def test_while_it_is_away_what_was_known_stays_and_its_load_is_stale(gateway: Gateway) -> None:
    await gateway.until(lambda routes: routes == CHAT)
    await gateway.stop()
    assert await gateway.until(lambda routes: not routes.is_current) == STALE
    gateway.told.set(Routes({"new": ()}))
    await gateway.start()
    assert await gateway.until(lambda routes: routes.is_current) == Routes({"new": ()})


async def test_engines_of_nodes_that_a_new_life_has_not_heard_of_are_kept_for_a_while(gateway: Gateway) -> None:
    await gateway.until(lambda routes: routes == CHAT)
    await gateway.stop()
    assert await gateway.until(lambda routes: not routes.is_current) == STALE
    gateway.told.set(SILENT)
    await gateway.start()
    assert await gateway.until(lambda routes: routes.is_current) == replace(STALE, is_current=True)
    gateway.clock.advance(HELD_S)
    gateway.told.set(replace(SILENT, deleting=frozenset({"chat"})))
    assert await gateway.until(lambda routes: "chat" in routes.deleting) == gateway.told.get()


async def test_engines_that_were_kept_are_as_told_once_their_node_is_heard_of(gateway: Gateway) -> None:
    await gateway.until(lambda routes: routes == CHAT)
    await gateway.stop()
    assert await gateway.until(lambda routes: not routes.is_current) == STALE
    gateway.told.set(SILENT)
    await gateway.start()
    await gateway.until(lambda routes: routes.is_current)
    gateway.told.set(CHAT)
    await gateway.until(lambda routes: routes == CHAT)


class Hangs:
    """A control plane that stands still after its first look: the call goes on and nothing comes."""

    def __init__(self) -> None:
        self.calls = 0

    async def WatchRoutes(self, request: Any, context: Any) -> None:
        self.calls += 1
        await context.write(
            fleet_service_pb2.WatchRoutesResponse(
                events=[
                    fleet_service_pb2.RoutesEvent(changed=fleet_service_pb2.DeploymentRoutes(deployment="chat")),
                    fleet_service_pb2.RoutesEvent(bookmark={}),
                ]
            )
        )
        await asyncio.Event().wait()


async def test_one_that_stands_still_is_called_again() -> None:
    it, hangs = Gateway(silence_s=0.2), Hangs()
    await it.start(hangs)
    try:
        async with it.following():
            await it.until(lambda routes: routes.is_current)
            await it.until(lambda routes: not routes.is_current)
            await it.until(lambda routes: routes.is_current)
            assert hangs.calls >= 2
    finally:
        await it.stop()
