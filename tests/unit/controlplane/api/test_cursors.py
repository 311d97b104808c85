"""Cursors of WatchDeployments: wherever a stream breaks, whoever goes on from there misses no deletion."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from controlplane import wire
from controlplane.api.statuses import Nothing, Statuses
from controlplane.api.watches import Watches
from controlplane.fleet.intent import Intent
from controlplane.fleet.registry import Registry
from controlplane.store.protocol import Batch
from controlplane.store.sqlite import SqliteStore, open_sqlite
from roundhouse.internal.v1.store_pb2 import DeploymentRecord
from roundhouse.kit.latest import Latest
from roundhouse.v1 import deployment_service_pb2 as pb
from roundhouse.v1.deployment_pb2 import Deployment
from tests.support.clock import FakeClock

MANY = [f"d{number:03}" for number in range(120)]  # more than go into one message


class Cut(Exception):
    """The connection has broken."""


class Client:
    """Keeps what it has seen, and its cursor, from one stream to the next."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.cursor = ""
        self.messages_left: int | None = None
        self.is_whole, self.is_cut = asyncio.Event(), asyncio.Event()

    async def write(self, message: pb.WatchDeploymentsResponse) -> None:
        """Takes a message, unless the connection breaks before."""
        if self.messages_left == 0:
            self.is_cut.set()
            raise Cut
        if self.messages_left is not None:
            self.messages_left -= 1
        for event in message.events:
            if event.HasField("changed"):
                self.seen.add(event.changed.name)
            self.seen.discard(event.deleted)
            self.cursor = event.cursor
            if event.HasField("bookmark"):
                self.is_whole.set()


class Fleet:
    """Deployments without replicas, and the streams of what is known of them."""

    def __init__(self, store: SqliteStore) -> None:
        clock = FakeClock()
        self.store, self.intent = store, Intent(store)
        self.statuses = Statuses(self.intent, Registry(clock, "cluster"), epoch=store.epoch, clock=clock)
        self.watches = Watches(store, self.intent, self.statuses)

    async def create(self, deployments: Iterable[str]) -> None:
        """Stores deployments, all at once."""
        puts = {wire.deployment_key(each): _record(each) for each in deployments}
        await self.intent.deployments.reached(await self.store.commit([], puts))

    async def delete(self, deployments: Iterable[str]) -> None:
        """Deletes them, all at once."""
        revision = await self.store.commit([], {}, [wire.deployment_key(each) for each in deployments])
        await self.intent.deployments.reached(revision)

    @contextlib.asynccontextmanager
    async def watching(self, client: Client, watches: Watches | None = None) -> AsyncIterator[None]:
        """Streams to a client for the block, which begins when it has all that there is."""
        client.is_whole.clear()
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(self._stream(client, watches or self.watches))
            await client.is_whole.wait()
            yield
            task.cancel()

    async def cut(self, client: Client) -> None:
        """Streams to a client until its connection breaks behind one message."""
        client.messages_left = 1
        async with asyncio.timeout(20):
            await self._stream(client, self.watches)

    async def _stream(self, client: Client, watches: Watches) -> None:
        with contextlib.suppress(Cut):
            await watches.deployments(client.cursor, client)
        client.messages_left = None


def _record(deployment: str) -> bytes:
    wanted = Deployment(name=f"deployments/{deployment}", uid=f"uid-of-{deployment}", generation=1)
    return DeploymentRecord(deployment=wanted).SerializeToString()


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with open_sqlite(tmp_path / "store") as store:
        it = Fleet(store)
        async with it.intent.kept(), asyncio.TaskGroup() as group:
            task = group.create_task(it.statuses.run(Latest(Nothing({}, {})).watch))
            yield it
            task.cancel()


async def test_a_stream_that_breaks_within_one_look_is_gone_on_with_before_it(fleet: Fleet) -> None:
    await fleet.create(MANY)
    client = Client()
    async with fleet.watching(client):
        assert len(client.seen) == len(MANY)
        client.messages_left = 1
        await fleet.delete(MANY)
        await client.is_cut.wait()
    assert 0 < len(client.seen) < len(MANY)
    async with fleet.watching(client):
        assert client.seen == set()


async def test_a_stream_that_breaks_in_what_was_deleted_behind_its_cursor_is_gone_on_with_there(fleet: Fleet) -> None:
    await fleet.create(MANY)
    client = Client()
    async with fleet.watching(client):
        pass
    await fleet.delete(MANY)
    await fleet.cut(client)
    assert 0 < len(client.seen) < len(MANY)
    async with fleet.watching(client):
        assert client.seen == set()


async def test_a_stream_that_breaks_in_its_first_look_is_gone_on_with_behind_its_begin(fleet: Fleet) -> None:
    await fleet.create(MANY)
    client = Client()
    await fleet.cut(client)
    assert client.cursor  # without one it could only begin again
    await fleet.delete(MANY)
    async with fleet.watching(client):
        assert client.seen == set()


class Overtaken:
    """A store whose first answer to a watch arrives after something else has happened."""

    def __init__(self, store: SqliteStore, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self._store, self._meanwhile = store, meanwhile
        self._has_answered = False

    async def watch(self, prefix: str, after_revision: int) -> AsyncIterator[Batch]:
        async for batch in self._store.watch(prefix, after_revision):
            if not self._has_answered:
                self._has_answered = True
                await self._meanwhile()
            yield batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_what_is_deleted_while_older_deletions_are_looked_up_is_told(fleet: Fleet) -> None:
    await fleet.create(["a", "b"])
    client = Client()
    async with fleet.watching(client):
        pass
    await fleet.delete(["a"])
    store: Any = Overtaken(fleet.store, lambda: fleet.delete(["b"]))
    async with fleet.watching(client, Watches(store, fleet.intent, fleet.statuses)):
        assert client.seen == set()
