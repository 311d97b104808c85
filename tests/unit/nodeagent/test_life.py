"""One life of an engine, when it is the agent that fails."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nodeagent.bundle import Bundles, Record
from nodeagent.hearing import Status
from nodeagent.launch import Started, launch
from nodeagent.life import Life
from nodeagent.model import Assigned, Desired, Exit, Timing
from nodeagent.process import is_alive
from roundhouse.internal.v1 import engine_spec_pb2
from tests.support.supervision import PATIENCE_S, Node

SPEC = engine_spec_pb2.EngineSpec(deployment="chat", engine="torch").SerializeToString()
ASSIGNED = Assigned("deployments/chat/replicas/0", "r-1", 1, 1, Desired.RUNNING, SPEC, (), 0, 0.0)


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[Started]:
    """An engine process that nobody follows yet."""
    node, bundles = Node(tmp_path), Bundles(tmp_path / "engines")
    bundles.open()
    yield await launch(
        node.how,
        bundles,
        ASSIGNED,
        engine_spec_pb2.EngineSpec.FromString(SPEC),
        Record(),
        device="cpu",
        cluster_id="cluster",
        time_s=0.0,
    )
    await node.end()


async def test_an_engine_is_not_ended_for_an_error_of_whoever_listens(started: Started) -> None:
    told: asyncio.Queue[Status] = asyncio.Queue()

    def tell(status: Status) -> None:
        told.put_nowait(status)
        raise RuntimeError("what is this")

    async with Life(started, tell, timing=Timing(watch_period_s=0.1)) as life, asyncio.timeout(PATIENCE_S):
        following = asyncio.create_task(life.follow())
        for _ in range(4):  # the first is of its proof, the next are of its stream
            await told.get()
        assert is_alive(life.identity)
        assert not following.done()
        os.kill(life.identity.pid, signal.SIGKILL)
        assert await following == (Exit(signal=signal.SIGKILL), "")
