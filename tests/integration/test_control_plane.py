"""The control plane as a process: how it starts, how it refuses to, and what it remembers when it is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from roundhouse.internal.v1 import agent_service_pb2 as agent_pb
from roundhouse.kit.channel import open_channel
from roundhouse.v1 import deployment_service_pb2 as pb
from roundhouse.v1 import inference_service_pb2, inference_service_pb2_grpc
from roundhouse.v1.deployment_pb2 import PlacementPolicy
from tests.support.cluster import eventually
from tests.support.plane import Plane, reason_of, refused
from tests.support.scripted_agent import ScriptedAgent

CHAT = "deployments/chat"
START_S = 30.0


class Process:
    """A control plane on a state directory, started as often as a test likes."""

    def __init__(self, folder: Path) -> None:
        self.state_dir, self._log = folder / "state", folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @contextlib.asynccontextmanager
    async def running(self, *arguments: str) -> AsyncIterator[Plane]:
        """Runs it for the block, on a free port unless told otherwise."""
        (self.state_dir / "address").unlink(missing_ok=True)  # one that was killed left it there
        self._process = self._spawn(*arguments)
        try:
            address = await eventually(self._address, "the control plane serves", patience_s=START_S)
            async with open_channel(address) as channel:
                yield Plane(address, channel)
        finally:
            self._process.kill()
            self._process.wait()

    async def end(self, number: signal.Signals) -> int:
        """Sends it a signal and waits for its end; returns its exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        return await asyncio.to_thread(self._process.wait, 20)

    def log(self) -> str:
        """Returns what it has logged so far."""
        return self._log.read_text()

    def _spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = ["--listen", "127.0.0.1:0", "--state-dir", str(self.state_dir), *arguments]
        with self._log.open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "controlplane", *command], stdout=log, stderr=log)

    def _address(self) -> str:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        return (self.state_dir / "address").read_text().strip()


@pytest.fixture
def process(tmp_path: Path) -> Process:
    return Process(tmp_path)


def refusal(*arguments: str, environ: dict[str, str] | None = None) -> tuple[int, str]:
    """Starts one that must refuse to run; returns its exit status and what it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "controlplane", *arguments],
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
        env={**os.environ, **(environ or {})},
    )
    return done.returncode, done.stderr


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


async def test_it_serves_everything_on_one_port_and_ends_with_status_0(process: Process) -> None:
    async with process.running() as plane, open_channel(plane.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", "roundhouse.v1.DeploymentService", "roundhouse.internal.v1.AgentService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        request = inference_service_pb2.CancelRequestRequest(deployment="chat", request_id="r")
        assert reason_of(await refused(stub.CancelRequest(request))) == "DEPLOYMENT_NOT_FOUND"
        assert await process.end(signal.SIGTERM) == 0
        assert not (process.state_dir / "address").exists()
        assert "control plane serving" in process.log()
        assert "Traceback" not in process.log()


async def test_a_state_directory_or_port_in_use_is_refused_in_one_line(process: Process, tmp_path: Path) -> None:
    async with process.running() as plane:
        status, text = refusal("--listen", "127.0.0.1:0", "--state-dir", str(process.state_dir))
        assert (status, len(text.splitlines())) == (2, 1)
        assert "in use by another control plane" in text
        status, text = refusal("--listen", plane.address, "--state-dir", str(tmp_path / "other"))
        assert status == 2
        assert f"cannot listen on {plane.address}" in last_line(text)
        assert "Traceback" not in text
        assert not (tmp_path / "other" / "address").exists()
        assert (await plane.deployments.ListDeployments(pb.ListDeploymentsRequest())).cursor  # it noticed nothing


REFUSED: dict[str, tuple[Sequence[str], dict[str, str], str]] = {
    "exposed": (["--listen", "0.0.0.0:0"], {}, "without TLS"),
    "strategy": ([], {"ROUNDHOUSE_LAUNCH_STRATEGY": "lucky"}, "ROUNDHOUSE_LAUNCH_STRATEGY"),
    "option": (["--bogus"], {}, "--bogus"),
}


@pytest.mark.parametrize(("arguments", "environ", "message"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_start_is_refused_in_one_line(
    tmp_path: Path, arguments: Sequence[str], environ: dict[str, str], message: str
) -> None:
    status, text = refusal("--state-dir", str(tmp_path / "state"), *arguments, environ=environ)
    assert (status, len(text.splitlines())) == (2, 1)
    assert message in text
    assert not (tmp_path / "state").exists()


async def test_what_was_acknowledged_outlives_a_kill(process: Process) -> None:
    agent, orders = ScriptedAgent("one"), []

    async def look(plane: Plane) -> list[tuple[str, str, tuple[str, ...]]]:
        seen = await plane.until(lambda all_: CHAT in all_ and all_[CHAT].ready_replica_count == 3)
        assert seen[CHAT].replica_count == 3
        told = await agent.assigned(lambda each: len(each.engines) == 3)
        orders.append((told.order.cluster_id, told.order.term, told.order.generation))
        return [(each.uid, each.engine_uuid, tuple(gpu.uuid for gpu in each.gpus)) for each in await plane.replicas()]

    async with process.running() as plane, agent.joined(plane.address):
        await plane.create(replica_count=3, placement=PlacementPolicy(gpu_count=2))
        before = await look(plane)
    for _ in range(2):
        async with process.running() as plane:
            assert (await plane.get()).replica_count == 3  # before anybody has reported
            async with agent.joined(plane.address):
                assert await look(plane) == before  # no engine was touched
    assert len({cluster for cluster, _, _ in orders}) == 1
    assert [term for _, term, _ in orders] == [1, 2, 3]
    assert orders == sorted(orders)


async def test_a_deletion_goes_on_after_a_kill(process: Process) -> None:
    agent = ScriptedAgent("one")
    async with process.running() as plane, agent.joined(plane.address):
        await plane.create(replica_count=2)
        await plane.until(lambda all_: CHAT in all_ and all_[CHAT].ready_replica_count == 2)
        agent.is_keen = False
        await plane.deployments.DeleteDeployment(pb.DeleteDeploymentRequest(name=CHAT))
    agent.is_keen = True
    async with process.running() as plane, agent.joined(plane.address):
        await plane.until(lambda all_: CHAT not in all_)
        emptied = await agent.assigned(lambda each: not each.engines)
        assert emptied.order.term == 2


async def test_a_request_id_is_remembered_over_a_kill(process: Process) -> None:
    request = pb.CreateDeploymentRequest(request_id="once", allow_pending=True)
    request.deployment.name = CHAT
    request.deployment.model.builtin = "demo"
    async with process.running() as plane:
        first = await plane.deployments.CreateDeployment(request)
    async with process.running() as plane:
        assert await plane.deployments.CreateDeployment(request) == first


async def test_an_agent_and_a_watch_are_told_when_it_is_killed(process: Process) -> None:
    async with process.running() as plane:
        watch = plane.deployments.WatchDeployments(pb.WatchDeploymentsRequest())
        assert (await watch.read()).events[0].HasField("bookmark")
        await process.end(signal.SIGKILL)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await watch.read()
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_no_key_of_an_engine_is_logged(process: Process) -> None:
    async with process.running("--log-level", "debug") as plane:
        async with ScriptedAgent("one").joined(plane.address) as agent:
            await plane.create()
            await plane.until(lambda all_: CHAT in all_ and all_[CHAT].ready_replica_count == 1)
            [engine] = agent.engines.values()
            assert isinstance(engine, agent_pb.EngineReport)
        assert engine.engine_key.decode() not in process.log()
