"""The node agent as the process that it is: killed, started again, told to end, started wrongly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nodeagent.process import identify, is_alive
from roundhouse.internal.v1 import agent_service_pb2 as wire
from roundhouse.internal.v1 import engine_spec_pb2
from roundhouse.v1 import node_pb2
from roundhouse.v1.deployment_pb2 import EngineOptions, ModelSource
from tests.support.scripted_control_plane import PATIENCE_S, ScriptedControlPlane, engine_in
from tests.support.supervision import FAILED, READY, STAND_IN, STOPPED, Node, wanted

GIB = 1024**3
DEMO = ModelSource(builtin="demo")


class Agent:
    """A node agent process; started again, it finds what it left."""

    def __init__(self, folder: Path, address: str, pythonpath: Path | None) -> None:
        self.folder, self.state_dir, self._address = folder, folder / "state", address
        self._environ = {**os.environ, **({} if pythonpath is None else {"PYTHONPATH": str(pythonpath)})}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        who = ["--control-plane", self._address, "--state-dir", str(self.state_dir), "--node-id", "a"]
        what = ["--sample-period", "0.2", "--simulate-gpus", "2x24GiB", "--label", "zone=x"]
        command = [sys.executable, "-m", "nodeagent", *who, *what, *options]
        with (self.folder / "agent.log").open("ab") as log:
            # Not from the root of the project: there, `engines` would be the real one.
            self.process = subprocess.Popen(command, cwd=self.folder, env=self._environ, stdout=log, stderr=log)

    async def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.to_thread(self.process.wait)


@pytest.fixture
async def plane() -> AsyncIterator[ScriptedControlPlane]:
    """A control plane that serves."""
    plane = ScriptedControlPlane()
    async with plane.serving():
        yield plane


@contextlib.asynccontextmanager
async def started(folder: Path, plane: ScriptedControlPlane, pythonpath: Path | None) -> AsyncIterator[Agent]:
    it = Agent(folder, plane.address, pythonpath)
    it.start()
    try:
        yield it
    finally:
        if it.process is not None and it.process.poll() is None:
            await it.end(signal.SIGKILL)
        await Node(it.state_dir).end()


@pytest.fixture
async def agent(tmp_path: Path, plane: ScriptedControlPlane) -> AsyncIterator[Agent]:
    """A node agent whose engines are stand-ins."""
    async with started(tmp_path, plane, STAND_IN) as it:
        yield it


@pytest.fixture(params=[pytest.param(STAND_IN, id="stand-in"), pytest.param(None, id="torch", marks=pytest.mark.slow)])
async def any_agent(
    request: pytest.FixtureRequest, tmp_path: Path, plane: ScriptedControlPlane
) -> AsyncIterator[Agent]:
    """A node agent with engines of either kind: what holds of the stand-in must hold of the real one."""
    async with started(tmp_path, plane, request.param) as it:
        yield it


def demo(uid: str = "r-1", *, stop_grace_s: float | None = None) -> wire.EngineAssignment:
    """Returns a replica of the demo model, which the stand-in takes as well."""
    replica = wanted(uid, stop_grace_s=stop_grace_s, gpu_uuids=["SIM-a-0"])
    options = EngineOptions(max_model_len=256, batch_size=4, kv_cache_memory_bytes=64 * 1024**2)
    spec = engine_spec_pb2.EngineSpec(deployment="chat", engine="torch", model=DEMO, options=options)
    replica.spec.CopyFrom(spec)
    return replica


async def test_a_node_reports_itself(plane: ScriptedControlPlane, agent: Agent) -> None:
    report = await plane.until(lambda report: report.node.gpus)
    assert (report.node_id, dict(report.node.labels)) == ("a", {"zone": "x"})
    assert [(each.uuid, each.total_memory_bytes) for each in report.node.gpus] == [
        ("SIM-a-0", 24 * GIB),
        ("SIM-a-1", 24 * GIB),
    ]
    assert {each.state for each in report.node.gpus} == {node_pb2.GPU_STATE_OK}
    assert report.node.host.cpu_count >= 1
    assert 0 < report.node.host.available_memory_bytes <= report.node.host.total_memory_bytes
    assert all((report.node_uid, report.agent_uid, report.boot_id, report.node.hostname, report.node.agent_version))


async def test_a_script_of_gpus_is_played_and_taints_are_reported(tmp_path: Path, plane: ScriptedControlPlane) -> None:
    script = tmp_path / "gpus.jsonl"
    script.write_text(
        '{"gpus": 2, "total_memory_bytes": "80GiB", "set": {"temperature_celsius": 40}}\n'
        '{"at_s": 0.5, "gpu": 1, "fault": "OFF_BUS"}\n'
    )
    it = Agent(tmp_path, plane.address, STAND_IN)
    it.start("--simulate-gpus", str(script), "--taint", "spot")
    try:
        lost = await plane.until(lambda report: [each.state for each in report.node.gpus] == [1, 2])
        assert lost.node.gpus[1].state_reason == node_pb2.GPU_STATE_REASON_OFF_BUS
        assert lost.node.gpus[0].temperature_celsius == 40
        assert list(lost.node.taints) == [node_pb2.Taint(key="spot")]
        assert lost.node.host.disks[0].path == str(it.state_dir)
    finally:
        await it.end(signal.SIGTERM)


async def test_an_engine_on_the_processors_is_measured_and_is_nobody_elses(
    plane: ScriptedControlPlane, agent: Agent
) -> None:
    plane.assign(wanted())
    await plane.until_state(READY)
    report = await plane.until(lambda report: (found := engine_in(report)) and found.measured_memory_bytes)
    [engine], host = report.engines, report.node.host
    assert engine.peak_memory_bytes >= engine.measured_memory_bytes > 1024**2
    used = host.total_memory_bytes - host.available_memory_bytes
    assert host.foreign_memory_bytes == used - engine.measured_memory_bytes


async def test_a_question_about_a_model_is_answered(plane: ScriptedControlPlane, agent: Agent) -> None:
    plane.assign(probes=[ModelSource(path="/no/such/model")])
    report = await plane.until(lambda report: report.models)
    assert report.models[0].state == wire.MODEL_STATE_NOT_FOUND


async def test_an_engine_serves_drains_and_is_gone(plane: ScriptedControlPlane, any_agent: Agent) -> None:
    replica = demo()
    plane.assign(replica)
    ready = await plane.until_state(READY)
    assert ready.load.total_block_count > 0
    charged = await plane.until(lambda report: report.node.gpus[0].used_memory_bytes == replica.reserved_memory_bytes)
    assert charged.node.host.reserved_memory_bytes == replica.reserved_memory_bytes
    assert (await plane.until(lambda report: (found := engine_in(report)) and found.fingerprint)).engines[0].pid > 0
    process = identify(ready.pid)
    assert process is not None
    plane.assign(demo(stop_grace_s=1.0))
    stopped = await plane.until_state(STOPPED)
    assert not is_alive(process)
    assert not stopped.HasField("last_exit")
    plane.assign()
    await plane.until(lambda report: not report.engines and not report.node.gpus[0].used_memory_bytes)


async def test_an_agent_that_is_killed_finds_its_engines_as_they_were(
    plane: ScriptedControlPlane, any_agent: Agent
) -> None:
    agent = any_agent
    plane.assign(demo())
    before = await plane.until_state(READY)
    process = identify(before.pid)
    assert process is not None
    await agent.end(signal.SIGKILL)
    assert is_alive(process)
    first_agent = plane.report.get()
    assert first_agent is not None
    agent.start()
    report = await plane.until(lambda report: report.agent_uid != first_agent.agent_uid)
    after = engine_in(report)  # the very first report of the new agent
    assert after is not None
    assert (after.state, after.pid, after.engine_uuid) == (READY, before.pid, before.engine_uuid)
    assert (after.engine_key, after.address, after.restart_count) == (before.engine_key, before.address, 0)
    assert (report.node_id, report.node_uid) == (first_agent.node_id, first_agent.node_uid)
    assert report.applied_order == first_agent.applied_order


async def test_an_engine_that_is_killed_under_an_agent_that_adopted_it_comes_back(
    plane: ScriptedControlPlane, agent: Agent
) -> None:
    plane.assign(wanted())
    before = await plane.until_state(READY)
    await agent.end(signal.SIGKILL)
    first_agent = plane.report.get()
    assert first_agent is not None
    agent.start()
    report = await plane.until(lambda report: report.agent_uid != first_agent.agent_uid)
    after = engine_in(report)
    assert after is not None
    assert after.pid == before.pid
    os.kill(before.pid, signal.SIGUSR1)
    failed = await plane.until_state(FAILED)
    assert failed.last_exit.exit_code == 37, "it is not this agent's child"
    assert list(failed.last_exit.stderr_lines) == ["first line", "last words"]
    again = await plane.until_state(READY)
    assert (again.restart_count, again.pid != before.pid) == (1, True)


async def test_engines_go_on_and_come_back_while_there_is_no_control_plane(tmp_path: Path) -> None:
    plane = ScriptedControlPlane()
    async with contextlib.AsyncExitStack() as life_of_agent:
        async with plane.serving() as address:
            await life_of_agent.enter_async_context(started(tmp_path, plane, STAND_IN))
            plane.assign(wanted())
            before = await plane.until_state(READY)
        plane.report.set(None)
        os.kill(before.pid, signal.SIGKILL)
        async with plane.serving(address):
            after = await plane.until_state(READY)
            assert (after.restart_count, after.pid != before.pid) == (1, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_agent_that_is_told_to_end_leaves_its_engines(
    plane: ScriptedControlPlane, agent: Agent, number: int
) -> None:
    plane.assign(wanted())
    process = identify((await plane.until_state(READY)).pid)
    assert process is not None
    assert await agent.end(number) == 0
    assert is_alive(process)


async def test_an_agent_may_be_told_to_take_its_engines_along(plane: ScriptedControlPlane, agent: Agent) -> None:
    plane.assign(wanted())
    process = identify((await plane.until_state(READY)).pid)
    assert process is not None
    await agent.end(signal.SIGTERM)
    plane.report.set(None)
    agent.start("--stop-engines-on-exit", "0.5")
    await plane.until_state(READY)
    assert is_alive(process)
    assert await agent.end(signal.SIGTERM) == 0
    assert not is_alive(process)


async def test_two_agents_do_not_share_a_state_directory(plane: ScriptedControlPlane, agent: Agent) -> None:
    await plane.until(lambda report: report.node_id)
    second = await run(["--control-plane", plane.address, "--state-dir", str(agent.state_dir)])
    assert second.returncode == 2
    assert f"the state directory {agent.state_dir} is in use by another node agent" in second.stderr
    assert second.stderr.count("\n") == 1


async def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nodeagent", *arguments]
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file where a directory is expected."""
    (tmp_path / "file").touch()
    return tmp_path / "file"


MISTAKES = {
    "nothing at all": [],
    "GPUs that cannot be": ["--control-plane", "127.0.0.1:1", "--simulate-gpus", "many"],
    "a script of GPUs that says nothing": ["--control-plane", "127.0.0.1:1", "--simulate-gpus", "{file}"],
    "no address": ["--control-plane", "here"],
    "a state directory that is a file": ["--control-plane", "127.0.0.1:1", "--state-dir", "{file}"],
}


@pytest.mark.parametrize("arguments", MISTAKES.values(), ids=MISTAKES)
async def test_a_mistake_is_one_line_and_exit_status_2(arguments: list[str], file: Path) -> None:
    ended = await run([each.format(file=file) for each in arguments])
    assert ended.returncode == 2
    assert ended.stderr.startswith("nodeagent: ")
    assert ended.stderr.count("\n") == 1
