"""A launch is cancelled in every stage: nothing of it is left, and its name can be launched again."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from nodeagent.venvs.folder import folders
from roundhouse.client import Client, deployment
from roundhouse.client.specify import VirtualEnvSettings
from roundhouse.internal.v1.store_pb2 import AssignmentRecord
from roundhouse.v1 import deployment_pb2
from tests.support.cluster import PATIENCE_S, Cluster, cluster, engine_pids, eventually
from tests.support.held_engine import Hold
from tests.support.hub_server import FakeHub, serving_hub
from tests.support.tiny_models import write_tiny_model
from tests.support.wheels import mute_index

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

AT_HUB = "acme/tiny-qwen3"
PENDING = deployment_pb2.REPLICA_STATE_PENDING
PREPARING = deployment_pb2.REPLICA_STATE_PREPARING
STARTING = deployment_pb2.REPLICA_STATE_STARTING
READY = deployment_pb2.REPLICA_STATE_READY
FAILED = deployment_pb2.REPLICA_STATE_FAILED
FETCHING = deployment_pb2.LAUNCH_STAGE_FETCHING_MODEL
BUILDING = deployment_pb2.LAUNCH_STAGE_BUILDING_ENVIRONMENT
STARTING_ENGINE = deployment_pb2.LAUNCH_STAGE_STARTING_ENGINE
LOADING_WEIGHTS = deployment_pb2.LAUNCH_STAGE_LOADING_WEIGHTS
WARMING_UP = deployment_pb2.LAUNCH_STAGE_WARMING_UP
HASHING_WEIGHTS = deployment_pb2.LAUNCH_STAGE_HASHING_WEIGHTS


@dataclass(frozen=True)
class Place:
    """A cluster with everything around it that a launch may leave something in."""

    it: Cluster
    client: Client
    hub: FakeHub
    model: Path  # a directory
    cache: Path  # of the hub's models
    temporary: Path

    def wanted(self, name: str, **fields: Any) -> deployment_pb2.Deployment:
        """Returns a deployment of the small model, if no other is named."""
        model: dict[str, Any] = {} if fields.keys() & {"repository", "builtin"} else {"path": str(self.model)}
        return deployment(name, max_model_len=128, **model, **fields)

    async def until(self, name: str, holds: Callable[[deployment_pb2.Replica], object]) -> deployment_pb2.Replica:
        """Watches until something holds of the replica of a deployment."""
        async with self.client.replicas.watch(name) as events, asyncio.timeout(PATIENCE_S):
            async for event in events:
                if holds(event.changed):
                    return event.changed
        raise AssertionError("a watch never ends")

    async def delete(self, name: str) -> None:
        await self.client.deployments.delete(name, drain_grace_s=0.0)
        await self.client.deployments.wait_gone(name, PATIENCE_S)

    async def nothing_left(self) -> None:
        """Fails unless nothing of any replica is left, on the node and in the control plane."""
        state = self.it.folder / "nodeagent"
        await eventually(lambda: list((state / "engines").iterdir()) == [], "the node has forgotten the replica")
        agent = psutil.Process(self.it.processes["nodeagent"].pid)
        assert agent.children(recursive=True) == []
        assert engine_pids(self.it.folder) == []
        assert list(self.temporary.iterdir()) == []
        assert list(self.cache.rglob("*.incomplete")) == []
        assert list(self.cache.glob("models--*")) == []
        for lock in self.cache.glob(".locks/*/*.lock"):  # the library keeps them, as somebody else may wait for one
            with lock.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for folder in folders(state / "venvs"):
            assert {each.name for each in folder.path.iterdir()} <= {"lock", "build.lock", "build.log"}
            with folder.alone() as is_free:
                assert is_free
        async with self.client.nodes.watch() as events, asyncio.timeout(PATIENCE_S):
            async for event in events:
                reserved = [event.changed.host.reserved_memory_bytes]
                reserved += [each.reserved_memory_bytes for each in event.changed.gpus]
                replicas = [*event.changed.replicas, *(name for gpu in event.changed.gpus for name in gpu.replicas)]
                if event.changed.name and not any(reserved) and not replicas:
                    break
        assert not (await self.client.replicas.list()).replicas
        assert not (await self.client.deployments.list()).deployments
        assert rows_about_deployments(self.it.folder / "controlplane/store.sqlite") == []

    async def serves_again(self, name: str) -> None:
        """Launches under the same name what was cancelled there, or what failed, and takes it away again."""
        await self.client.deployments.create(self.wanted(name))
        await self.client.deployments.wait_ready(name, timeout_s=2 * PATIENCE_S)  # nothing hurries it
        async with self.client.generate(name, "hello", temperature=0, max_tokens=2) as generation:
            await generation.text()
        await self.delete(name)


def rows_about_deployments(store: Path) -> list[str]:
    """Returns the keys in the store of deployments and placements, and of nodes that are told of an engine."""
    with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT key, value FROM entries WHERE value IS NOT NULL").fetchall()
    assert rows, "it is the store"
    told = [key for key, value in rows if key.startswith("assignments/") and AssignmentRecord.FromString(value).engines]
    return [*told, *(key for key, _ in rows if key.startswith(("deployments/", "placements/")))]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, FakeHub]]:
    """A hub and folders of our own, for all processes that are started."""
    folder = tmp_path_factory.mktemp("cancelled")
    (folder / "tmp").mkdir()
    with pytest.MonkeyPatch.context() as patch, serving_hub() as hub:
        patch.setenv("HF_ENDPOINT", hub.address)
        patch.setenv("HF_HUB_OFFLINE", "0")
        patch.setenv("HF_HUB_CACHE", str(folder / "hub"))
        patch.setenv("UV_CACHE_DIR", str(folder / "uv"))
        patch.setenv("TMPDIR", str(folder / "tmp"))
        yield folder, hub


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(environment: tuple[Path, FakeHub]) -> AsyncIterator[Place]:
    folder, hub = environment
    model = write_tiny_model(folder / "model", "qwen3")
    hub.add(AT_HUB, model)
    async with cluster(folder / "cluster") as (it, client):
        yield Place(it, client, hub, model, folder / "hub", folder / "tmp")


async def test_while_the_model_is_looked_up_at_the_hub(place: Place) -> None:
    place.hub.answers.clear()
    try:
        asked = len(place.hub.asked)
        creating = asyncio.create_task(place.client.deployments.create(place.wanted("looked-up", repository=AT_HUB)))
        await eventually(lambda: len(place.hub.asked) > asked, "the hub is asked")
        assert not creating.done()
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
        agent = psutil.Process(place.it.processes["nodeagent"].pid)
        await eventually(lambda: agent.children(recursive=True) == [], "nobody asks the hub any more")
        await eventually(lambda: list(place.temporary.iterdir()) == [], "what came of the hub is gone")
    finally:
        place.hub.answers.set()
    await place.nothing_left()
    await place.serves_again("looked-up")


async def test_while_it_waits_for_a_place(place: Place) -> None:
    await place.client.deployments.create(place.wanted("waiting", memory_bytes=100 << 40), allow_pending=True)
    assert (await place.until("waiting", lambda each: each.state == PENDING)).message
    await place.delete("waiting")
    await place.nothing_left()
    await place.serves_again("waiting")


async def test_while_the_model_is_fetched(place: Place) -> None:
    place.hub.flows.clear()
    try:
        await place.client.deployments.create(place.wanted("fetched", repository=AT_HUB))
        seen = await place.until("fetched", lambda each: each.progress.done_bytes)
        assert (seen.state, seen.progress.stage) == (PREPARING, FETCHING)
        assert 0 < seen.progress.fraction < 1
        await place.delete("fetched")
        await place.nothing_left()
    finally:
        place.hub.flows.set()
    await place.serves_again("fetched")


async def test_while_its_environment_is_built(place: Place) -> None:
    async with mute_index() as mute:
        own = VirtualEnvSettings(packages=["acme"], index_url=mute.address)
        await place.client.deployments.create(place.wanted("built", virtual_env=own))
        seen = await place.until("built", lambda each: each.progress.stage == BUILDING)
        assert seen.state == PREPARING
        assert not seen.progress.HasField("fraction"), "nobody knows"
        await mute.asked.wait()
        await place.delete("built")
        await place.nothing_left()
    await place.serves_again("built")


# Where each is held: what the engine opens in that stage.
HELD: dict[str, tuple[str, deployment_pb2.LaunchStage]] = {
    "before the engine listens": (r"/engines/(__pycache__/)?heap\.", STARTING_ENGINE),
    "while it imports torch": (r"/torch/(__pycache__/)?__init__\.", STARTING_ENGINE),
    "while it loads weights": (r"/__pycache__/modeling_qwen3\.", LOADING_WEIGHTS),
    "while it warms up": (r"/engines/text/(__pycache__/)?grammar\.", WARMING_UP),
    "while it hashes weights": (r"/model\.safetensors\Z", HASHING_WEIGHTS),
}


@pytest.mark.parametrize(("pattern", "stage"), HELD.values(), ids=HELD)
async def test_while_the_engine_starts(
    place: Place, tmp_path: Path, pattern: str, stage: deployment_pb2.LaunchStage
) -> None:
    hold = Hold(tmp_path / "hold", pattern)
    await place.client.deployments.create(place.wanted("started", env=hold.env()))
    seen = await place.until("started", lambda each: each.progress.stage == stage)
    await hold.reached()
    assert (seen.state, seen.engine_pid) == (STARTING, *engine_pids(place.it.folder))
    await place.delete("started")
    await place.nothing_left()
    await place.serves_again("started")


async def test_an_engine_that_starts_while_its_agent_is_dead(place: Place, tmp_path: Path) -> None:
    hold = Hold(tmp_path / "hold", HELD["while it loads weights"][0])
    await place.client.deployments.create(place.wanted("adopted", env=hold.env()))
    before = await place.until("adopted", lambda each: each.progress.stage == LOADING_WEIGHTS)
    await hold.reached()
    place.it.kill("nodeagent")
    await place.client.deployments.delete("adopted", drain_grace_s=0.0)
    assert engine_pids(place.it.folder) == [before.engine_pid]
    place.it.start_agent()
    await place.client.deployments.wait_gone("adopted", PATIENCE_S)
    await place.nothing_left()
    await place.serves_again("adopted")


async def test_when_it_has_just_become_ready(place: Place) -> None:
    await place.client.deployments.create(place.wanted("ready"))
    seen = await place.until("ready", lambda each: each.state == READY)
    assert not seen.HasField("progress")
    await place.delete("ready")
    await place.nothing_left()
    await place.serves_again("ready")


async def test_when_it_has_failed(place: Place) -> None:
    await place.client.deployments.create(place.wanted("failed", env={"PYTHONHOME": "/nowhere"}))
    seen = await place.until("failed", lambda each: each.state == FAILED)
    assert not seen.HasField("progress")
    await place.delete("failed")
    await place.nothing_left()
    await place.serves_again("failed")
