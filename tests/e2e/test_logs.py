"""Logs and events of real engines: followed through kill -9, read from anywhere, and kept."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from roundhouse.client import Client, deployment
from roundhouse.kit.errors import NotReady
from roundhouse.v1 import deployment_pb2, event_pb2, log_pb2
from tests.support.cluster import cluster, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SERVES = "engine serves"  # what every engine of ours says once it is READY


async def until(lines: AsyncIterator[log_pb2.LogLine], word: str) -> log_pb2.LogLine:
    async for line in lines:
        if word in line.text:
            return line
    raise AssertionError(f"the stream ended before {word!r}")


async def replica(client: Client) -> deployment_pb2.Replica:
    [only] = (await client.replicas.list("demo")).replicas
    return only


def open_logs(folder: Path, pid: int) -> list[str]:
    """Returns which logs of engines a process has open."""
    links = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]  # noqa: PTH115 - of what may be no file
    return [each for each in links if each.startswith(str(folder / "nodeagent/engines")) and ".log" in each]


async def test_lines_are_followed_through_kill_9_and_nothing_is_left_of_a_reader_that_leaves(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (it, client):
        await client.deployments.create(deployment("demo", builtin="demo", replica_count=1))
        await client.deployments.wait_ready("demo", timeout_s=120)
        first = await replica(client)
        with pytest.raises(NotReady, match="leave previous_life out"):
            async for _ in client.replicas.logs("demo-0", previous_life=True):
                pass
        agent = it.processes["nodeagent"].pid

        async with client.replicas.logs("demo-0", follow=True) as following, asyncio.timeout(120):
            lines = aiter(following)
            seen = await until(lines, SERVES)
            assert first.engine_uuid in seen.text
            assert seen.HasField("time")
            os.kill(first.engine_pid, signal.SIGKILL)
            again = await until(lines, SERVES)
            assert first.engine_uuid not in again.text
        await eventually(lambda: not open_logs(tmp_path, agent), "the agent has closed the logs")

        await client.deployments.wait_ready("demo", timeout_s=120)
        second = await replica(client)
        before = [each.text async for each in client.replicas.logs("demo-0", previous_life=True)]
        now = [each.text async for each in client.replicas.logs("demo-0", stream="stderr")]
        assert any(SERVES in each and first.engine_uuid in each for each in before)
        assert any(SERVES in each and second.engine_uuid in each for each in now)
        assert not any(first.engine_uuid in each for each in now)
        last = [each.text async for each in client.replicas.logs("demo-0", stream="stderr", tail_line_count=1)]
        assert last == now[-1:]


async def until_told(client: Client, object_: str, *reasons: str) -> list[event_pb2.Event]:
    """Watches until these things, in this order, have happened to an object; returns its events."""
    seen: dict[str, event_pb2.Event] = {}
    async with client.events.watch(object_) as notices, asyncio.timeout(60):
        async for notice in notices:
            if notice.HasField("changed"):
                seen[notice.changed.name] = notice.changed
            events = [seen[name] for name in sorted(seen)]
            if [each.reason for each in events] == list(reasons):
                return events
    raise AssertionError("the watch ended")


async def test_events_tell_the_story_of_an_engine_and_outlive_the_control_plane(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (it, client):
        await client.deployments.create(deployment("demo", builtin="demo", replica_count=1))
        await client.deployments.wait_ready("demo", timeout_s=120)
        name = "deployments/demo/replicas/0"
        await until_told(client, name, "Placed", "Ready")
        os.kill((await replica(client)).engine_pid, signal.SIGKILL)
        died = (await until_told(client, name, "Placed", "Ready", "Died"))[-1]
        assert died.type == event_pb2.EVENT_TYPE_WARNING
        assert died.message.endswith("was killed by SIGKILL")
        await client.deployments.wait_ready("demo", timeout_s=120)
        async with client.events.watch(name) as notices, asyncio.timeout(60):
            async for notice in notices:
                if notice.changed.reason == "Ready" and notice.changed.count == 2:
                    break
        before = await client.events.list()
        it.kill("controlplane")
        await it.start_control_plane()
        await client.deployments.wait_ready("demo", timeout_s=120)
        # What happens next is told behind all that is kept, and nothing else was told in between.
        os.kill((await replica(client)).engine_pid, signal.SIGKILL)
        async with client.events.watch(cursor=before.cursor) as notices, asyncio.timeout(60):
            reading = aiter(notices)
            while not (first := await anext(reading)).HasField("changed"):
                pass
        assert (first.changed.name, first.changed.reason, first.changed.count) == (died.name, "Died", 2)
        after = await client.events.list()
        assert [each.name for each in after.events] == [each.name for each in before.events]
