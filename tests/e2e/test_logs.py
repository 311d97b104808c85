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
from roundhouse.v1 import deployment_pb2, log_pb2
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
