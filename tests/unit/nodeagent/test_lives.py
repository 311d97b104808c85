"""An engine is seen through to its end, whatever happens to whoever follows it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nodeagent.bundle import Bundles
from nodeagent.engine import Engine
from nodeagent.lives import Lives
from nodeagent.model import Assigned, Desired, State
from nodeagent.process import session
from roundhouse.internal.v1 import engine_spec_pb2
from roundhouse.kit.clock import SystemClock
from roundhouse.kit.latest import Latest
from roundhouse.v1.deployment_pb2 import EnvVar
from tests.support.supervision import PATIENCE_S, Node

SPEC = engine_spec_pb2.EngineSpec(deployment="chat", env=[EnvVar(name="SCRIPT", value="parent")]).SerializeToString()
ASSIGNED = Assigned("deployments/chat/replicas/0", "r-1", 1, 1, Desired.RUNNING, SPEC, (), 0, 0.0)


class Faulty:
    """A replica whose owner stumbles over its first death."""

    def __init__(self) -> None:
        self.ready, self.gone = asyncio.Event(), asyncio.Event()
        self.engine = Engine(ASSIGNED, SystemClock(), self.on_change)

    def on_change(self) -> None:
        known = self.engine.known()
        if known.state is State.READY:
            self.ready.set()
        elif known.state is State.FAILED and known.has_remains:
            raise RuntimeError("what is this")
        elif known.state is State.FAILED:
            self.gone.set()


@pytest.fixture
async def lives(tmp_path: Path) -> AsyncIterator[Lives]:
    """The lives of a node without a supervisor."""
    node, bundles = Node(tmp_path), Bundles(tmp_path / "engines")
    bundles.open()
    async with Lives(
        node.how,
        bundles,
        Latest(None),
        timing=node.timing,
        clock=SystemClock(),
        on_load=lambda: None,
        on_lack=lambda _, __: None,
    ) as lives:
        yield lives
    await node.end()


async def test_an_engine_that_can_no_longer_be_followed_is_ended_with_all_that_it_started(lives: Lives) -> None:
    faulty = Faulty()
    async with asyncio.timeout(PATIENCE_S):
        lives.start(faulty.engine, "cluster")
        await faulty.ready.wait()
        life = faulty.engine.life
        assert life is not None
        os.kill(life.identity.pid, signal.SIGKILL)
        await faulty.gone.wait()
    assert session(life.identity) == []
