"""A local copy, while nobody answers."""

from __future__ import annotations

import asyncio

import pytest

from roundhouse.client import Client, deployment
from roundhouse.client.mirror import Mirror
from roundhouse.v1 import deployment_pb2
from tests.support.scripted_cluster import scripted_cluster


async def test_what_was_last_seen_is_kept_until_a_new_connection_has_shown_everything() -> None:
    mirror: Mirror[deployment_pb2.Deployment] = Mirror()
    losses: asyncio.Queue[tuple[bool, list[str]]] = asyncio.Queue()
    views: asyncio.Queue[tuple[bool, list[str]]] = asyncio.Queue()

    def view() -> tuple[bool, list[str]]:
        return mirror.is_whole, sorted(mirror.items)

    async with scripted_cluster() as (serving, cluster, _):
        cluster.add(deployment("brief", builtin="demo", labels={"script": "stuck"}))
        client = await Client(serving.address).__aenter__()
        keeping = asyncio.create_task(
            mirror.keep(client.deployments.watch, lambda: views.put_nowait(view()), lambda: losses.put_nowait(view()))
        )
        assert await views.get() == (True, ["deployments/brief", "deployments/demo"])
    assert await losses.get() == (False, ["deployments/brief", "deployments/demo"])
    while not views.empty():
        assert views.get_nowait()[1] == ["deployments/brief", "deployments/demo"]
    async with scripted_cluster(serving.port):
        assert await views.get() == (True, ["deployments/demo"])
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping
    assert losses.empty()
    await client.__aexit__(None, None, None)
