"""A replica whose model is at the hub waits for it, says how much has come, and can be given up meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nodeagent.process import find
from roundhouse.internal.v1 import agent_service_pb2 as wire
from roundhouse.v1 import deployment_pb2
from roundhouse.v1.deployment_pb2 import HubRepository, ModelSource
from tests.support.hub_server import COMMIT, FakeHub, serving_hub
from tests.support.supervision import READY, STARTING, STOPPED, Node, wanted
from tests.support.tiny_models import write_tiny_model

pytestmark = pytest.mark.slow  # processes of their own

NAME = "acme/tiny"
PREPARING = deployment_pb2.REPLICA_STATE_PREPARING
FETCHING = deployment_pb2.LAUNCH_STAGE_FETCHING_MODEL


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    with serving_hub() as hub:
        hub.add(NAME, write_tiny_model(tmp_path / "files", "qwen3"))
        yield hub


@pytest.fixture
def online(idle: Node, hub: FakeHub, tmp_path: Path) -> Node:
    """A node that may ask the hub, with an empty cache."""
    environ = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(tmp_path / "cache")}
    idle.how = replace(idle.how, environ=environ)
    return idle


def replica(uid: str = "r-1", *, name: str = NAME, stop_grace_s: float | None = None) -> wire.EngineAssignment:
    it = wanted(uid, stop_grace_s=stop_grace_s)
    it.spec.model.CopyFrom(ModelSource(repository=HubRepository(id=name, revision=COMMIT)))
    return it


def fetcher(cache: Path) -> object:
    return find(("fetch", NAME, COMMIT, str(cache)))


def left(cache: Path) -> list[Path]:
    return [each for each in cache.rglob("models--*") if each.is_dir()]


async def test_a_replica_is_preparing_while_its_model_is_fetched_and_then_starts(online: Node, hub: FakeHub) -> None:
    hub.flows.clear()
    async with online.supervised():
        await online.assign(replica())
        report = await online.until(lambda each: "fetching" in each.message)
        assert report.state == PREPARING
        begun = report.progress.stage_start_time
        assert report.progress.stage == FETCHING
        # Half of the weights come, and they are nearly all there is.
        report = await online.until(lambda each: each.progress.done_bytes)
        progress = report.progress
        assert report.message == "fetching acme/tiny from the hub"
        assert 0 < progress.done_bytes < progress.total_bytes
        assert progress.fraction == progress.done_bytes / progress.total_bytes
        assert progress.stage_start_time == begun
        hub.flows.set()
        assert (await online.until_state(STARTING)).progress.stage == deployment_pb2.LAUNCH_STAGE_STARTING_ENGINE
        assert not (await online.until_state(READY)).HasField("progress")


async def test_replicas_of_one_model_wait_for_one_fetch(online: Node, hub: FakeHub) -> None:
    async with online.supervised():
        await online.assign(replica("r-1"), replica("r-2"))
        for uid in ("r-1", "r-2"):
            await online.until_state(READY, uid)
    assert hub.fetched(NAME).count("model.safetensors") == 1


async def test_a_replica_that_is_given_up_while_its_model_is_fetched_leaves_nothing(
    online: Node, hub: FakeHub, tmp_path: Path
) -> None:
    hub.flows.clear()
    async with online.supervised():
        await online.assign(replica())
        await online.until(lambda each: "fetching" in each.message)
        assert fetcher(tmp_path / "cache") is not None
        await online.assign(replica(stop_grace_s=0.0))
        await online.until_state(STOPPED)
        assert fetcher(tmp_path / "cache") is None
        assert left(tmp_path / "cache") == []
        await online.assign()
        await online.until_true(lambda: online.report() is None)
        hub.flows.set()
        await online.assign(replica())
        await online.until_state(READY)


async def test_an_agent_that_ends_while_it_fetches_leaves_no_process_and_the_next_one_fetches_on(
    online: Node, hub: FakeHub, tmp_path: Path
) -> None:
    hub.flows.clear()
    async with online.supervised():
        await online.assign(replica())
        await online.until(lambda each: "fetching" in each.message)
    assert fetcher(tmp_path / "cache") is None
    hub.flows.set()
    async with online.supervised():
        await online.until_state(READY)


async def test_a_model_that_cannot_be_fetched_keeps_its_replica_off_the_whole_node(online: Node, hub: FakeHub) -> None:
    async with online.supervised():
        await online.assign(replica(name="acme/gone"))
        await online.until_true(online.supervisor.refusals)
        [refused] = online.supervisor.refusals()
        assert refused.is_node_wide
        assert "has no models--acme--gone" in refused.message
        assert "has no acme/gone, or shows it to some only" in refused.message
        assert online.report() is None
