"""The session with the control plane comes back whatever ends it, and nothing else depends on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest

from nodeagent.uplink import Dial, Uplink
from roundhouse.internal.v1 import agent_service_pb2 as wire
from roundhouse.kit.channel import open_channel
from roundhouse.kit.errors import AlreadyExists, Unauthenticated
from roundhouse.v1 import errors_pb2
from tests.support.scripted_control_plane import PATIENCE_S, ScriptedControlPlane


class Agent:
    """An uplink, what it reports, and what it was told."""

    def __init__(self, address: str, dial: Dial = open_channel) -> None:
        self.said = wire.JoinRequest(node_id="a", protocol_version=1)
        self.hint = asyncio.Event()
        self.taken: asyncio.Queue[wire.JoinResponse] = asyncio.Queue()
        self.uplink = Uplink(
            address,
            dial,
            report=lambda: self.said,
            take=self.taken.put,
            hint=self.hint,
            random=lambda: 0.5,
        )

    async def assigned(self, generation: int) -> wire.JoinResponse:
        async with asyncio.timeout(PATIENCE_S):
            while (message := await self.taken.get()).order.generation != generation:
                continue
            return message


class Turned:
    """Dials where it is let in at the second attempt."""

    def __init__(self) -> None:
        self.attempts = 0

    @contextlib.asynccontextmanager
    async def dial(self, address: str) -> AsyncIterator[grpc.aio.Channel]:
        self.attempts += 1
        if self.attempts == 1:
            raise Unauthenticated("the join token is unknown: make another one")
        async with open_channel(address) as channel:
            yield channel


@contextlib.asynccontextmanager
async def agent(address: str, dial: Dial = open_channel) -> AsyncIterator[Agent]:
    it = Agent(address, dial)
    running = asyncio.create_task(it.uplink.run())
    try:
        yield it
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def plane() -> AsyncIterator[ScriptedControlPlane]:
    """A control plane that serves."""
    plane = ScriptedControlPlane()
    async with plane.serving():
        yield plane


async def test_reports_go_up_and_assignments_come_down(plane: ScriptedControlPlane) -> None:
    async with agent(plane.address) as it:
        await plane.until(lambda report: report.node_id == "a")
        await it.assigned(0)
        plane.assign()
        await it.assigned(1)
    assert plane.session_count.get() == 1


async def test_a_change_is_reported_at_once(plane: ScriptedControlPlane) -> None:
    async with agent(plane.address) as it:
        await plane.until(lambda report: report.node_id == "a")
        it.said = wire.JoinRequest(node_id="b")
        it.hint.set()
        async with asyncio.timeout(1.9):  # the heartbeat alone would take two
            await plane.until(lambda report: report.node_id == "b")


async def test_each_of_many_changes_is_reported_without_waiting_for_a_heartbeat(plane: ScriptedControlPlane) -> None:
    async with agent(plane.address) as it:
        await plane.until(lambda report: report.node_id == "a")
        async with asyncio.timeout(1.9):
            for name in "bcd":
                it.said = wire.JoinRequest(node_id=name)
                it.hint.set()
                await plane.until(lambda report, name=name: report.node_id == name)  # type: ignore[misc]


async def test_without_news_a_heartbeat_comes_well_within_the_lease(plane: ScriptedControlPlane) -> None:
    async with agent(plane.address) as it:
        await plane.until(lambda report: report.node_id == "a")
        it.said = wire.JoinRequest(node_id="b")
        async with asyncio.timeout(7.0):
            await plane.until(lambda report: report.node_id == "b")


async def test_a_control_plane_that_comes_back_is_joined_again() -> None:
    plane = ScriptedControlPlane()
    async with plane.serving() as address:
        pass
    async with agent(address) as it:
        async with plane.serving(address):
            await it.assigned(0)
        plane.assign()
        async with plane.serving(address):
            await it.assigned(1)
        assert plane.session_count.get() >= 2


async def test_a_control_plane_that_hangs_up_is_called_again(plane: ScriptedControlPlane) -> None:
    plane.hangs_up_after_first = True
    async with agent(plane.address) as it:
        await it.assigned(0)
        plane.assign()
        await it.assigned(1)
    assert plane.session_count.get() >= 2


async def test_an_agent_that_is_refused_asks_again(plane: ScriptedControlPlane) -> None:
    plane.refuses_with = AlreadyExists("another agent has this id", reason=errors_pb2.ERROR_REASON_NODE_CONNECTED)
    async with agent(plane.address) as it:
        await plane.until_sessions(2)
        plane.refuses_with = None
        await it.assigned(0)


async def test_a_version_that_is_not_spoken_is_not_obeyed(plane: ScriptedControlPlane) -> None:
    plane.send(wire.JoinResponse(protocol_version=2, order=wire.Order(cluster_id="cluster", generation=5)))
    async with agent(plane.address) as it:
        await plane.until_sessions(2)
        assert it.taken.empty()


async def test_a_redirection_is_followed(plane: ScriptedControlPlane) -> None:
    other = ScriptedControlPlane()
    async with other.serving() as address:
        other.assign()
        plane.send(wire.JoinResponse(protocol_version=1, redirect_address=address))
        async with agent(plane.address) as it:
            await it.assigned(1)


async def test_a_redirection_into_nowhere_comes_home(plane: ScriptedControlPlane) -> None:
    other = ScriptedControlPlane()
    async with other.serving() as address:
        pass
    plane.send(wire.JoinResponse(protocol_version=1, redirect_address=address))
    async with agent(plane.address) as it:
        await plane.until_sessions(2)
        plane.assign()
        await it.assigned(1)


async def test_an_agent_that_gets_no_certificate_asks_again(plane: ScriptedControlPlane) -> None:
    turned = Turned()
    plane.assign()
    async with agent(plane.address, turned.dial) as it:
        await it.assigned(1)
    assert turned.attempts == 2
