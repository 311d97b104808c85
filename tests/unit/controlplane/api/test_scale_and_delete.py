"""ScaleDeployment and DeleteDeployment: what is refused, what happens, what a repeated call answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from roundhouse.internal.v1 import agent_service_pb2 as agent_pb
from roundhouse.kit.errors import Conflict, InvalidArgument, NoCapacity, NotFound, NotReady
from roundhouse.v1 import deployment_pb2
from roundhouse.v1 import deployment_service_pb2 as pb
from roundhouse.v1.deployment_pb2 import PlacementPolicy
from tests.support.plane import Plane, plane_on, reason_of, refused
from tests.support.scripted_agent import GIB, ScriptedAgent

CHAT = "deployments/chat"
READY = deployment_pb2.DEPLOYMENT_STATE_READY


def scale(count: int | None, name: str = CHAT, **fields: Any) -> pb.ScaleDeploymentRequest:
    return pb.ScaleDeploymentRequest(name=name, replica_count=count, **fields)


async def ready(plane: Plane, count: int) -> None:
    await plane.until(
        lambda all_: CHAT in all_ and all_[CHAT].state == READY and all_[CHAT].ready_replica_count == count
    )


BAD_SCALES: dict[str, tuple[pb.ScaleDeploymentRequest, str]] = {
    "no count": (scale(None), "replica_count"),
    "below 0": (scale(-1), "replica_count"),
    "above 1000": (scale(1001), "replica_count"),
    "malformed name": (scale(1, "chat"), "name"),
    "name of a replica": (scale(1, "deployments/chat/replicas/0"), "name"),
    "request id too long": (scale(1, request_id="x" * 65), "request_id"),
}


@pytest.mark.parametrize(("request_", "field"), BAD_SCALES.values(), ids=BAD_SCALES)
async def test_a_bad_scale_is_refused(plane: Plane, request_: pb.ScaleDeploymentRequest, field: str) -> None:
    error = await refused(plane.deployments.ScaleDeployment(request_))
    assert isinstance(error, InvalidArgument)
    assert [each.field for each in error.fields] == [field]


BAD_DELETES: dict[str, tuple[pb.DeleteDeploymentRequest, str]] = {
    "malformed name": (pb.DeleteDeploymentRequest(name="deployments/"), "name"),
    "negative grace": (pb.DeleteDeploymentRequest(name=CHAT, drain_grace=Duration(seconds=-1)), "drain_grace"),
    "grace above 1 h": (pb.DeleteDeploymentRequest(name=CHAT, drain_grace=Duration(seconds=3601)), "drain_grace"),
    "torn grace": (pb.DeleteDeploymentRequest(name=CHAT, drain_grace=Duration(seconds=1, nanos=-1)), "drain_grace"),
}


@pytest.mark.parametrize(("request_", "field"), BAD_DELETES.values(), ids=BAD_DELETES)
async def test_a_bad_delete_is_refused(plane: Plane, request_: pb.DeleteDeploymentRequest, field: str) -> None:
    error = await refused(plane.deployments.DeleteDeployment(request_))
    assert isinstance(error, InvalidArgument)
    assert [each.field for each in error.fields] == [field]


async def test_what_does_not_exist_is_not_found(plane: Plane) -> None:
    for call in (
        plane.deployments.ScaleDeployment(scale(1)),
        plane.deployments.DeleteDeployment(pb.DeleteDeploymentRequest(name=CHAT)),
        plane.deployments.GetDeployment(pb.GetDeploymentRequest(name=CHAT)),
        plane.deployments.ListReplicas(pb.ListReplicasRequest(parent=CHAT)),
    ):
        error = await refused(call)
        assert isinstance(error, NotFound)
        assert reason_of(error) == "DEPLOYMENT_NOT_FOUND"
        assert error.resource is not None
        assert error.resource.name == CHAT


async def test_replicas_come_and_go_from_the_highest_index(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        await plane.create(replica_count=1)
        await ready(plane, 1)
        grown = (await plane.deployments.ScaleDeployment(scale(3))).deployment
        assert (grown.generation, grown.replica_count) == (2, 3)
        await ready(plane, 3)
        uids = {each.name: each.uid for each in await plane.replicas()}
        await plane.deployments.ScaleDeployment(scale(1))
        left = await plane.until_replicas(lambda all_: set(all_) == {f"{CHAT}/replicas/0"})
        assert left[f"{CHAT}/replicas/0"].uid == uids[f"{CHAT}/replicas/0"]
        await plane.deployments.ScaleDeployment(scale(0))
        await ready(plane, 0)
        assert (await plane.get()).observed_generation <= 4


async def test_a_scale_to_the_same_count_changes_nothing(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        before = await plane.create(replica_count=2)
        same = (await plane.deployments.ScaleDeployment(scale(2))).deployment
        assert (same.generation, same.etag) == (1, before.etag)


async def test_a_stale_etag_is_refused_and_a_fresh_one_is_not(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        first = await plane.create()
        second = (await plane.deployments.ScaleDeployment(scale(2, etag=first.etag))).deployment
        assert second.etag != first.etag
        for call in (
            plane.deployments.ScaleDeployment(scale(3, etag=first.etag)),
            plane.deployments.DeleteDeployment(pb.DeleteDeploymentRequest(name=CHAT, etag=first.etag)),
            plane.deployments.ScaleDeployment(scale(3, etag="nonsense")),
        ):
            error = await refused(call)
            assert isinstance(error, Conflict)
            assert reason_of(error) == "ETAG_MISMATCH"
        assert (await plane.get()).replica_count == 2


async def test_growth_that_does_not_fit_is_refused_unless_it_may_wait(plane: Plane) -> None:
    async with ScriptedAgent("one", gpu_count=1, gpu_bytes=5 * GIB).joined(plane.address):
        await plane.create(placement=PlacementPolicy(memory_bytes=2 * GIB))
        error = await refused(plane.deployments.ScaleDeployment(scale(3)))
        assert isinstance(error, NoCapacity)
        assert (await plane.get()).replica_count == 1
        await plane.deployments.ScaleDeployment(scale(3, allow_pending=True))
        seen = await plane.until(
            lambda all_: CHAT in all_ and all_[CHAT].ready_replica_count == 2 and all_[CHAT].observed_generation == 2
        )
        assert seen[CHAT].state == deployment_pb2.DEPLOYMENT_STATE_DEGRADED


async def test_growth_that_would_have_to_share_is_refused_with_a_cure_whatever_the_cluster_says_now(
    tmp_path: Path,
) -> None:
    agent = ScriptedAgent("one")
    async with plane_on(tmp_path, allows_sharing=False) as plane, agent.joined(plane.address):
        await plane.create(replica_count=2)
        await ready(plane, 2)
    async with plane_on(tmp_path, allows_sharing=True) as plane, agent.joined(plane.address):
        await ready(plane, 2)
        error = await refused(plane.deployments.ScaleDeployment(scale(3)))
        assert isinstance(error, NoCapacity)
        cure = "(2 of 2 GPUs are taken): add a GPU, or delete it and create it again with allow_shared_gpu"
        assert error.message.endswith(cure)


async def test_fewer_can_be_asked_for_without_a_node_and_before_the_model_was_looked_up(plane: Plane) -> None:
    await plane.create(replica_count=3, allow_pending=True)
    assert (await plane.deployments.ScaleDeployment(scale(1))).deployment.replica_count == 1


async def test_growth_before_the_model_was_looked_up_is_refused(plane: Plane) -> None:
    await plane.create(allow_pending=True)
    error = await refused(plane.deployments.ScaleDeployment(scale(2)))
    assert isinstance(error, NotReady)
    assert reason_of(error) == "MODEL_NOT_LOOKED_UP"


async def test_a_deleted_deployment_drains_and_then_disappears(plane: Plane) -> None:
    agent = ScriptedAgent("one")
    async with agent.joined(plane.address):
        await plane.create(replica_count=2)
        await ready(plane, 2)
        agent.is_keen = False
        request = pb.DeleteDeploymentRequest(name=CHAT, drain_grace=Duration(seconds=7))
        gone = (await plane.deployments.DeleteDeployment(request)).deployment
        assert (gone.state, gone.generation) == (deployment_pb2.DEPLOYMENT_STATE_DELETING, 2)
        told = await agent.assigned(
            lambda each: all(engine.desired_state == agent_pb.DESIRED_STATE_STOPPED for engine in each.engines)
        )
        assert {each.drain_grace.seconds for each in told.engines} == {7}
        draining = [deployment_pb2.REPLICA_STATE_DRAINING] * 2
        await plane.until_replicas(lambda all_: [each.state for each in all_.values()] == draining)
        again = (await plane.deployments.DeleteDeployment(pb.DeleteDeploymentRequest(name=CHAT))).deployment
        assert again.generation == 2
        error = await refused(plane.deployments.ScaleDeployment(scale(3)))
        assert isinstance(error, NotReady)
        assert reason_of(error) == "DEPLOYMENT_DELETING"
        assert reason_of(await refused(plane.create())) == "DEPLOYMENT_EXISTS"
        agent.become(deployment_pb2.REPLICA_STATE_STOPPED)
        await plane.until(lambda all_: CHAT not in all_)
        assert (await plane.create()).generation == 1


async def test_one_without_engines_disappears_at_once(plane: Plane) -> None:
    await plane.create(allow_pending=True)
    await plane.deployments.DeleteDeployment(pb.DeleteDeploymentRequest(name=CHAT))
    await plane.until(lambda all_: CHAT not in all_)


async def test_validate_only_changes_nothing(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        before = await plane.create()
        would = (await plane.deployments.ScaleDeployment(scale(2, validate_only=True))).deployment
        assert (would.replica_count, would.generation) == (2, 2)
        delete = pb.DeleteDeploymentRequest(name=CHAT, validate_only=True)
        would = (await plane.deployments.DeleteDeployment(delete)).deployment
        assert would.state == deployment_pb2.DEPLOYMENT_STATE_DELETING
        assert (await plane.get()).etag == before.etag


async def test_repeated_mutations_answer_as_the_first_did(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        await plane.create()
        twice = scale(2, request_id="s")
        first = await plane.deployments.ScaleDeployment(twice)
        await plane.deployments.ScaleDeployment(scale(1))
        assert await plane.deployments.ScaleDeployment(twice) == first
        assert (await plane.get()).replica_count == 1
        delete = pb.DeleteDeploymentRequest(name=CHAT, request_id="d")
        gone = await plane.deployments.DeleteDeployment(delete)
        await plane.until(lambda all_: CHAT not in all_)
        assert await plane.deployments.DeleteDeployment(delete) == gone
