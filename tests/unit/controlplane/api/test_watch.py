"""WatchDeployments and WatchReplicas: first everything, then changes, and a cursor that loses nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controlplane.api.paging import MESSAGE_BYTES
from controlplane.api.watching import stream
from controlplane.fleet.changes import Marks
from roundhouse.kit.errors import TooLong
from roundhouse.v1 import deployment_pb2
from roundhouse.v1 import deployment_service_pb2 as pb
from tests.support.plane import Plane, plane_on, reason_of, refused, take_in
from tests.support.scripted_agent import ScriptedAgent

CHAT = "deployments/chat"


async def delete(plane: Plane, name: str) -> None:
    await plane.deployments.DeleteDeployment(pb.DeleteDeploymentRequest(name=f"deployments/{name}"))
    await plane.until(lambda all_: f"deployments/{name}" not in all_)


async def first_events(plane: Plane, cursor: str = "") -> list[pb.DeploymentEvent]:
    """Everything up to and with the first bookmark."""
    events = []
    call = plane.deployments.WatchDeployments(pb.WatchDeploymentsRequest(cursor=cursor))
    async with plane.watching(call) as watch:
        async for event in watch:
            events.append(event)
            if event.HasField("bookmark"):
                break
    return events


def kinds(events: list[pb.DeploymentEvent]) -> list[str]:
    return [event.changed.name or event.deleted or "bookmark" for event in events]


async def test_a_watch_begins_with_everything_and_a_bookmark(plane: Plane) -> None:
    assert kinds(await first_events(plane)) == ["bookmark"]
    await plane.create("a", allow_pending=True)
    await plane.create("b", allow_pending=True)
    assert kinds(await first_events(plane)) == ["deployments/a", "deployments/b", "bookmark"]


async def test_every_state_on_the_way_to_ready_is_seen(plane: Plane) -> None:
    agent = ScriptedAgent("one")
    agent.is_keen = False
    async with agent.joined(plane.address):
        call = plane.deployments.WatchReplicas(pb.WatchReplicasRequest(parent="deployments/-"))
        async with plane.watching(call) as events:
            assert (await anext(events)).HasField("bookmark")
            await plane.create()
            states: list[str] = []
            seen: dict[str, Any] = {}
            async for event in events:
                take_in(event, seen)
                state = deployment_pb2.ReplicaState.Name(seen[f"{CHAT}/replicas/0"].state)
                if state not in states:
                    states.append(state)
                if state.endswith("STARTING"):
                    agent.become(deployment_pb2.REPLICA_STATE_READY)
                if state.endswith("READY"):
                    break
        assert states[-2:] == ["REPLICA_STATE_STARTING", "REPLICA_STATE_READY"]
        assert states[0] == "REPLICA_STATE_PENDING"


async def test_a_deletion_is_told_to_deployments_and_replicas(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        await plane.create(replica_count=2)
        call = plane.deployments.WatchReplicas(pb.WatchReplicasRequest(parent=CHAT))
        async with plane.watching(call) as events:
            seen: dict[str, Any] = {}
            async for event in events:
                if event.HasField("bookmark"):
                    break
                take_in(event, seen)
            assert len(seen) == 2
            await delete(plane, "chat")
            async for event in events:
                take_in(event, seen)
                if not seen:
                    break
            await plane.create()  # the stream goes on
            assert (await anext(events)).changed.name == f"{CHAT}/replicas/0"


async def test_a_watch_of_replicas_of_nothing_is_not_found(plane: Plane) -> None:
    async def first() -> Any:
        return await plane.deployments.WatchReplicas(pb.WatchReplicasRequest(parent=CHAT)).read()

    assert reason_of(await refused(first())) == "DEPLOYMENT_NOT_FOUND"


async def test_a_watch_of_one_deployment_shows_no_other(plane: Plane) -> None:
    await plane.create("a", allow_pending=True)
    call = plane.deployments.WatchReplicas(pb.WatchReplicasRequest(parent="deployments/a"))
    async with plane.watching(call) as events:
        assert (await anext(events)).changed.name == "deployments/a/replicas/0"
        assert (await anext(events)).HasField("bookmark")
        await plane.create("b", allow_pending=True)
        await plane.deployments.ScaleDeployment(
            pb.ScaleDeploymentRequest(name="deployments/a", replica_count=2, allow_pending=True)
        )
        async for event in events:
            assert event.changed.name.startswith("deployments/a/")
            if event.changed.name.endswith("/1"):
                break


@pytest.mark.parametrize("source", ["list", "event", "bookmark"])
async def test_behind_a_cursor_come_the_deletions_and_then_the_rest(plane: Plane, source: str) -> None:
    await plane.create("a", allow_pending=True)
    await plane.create("b", allow_pending=True)
    events = await first_events(plane)
    listed = await plane.deployments.ListDeployments(pb.ListDeploymentsRequest())
    cursor = {"list": listed.cursor, "event": events[0].cursor, "bookmark": events[-1].cursor}[source]
    await delete(plane, "a")
    await plane.create("c", allow_pending=True)
    resumed = await first_events(plane, cursor)
    assert kinds(resumed) == ["deployments/a", "deployments/b", "deployments/c", "bookmark"]
    assert resumed[0].deleted
    assert all(event.cursor for event in resumed)


async def test_what_was_deleted_and_made_again_is_not_told_as_deleted(plane: Plane) -> None:
    await plane.create("a", allow_pending=True)
    cursor = (await first_events(plane))[-1].cursor
    await delete(plane, "a")
    await plane.create("a", allow_pending=True)
    [again, _] = await first_events(plane, cursor)
    assert again.changed.generation == 1


async def test_a_cursor_outlives_the_control_plane(tmp_path: Path) -> None:
    async with plane_on(tmp_path / "state") as plane:
        await plane.create("a", allow_pending=True)
        cursor = (await first_events(plane))[-1].cursor
        await delete(plane, "a")
    async with plane_on(tmp_path / "state") as plane:
        assert kinds(await first_events(plane, cursor)) == ["deployments/a", "bookmark"]


@pytest.mark.parametrize("cursor", ["nonsense", "////", "é", "YS9iL2Mv"])
async def test_an_unknown_cursor_says_to_list_again(plane: Plane, cursor: str) -> None:
    error = await refused(plane.deployments.WatchDeployments(pb.WatchDeploymentsRequest(cursor=cursor)).read())
    assert isinstance(error, TooLong)
    assert reason_of(error) == "RELIST"


async def test_a_cursor_of_another_store_says_to_list_again(plane: Plane, tmp_path: Path) -> None:
    async with plane_on(tmp_path / "other") as other:
        cursor = (await first_events(other))[-1].cursor
    error = await refused(plane.deployments.WatchDeployments(pb.WatchDeploymentsRequest(cursor=cursor)).read())
    assert reason_of(error) == "RELIST"


class Word(str):
    """An event that says how many bytes it takes."""

    __slots__ = ()

    def ByteSize(self) -> int:
        return len(self)


class SlowReader:
    """A call whose writes wait until the test lets one through."""

    def __init__(self) -> None:
        self.written: asyncio.Queue[list[str]] = asyncio.Queue()
        self._open = asyncio.Semaphore(0)

    async def write(self, message: list[str]) -> None:
        await self._open.acquire()
        self.written.put_nowait(message)

    async def read(self) -> list[str]:
        self._open.release()
        return await self.written.get()


async def test_a_slow_reader_gets_the_latest_and_no_backlog() -> None:
    marks: Marks[str] = Marks()
    state = {"a": 0, "b": 0}
    reader = SlowReader()

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(
            stream(
                reader,
                first=[Word("a=0")],
                marks=marks,
                look=lambda keys: [Word(f"{key}={state[key]}") for key in keys],
                bookmark=lambda: Word("bookmark"),
                message=list,
            )
        )
        assert await reader.read() == ["a=0", "bookmark"]
        for number in range(1, 1001):
            for key in state:
                state[key] = number
                marks.mark(key)
        assert await reader.read() == ["a=1000", "b=1000"]
        watching.cancel()


async def test_what_is_streamed_fits_into_messages_that_every_client_takes() -> None:
    reader = SlowReader()
    large = Word("x" * (MESSAGE_BYTES // 2))
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(
            stream(
                reader,
                first=[large] * 3,
                marks=Marks[Word](),
                look=list,
                bookmark=lambda: Word("bookmark"),
                message=list,
            )
        )
        assert [await reader.read(), await reader.read()] == [[large, large], [large, "bookmark"]]
        watching.cancel()


async def test_a_bookmark_comes_however_busy_the_watch_is() -> None:
    marks: Marks[Word] = Marks()
    reader = SlowReader()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(
            stream(
                reader,
                first=[],
                marks=marks,
                look=list,
                bookmark=lambda: Word("bookmark"),
                message=list,
                bookmark_s=0.0,
            )
        )
        assert await reader.read() == ["bookmark"]
        marks.mark(Word("a"))
        assert await reader.read() in (["a", "bookmark"], ["bookmark"])
        assert "bookmark" in await reader.read()
        watching.cancel()
