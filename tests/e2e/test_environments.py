"""Two deployments run with two versions of transformers on one node, each in an environment that is built once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
import pytest_asyncio

from nodeagent.venvs.folder import Folder, folders
from roundhouse.client import Client, deployment
from roundhouse.client.specify import VirtualEnvSettings
from roundhouse.v1 import deployment_pb2
from tests.support.cluster import PATIENCE_S, Cluster, cluster, eventually
from tests.support.wheels import mute_index

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

BUILD_S = 400.0  # with what has to be fetched
REPLICAS = {"5.16.1": 2, "5.17.0": 1}
PREPARING = deployment_pb2.REPLICA_STATE_PREPARING
READY = deployment_pb2.REPLICA_STATE_READY


def environment(version: str) -> VirtualEnvSettings:
    """Returns one with a version of transformers, from where pip is told to look, since uv does not ask that."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    )
    return VirtualEnvSettings(packages=[f"transformers=={version}"], index_url=told.stdout.strip())


def name_of(version: str) -> str:
    return "v" + version.replace(".", "-")


def built(it: Cluster) -> Sequence[Folder]:
    return [each for each in folders(it.folder / "nodeagent/venvs") if each.env.exists()]


def half_made(it: Cluster) -> Sequence[str]:
    return [part.name for each in folders(it.folder / "nodeagent/venvs") for part in each.path.glob(".new-*")]


async def until(client: Client, name: str, holds: Callable[[deployment_pb2.Replica], bool]) -> deployment_pb2.Replica:
    """Watches until something holds of the replica of a deployment."""
    async with client.replicas.watch(name) as events, asyncio.timeout(PATIENCE_S):
        async for event in events:
            if holds(event.changed):
                return event.changed
    raise AssertionError("a watch never ends")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Cluster, Client]]:
    """A cluster with the demo model under each version, all replicas READY."""
    async with cluster(tmp_path_factory.mktemp("environments")) as (it, client):
        for version, count in REPLICAS.items():
            own = environment(version)
            await client.deployments.create(
                deployment(name_of(version), builtin="demo", replica_count=count, virtual_env=own)
            )
        for version in REPLICAS:
            await client.deployments.wait_ready(name_of(version), timeout_s=BUILD_S)
        yield it, client


async def test_two_versions_serve_side_by_side_and_each_engine_says_its_own(both: tuple[Cluster, Client]) -> None:
    it, client = both
    for version, count in REPLICAS.items():
        replicas = (await client.replicas.list(name_of(version))).replicas
        assert [each.package_versions["transformers"] for each in replicas] == [version] * count
        assert {each.package_versions["python"] for each in replicas} == {sys.version.split()[0]}
        async with client.generate(name_of(version), "Once upon a time", max_tokens=8) as generation:
            assert await generation.text()
    assert len(built(it)) == len(REPLICAS)


async def test_an_environment_that_is_there_is_not_built_again(both: tuple[Cluster, Client]) -> None:
    it, client = both
    before = {each.path: each.log.stat().st_mtime_ns for each in built(it)}
    [version, *_] = REPLICAS
    await client.deployments.create(deployment("again", builtin="demo", virtual_env=environment(version)))
    async with client.replicas.watch("again") as events, asyncio.timeout(PATIENCE_S):
        async for event in events:
            assert "building" not in event.changed.message
            if event.changed.state == READY:
                break
    assert {each.path: each.log.stat().st_mtime_ns for each in built(it)} == before
    await client.deployments.delete("again", drain_grace_s=0.0)


async def test_an_agent_that_is_killed_in_the_middle_of_a_build_leaves_nothing_and_the_next_one_builds_anew(
    both: tuple[Cluster, Client],
) -> None:
    it, client = both
    before = {each.name: each.engine_pid for each in (await client.replicas.list(name_of("5.16.1"))).replicas}
    async with mute_index() as mute:
        own = VirtualEnvSettings(packages=["transformers==5.16.1"], index_url=mute.address)
        await client.deployments.create(deployment("stuck", builtin="demo", virtual_env=own))
        await until(client, "stuck", lambda each: "building the environment: " in each.message)
        await mute.asked.wait()
        assert half_made(it) != []
        it.kill("nodeagent")
        await eventually(lambda: not half_made(it), "what was half made is gone")
        mute.asked.clear()
        it.start_agent()
        await mute.asked.wait()
        stuck = await until(client, "stuck", lambda each: "building the environment: " in each.message)
        assert stuck.state == PREPARING
        await client.deployments.delete("stuck", drain_grace_s=0.0)
        await client.deployments.wait_gone("stuck")
        assert half_made(it) == []
    after = {each.name: each.engine_pid for each in (await client.replicas.list(name_of("5.16.1"))).replicas}
    assert after == before
