"""A replica with packages of its own waits for its environment, says how far that is, and can be given up meanwhile."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from nodeagent.process import is_alive
from nodeagent.venvs.folder import folders
from roundhouse.internal.v1 import agent_service_pb2 as wire
from roundhouse.v1 import deployment_pb2
from roundhouse.v1.deployment_pb2 import VirtualEnv
from tests.support.supervision import FAILED, READY, STOPPED, Node, wanted
from tests.support.wheels import mute_index, write_wheel

pytestmark = pytest.mark.slow  # processes of their own

PREPARING = deployment_pb2.REPLICA_STATE_PREPARING


@pytest.fixture
def offline(idle: Node, tmp_path: Path) -> Node:
    """A node without a network, with two versions of a package."""
    for version in ("1.0", "2.0"):
        write_wheel(tmp_path / "wheels", "acme", version)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    idle.how = replace(idle.how, environ={**kept, "UV_CACHE_DIR": str(tmp_path / "cache"), "UV_OFFLINE": "1"})
    return idle


def replica(
    node: Node, uid: str = "r-1", *, package: str = "acme==1.0", stop_grace_s: float | None = None, index_url: str = ""
) -> wire.EngineAssignment:
    it = wanted(uid, stop_grace_s=stop_grace_s)
    links = [] if index_url else [str(node.folder / "wheels")]
    it.spec.virtual_env.CopyFrom(VirtualEnv(packages=[package], find_links=links, index_url=index_url))
    return it


def half_made(node: Node) -> list[Path]:
    return [each for folder in folders(node.folder / "venvs") for each in folder.path.glob(".new-*")]


async def test_engines_run_in_environments_of_two_versions_side_by_side_and_say_so(offline: Node) -> None:
    async with offline.supervised():
        await offline.assign(replica(offline, "r-1"), replica(offline, "r-2", package="acme==2.0"))
        for uid, version in (("r-1", "1.0"), ("r-2", "2.0")):
            report = await offline.until_state(READY, uid)
            assert report.package_versions["acme"] == version
            environ = psutil.Process(report.pid).environ()
            assert environ["PATH"].startswith(environ["VIRTUAL_ENV"] + "/bin:")
    assert len(folders(offline.folder / "venvs")) == 2


async def test_a_replica_without_packages_of_its_own_says_nothing_of_versions(offline: Node) -> None:
    async with offline.supervised():
        await offline.assign(wanted())
        assert not (await offline.until_state(READY)).package_versions
    assert not (offline.folder / "venvs").exists()


async def test_a_replica_that_is_given_up_while_its_environment_is_built_leaves_nothing(offline: Node) -> None:
    async with mute_index() as mute:
        offline.how = replace(offline.how, environ={**offline.how.environ, "UV_OFFLINE": "0"})
        async with offline.supervised():
            await offline.assign(replica(offline, index_url=mute.address))
            report = await offline.until(lambda each: "building the environment: Using " in each.message)
            assert report.state == PREPARING
            await mute.asked.wait()
            assert half_made(offline) != []
            await offline.assign(replica(offline, index_url=mute.address, stop_grace_s=0.0))
            await offline.until_state(STOPPED)
            assert half_made(offline) == []
            [folder] = folders(offline.folder / "venvs")
            with folder.alone() as is_free:
                assert is_free
            await offline.assign()
            await offline.until_true(lambda: offline.report() is None)
            await offline.assign(replica(offline))
            await offline.until_state(READY)


async def test_a_replica_whose_environment_cannot_be_built_fails_with_the_reason_and_is_tried_again(
    offline: Node,
) -> None:
    async with offline.supervised():
        await offline.assign(replica(offline, package="acme==3.0"))
        report = await offline.until_state(FAILED)
        assert "the engine cannot be started: the environment cannot be built: " in report.message
        assert "there is no version of acme==3.0" in report.message
        assert report.message.endswith(": correct packages or constraints")
        assert report.HasField("next_start_time")
        assert half_made(offline) == []
        write_wheel(offline.folder / "wheels", "acme", "3.0")
        await offline.until_state(READY)


async def test_an_engine_keeps_its_environment_when_its_agent_ends_and_the_next_one_adopts_it(offline: Node) -> None:
    async with offline.supervised():
        await offline.assign(replica(offline))
        before = await offline.until_state(READY)
    [folder] = folders(offline.folder / "venvs")
    with folder.alone() as is_free:
        assert not is_free
    async with offline.supervised():
        after = await offline.until_state(READY)
        assert (after.pid, after.package_versions["acme"]) == (before.pid, "1.0")
        [wanted_env] = offline.supervisor.virtual_envs()
        assert list(wanted_env.packages) == ["acme==1.0"]
        identity = offline.bundle().record().process
        assert identity is not None
        await offline.assign(replica(offline, stop_grace_s=0.0))
        await offline.until_state(STOPPED)
        assert not is_alive(identity)
        with folder.alone() as is_free:
            assert is_free
        assert offline.supervisor.virtual_envs() == []


async def test_variables_of_the_agent_do_not_lead_an_engine_out_of_its_environment(offline: Node) -> None:
    away = offline.folder / "away/acme"
    away.mkdir(parents=True)
    (away / "__init__.py").write_text('VERSION = "away"\n')
    environ = {**offline.how.environ, "PYTHONPATH": f"{Path.cwd()}:{away.parent}"}
    offline.how = replace(offline.how, environ=environ)
    async with offline.supervised():
        await offline.assign(replica(offline))
        report = await offline.until_state(READY)
        assert report.package_versions["acme"] == "1.0"
