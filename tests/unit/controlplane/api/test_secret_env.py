"""Secret variables reach engines, and nothing else: no answer, no list, no byte of the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.__main__ import running
from controlplane.config import Config, PlacementDefaults
from roundhouse.kit.channel import open_channel
from roundhouse.kit.errors import NotReady, Usage
from roundhouse.kit.server import Listen
from roundhouse.v1 import deployment_service_pb2 as pb
from roundhouse.v1 import deployment_service_pb2_grpc
from roundhouse.v1.deployment_pb2 import EnvVar
from tests.support.plane import Plane, plane_on, reason_of, refused, wanted
from tests.support.scripted_agent import ScriptedAgent

SECRET = "correct horse battery staple"
ENV = [EnvVar(name="PLAIN", value="clear"), EnvVar(name="TOKEN", secret_value=SECRET)]


def everything_in(directory: Path) -> bytes:
    return b"".join(each.read_bytes() for each in directory.iterdir() if each.is_file())


async def test_an_engine_gets_a_secret_and_no_answer_and_no_file_has_it(plane_dir: Path) -> None:
    async with plane_on(plane_dir) as plane, ScriptedAgent("a").joined(plane.address) as agent:
        created = await plane.create(env=ENV)
        [engine] = (await agent.assigned(lambda each: len(each.engines) == 1)).engines
        assert {each.name: each.value for each in engine.spec.env} == {"PLAIN": "clear", "TOKEN": SECRET}
        assert list(engine.spec.secret_names) == ["TOKEN"]
        assert not engine.spec.sealed_env
        shown = [EnvVar(name="PLAIN", value="clear"), EnvVar(name="TOKEN", secret_version=1)]
        assert list(created.env) == list((await plane.get()).env) == shown
        scaled = pb.ScaleDeploymentRequest(name=created.name, replica_count=2)
        await plane.deployments.ScaleDeployment(scaled)
        planned = pb.PlanDeploymentRequest(deployment=wanted("more", env=ENV))
        answers = [created, await plane.deployments.PlanDeployment(planned), await plane.replicas()]
        assert SECRET not in str(answers)
        assert SECRET.encode() not in everything_in(plane_dir)


async def test_a_secret_outlives_the_control_plane(plane_dir: Path) -> None:
    async with plane_on(plane_dir) as plane:
        await plane.create(env=ENV, allow_pending=True)
    async with plane_on(plane_dir) as plane, ScriptedAgent("a").joined(plane.address) as agent:
        [engine] = (await agent.assigned(lambda each: len(each.engines) == 1)).engines
        assert {each.name: each.value for each in engine.spec.env}["TOKEN"] == SECRET


async def test_an_agent_is_told_which_secrets_a_lost_key_leaves_shut(plane_dir: Path) -> None:
    async with plane_on(plane_dir) as plane:
        await plane.create(env=ENV, allow_pending=True)
    (plane_dir / "secrets.key").unlink()
    async with plane_on(plane_dir) as plane, ScriptedAgent("a").joined(plane.address) as agent:
        [engine] = (await agent.assigned(lambda each: len(each.engines) == 1)).engines
        assert list(engine.spec.unopened_names) == ["TOKEN"]
        assert [each.name for each in engine.spec.env] == ["PLAIN"]


async def test_the_same_request_again_gets_the_same_answer_and_another_secret_is_another_request(plane: Plane) -> None:
    async with ScriptedAgent("a").joined(plane.address):
        request = pb.CreateDeploymentRequest(deployment=wanted("chat", env=ENV), request_id="one")
        first = await plane.deployments.CreateDeployment(request)
        assert await plane.deployments.CreateDeployment(request) == first
        request.deployment.env[1].secret_value = "another one"
        assert reason_of(await refused(plane.deployments.CreateDeployment(request))) == "MUTATION_EXISTS"


async def test_a_control_plane_that_others_can_listen_to_takes_no_secret(plane_dir: Path) -> None:
    config = Config(Listen("0.0.0.0", 0, insecure=True), plane_dir, PlacementDefaults("idle_first"), stop_grace_s=0.0)
    async with running(config) as serving, open_channel(f"127.0.0.1:{serving.port}") as channel:
        stub = deployment_service_pb2_grpc.DeploymentServiceStub(channel)
        request = pb.CreateDeploymentRequest(deployment=wanted("chat", env=ENV), allow_pending=True)
        error = await refused(stub.CreateDeployment(request))
        assert isinstance(error, NotReady)
        assert reason_of(error) == "SECRETS_NEED_TLS"
        assert 'the secret "TOKEN" came without TLS' in error.message
        assert SECRET not in str(error)
        request.deployment.env.pop()
        await stub.CreateDeployment(request)


async def test_a_control_plane_that_keeps_secrets_does_not_start_where_others_can_listen(plane_dir: Path) -> None:
    async with plane_on(plane_dir) as plane:
        await plane.create(env=ENV, allow_pending=True)
    config = Config(Listen("0.0.0.0", 0, insecure=True), plane_dir, PlacementDefaults("idle_first"), stop_grace_s=0.0)
    with pytest.raises(Usage, match="deployments/chat has secrets, which would be sent where others can listen"):
        async with running(config):
            pass


@pytest.fixture
def plane_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"
