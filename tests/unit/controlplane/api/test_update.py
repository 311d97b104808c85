"""UpdateDeployment: what is refused, what is replaced and what is not, and how a change that does not work goes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from roundhouse.internal.v1 import agent_service_pb2 as agent_pb
from roundhouse.kit.errors import Conflict, InvalidArgument, NoCapacity, NotFound, NotReady
from roundhouse.kit.status import error_of
from roundhouse.v1 import condition_pb2, deployment_pb2
from roundhouse.v1 import deployment_service_pb2 as pb
from roundhouse.v1.condition_pb2 import Condition
from roundhouse.v1.deployment_pb2 import (
    Deployment,
    EngineExit,
    EngineOptions,
    EnvVar,
    ModelSource,
    PlacementPolicy,
    RolloutPolicy,
    VirtualEnv,
)
from tests.support.plane import Plane, reason_of, refused, take_in
from tests.support.scripted_agent import GIB, ScriptedAgent

CHAT = "deployments/chat"
READY, STARTING, FAILED = (
    deployment_pb2.REPLICA_STATE_READY,
    deployment_pb2.REPLICA_STATE_STARTING,
    deployment_pb2.REPLICA_STATE_FAILED,
)


def update(*paths: str, etag: str = "", name: str = CHAT, **fields: Any) -> pb.UpdateDeploymentRequest:
    return pb.UpdateDeploymentRequest(
        deployment=Deployment(name=name, etag=etag, **fields), update_mask=FieldMask(paths=paths)
    )


def batch_of(size: int) -> EngineOptions:
    return EngineOptions(batch_size=size)


def rolled_out(deployment: Deployment) -> Condition:
    return next(each for each in deployment.conditions if each.type == "RolledOut")


async def settled(plane: Plane, reason: str = "", *, updated: int = 1) -> Deployment:
    """Waits until the deployment is rolled out, or not for this reason."""

    def holds(all_: dict[str, Deployment]) -> bool:
        seen = all_.get(CHAT)
        return seen is not None and rolled_out(seen).reason == reason and seen.updated_replica_count == updated

    return (await plane.until(holds))[CHAT]


def specs(agent: ScriptedAgent) -> list[agent_pb.EngineAssignment]:
    now = agent.assignment.get()
    assert now is not None
    return [each for each in now.engines if each.desired_state == agent_pb.DESIRED_STATE_RUNNING]


BAD: dict[str, tuple[pb.UpdateDeploymentRequest, Sequence[str]]] = {
    "malformed name": (update("labels", name="chat"), ["deployment.name"]),
    "no such field": (update("engine_options.batch_sise"), ["update_mask"]),
    "within a list": (update("env.name"), ["update_mask"]),
    "immutable": (update("engine", engine="torch"), ["update_mask"]),
    "immutable part": (update("placement.gpu_count"), ["update_mask"]),
    "output only": (update("state"), ["update_mask"]),
    "its own name": (update("name"), ["update_mask"]),
    "out of range": (update("engine_options", engine_options=batch_of(0)), ["deployment.engine_options.batch_size"]),
    "no secret to keep": (update("env", env=[EnvVar(name="TOKEN")]), ["deployment.env[0]"]),
    "stands still": (update("rollout", rollout=RolloutPolicy(max_surge=0)), ["deployment.rollout"]),
    "surge below 0": (update("rollout", rollout=RolloutPolicy(max_surge=-1)), ["deployment.rollout.max_surge"]),
    "unknown routing": (update("routing_policy", routing_policy="luck"), ["deployment.routing_policy"]),
    "hasty": (
        update("rollout", rollout=RolloutPolicy(progress_deadline=Duration(nanos=1))),
        ["deployment.rollout.progress_deadline"],
    ),
    "env name that is none": (update("env", env=[EnvVar(name="1", value="x")]), ["deployment.env[0].name"]),
    "no model": (update("model"), ["deployment.model"]),
}


@pytest.mark.parametrize(("request_", "fields"), BAD.values(), ids=BAD)
async def test_a_bad_update_is_refused_by_the_field_and_nothing_is_replaced(
    plane: Plane, request_: pb.UpdateDeploymentRequest, fields: Sequence[str]
) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        before = await plane.create()
        error = await refused(plane.deployments.UpdateDeployment(request_))
        assert isinstance(error, InvalidArgument)
        assert [each.field for each in error.fields] == fields
        assert (await plane.get()).etag == before.etag


async def test_what_is_not_there_or_going_cannot_be_updated(plane: Plane) -> None:
    error = await refused(plane.deployments.UpdateDeployment(update("labels", labels={"a": "b"})))
    assert isinstance(error, NotFound)
    agent = ScriptedAgent("one")
    async with agent.joined(plane.address):
        await plane.create()
        agent.is_keen = False
        await plane.deployments.DeleteDeployment(pb.DeleteDeploymentRequest(name=CHAT))
        error = await refused(plane.deployments.UpdateDeployment(update("labels", labels={"a": "b"})))
        assert isinstance(error, NotReady)
        assert reason_of(error) == "DEPLOYMENT_DELETING"


async def test_labels_and_the_count_of_replicas_change_without_a_replacement(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        first = await plane.create(labels={"a": "1"})
        await plane.until(lambda all_: CHAT in all_ and all_[CHAT].ready_replica_count == 1)
        [before] = await plane.replicas()
        asked = update(labels={"b": "2"}, replica_count=2, rollout=RolloutPolicy(max_surge=2), etag=first.etag)
        second = (await plane.deployments.UpdateDeployment(asked)).deployment
        assert (second.generation, dict(second.labels), second.rollout.max_surge) == (2, {"b": "2"}, 2)
        seen = await plane.until(lambda all_: CHAT in all_ and all_[CHAT].ready_replica_count == 2)
        assert rolled_out(seen[CHAT]).status == condition_pb2.CONDITION_STATUS_TRUE
        assert before.uid in {each.uid for each in await plane.replicas()}
        again = (await plane.deployments.UpdateDeployment(update(labels={"b": "2"}))).deployment
        assert again.etag == second.etag
        stale = await refused(plane.deployments.UpdateDeployment(asked))
        assert isinstance(stale, Conflict)
        assert reason_of(stale) == "ETAG_MISMATCH"


async def test_how_requests_are_routed_changes_without_a_replacement_and_goes_back_to_the_cluster_s(
    plane: Plane,
) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        first = await plane.create(routing_policy="Round-Robin")
        assert first.routing_policy == "round_robin"
        asked = update(routing_policy="LEAST_LOADED")
        second = (await plane.deployments.UpdateDeployment(asked)).deployment
        assert (second.routing_policy, second.generation) == ("least_loaded", 2)
        again = (await plane.deployments.UpdateDeployment(asked)).deployment
        assert again.etag == second.etag
        third = (await plane.deployments.UpdateDeployment(update("routing_policy"))).deployment
        assert third.routing_policy == ""
        seen = await settled(plane, updated=1)
        assert not seen.HasField("rollout")
        assert len(await plane.replicas()) == 1


async def test_replicas_are_replaced_one_by_one_by_such_as_run_what_is_wanted(plane: Plane) -> None:
    agent = ScriptedAgent("one")
    async with agent.joined(plane.address):
        await plane.create(replica_count=3)
        await settled(plane, updated=3)
        before = {each.uid for each in await plane.replicas()}
        changed = (await plane.deployments.UpdateDeployment(update(engine_options=batch_of(5)))).deployment
        assert (changed.generation, rolled_out(changed).reason) == (2, "RollingOut")
        after = await settled(plane, updated=3)
        assert after.engine_options.batch_size == 5
        now = await plane.until_replicas(
            lambda all_: len(all_) == 3 and not before & {each.uid for each in all_.values()}
        )
        assert {each.deployment_generation for each in now.values()} == {2}
        assert {each.spec.options.batch_size for each in specs(agent)} == {5}


async def test_the_old_replica_serves_with_what_it_had_until_the_new_one_is_ready(plane: Plane) -> None:
    agent = ScriptedAgent("one")
    async with agent.joined(plane.address):
        await plane.create()
        await settled(plane)
        [before] = await plane.replicas()
        agent.is_keen = False
        await plane.deployments.UpdateDeployment(update("env", env=[EnvVar(name="A", value="1")]))
        told = await agent.assigned(lambda each: len(each.engines) == 2)
        old, new = sorted(told.engines, key=lambda each: each.placement_epoch)
        assert (old.replica_uid, old.deployment_generation, list(old.spec.env)) == (before.uid, 1, [])
        assert [each.name for each in new.spec.env] == ["A"]
        assert [each.uid for each in await plane.replicas()] == [before.uid]
        agent.become(READY, [new.replica_uid])
        told = await agent.assigned(
            lambda each: any(one.desired_state == agent_pb.DESIRED_STATE_STOPPED for one in each.engines)
        )
        [going] = [each for each in told.engines if each.desired_state == agent_pb.DESIRED_STATE_STOPPED]
        assert (going.replica_uid, going.drain_grace.ToSeconds()) == (before.uid, 300)


async def test_a_change_that_dies_again_and_again_is_taken_back_and_says_why(plane: Plane) -> None:
    agent = ScriptedAgent("one")
    async with agent.joined(plane.address):
        await plane.create(replica_count=2, env=[EnvVar(name="A", value="1")])
        await settled(plane, updated=2)
        before = {each.uid for each in await plane.replicas()}
        agent.is_keen = False
        await plane.deployments.UpdateDeployment(update("env", env=[EnvVar(name="A", value="2")]))
        told = await agent.assigned(lambda each: len(each.engines) == 3)
        [new] = [each.replica_uid for each in told.engines if each.replica_uid not in before]
        words = EngineExit(exit_code=1, stderr_lines=["Traceback", "ValueError: A must not be 2"])
        agent.engines[new].last_exit.CopyFrom(words)
        agent.is_keen = True
        agent.become(FAILED, [new], is_crash_loop=True)
        after = await settled(plane, "RolledBack", updated=2)
        assert (after.generation, [each.value for each in after.env]) == (3, ["1"])
        assert "generation 2 was taken back to 1" in rolled_out(after).message
        assert "ValueError: A must not be 2" in rolled_out(after).message
        left = await plane.until_replicas(lambda all_: {each.uid for each in all_.values()} == before)
        assert {each.deployment_generation for each in left.values()} == {1}
        # What is asked for next is as if nothing had been.
        await plane.deployments.UpdateDeployment(update("env", env=[EnvVar(name="A", value="3")]))
        again = await settled(plane, updated=2)
        assert [each.value for each in again.env] == ["3"]


async def test_a_change_that_is_never_ready_is_taken_back_after_its_deadline(plane: Plane) -> None:
    agent = ScriptedAgent("one")
    async with agent.joined(plane.address):
        await plane.create(rollout=RolloutPolicy(progress_deadline=Duration(seconds=1)))
        await settled(plane)
        agent.is_keen = False
        await plane.deployments.UpdateDeployment(update("engine_options.batch_size", engine_options=batch_of(3)))
        after = await settled(plane, "RolledBack")
        assert "no further replica was READY within 1 s" in rolled_out(after).message
        assert not after.engine_options.HasField("batch_size")


async def test_no_clock_runs_while_there_is_nothing_new_to_wait_for(plane: Plane) -> None:
    agent = ScriptedAgent("one", gpu_count=1, gpu_bytes=4 * GIB)
    async with agent.joined(plane.address):
        await plane.create(
            placement=PlacementPolicy(memory_bytes=3 * GIB),
            rollout=RolloutPolicy(progress_deadline=Duration(seconds=1)),
        )
        await settled(plane)
        # A second one has no room, and never will: what has is rolled out all the same, and is not taken back.
        await plane.deployments.ScaleDeployment(
            pb.ScaleDeploymentRequest(name=CHAT, replica_count=2, allow_pending=True)
        )
        await plane.deployments.UpdateDeployment(
            update("engine_options.batch_size", "rollout.max_unavailable", engine_options=batch_of(3),
                   rollout=RolloutPolicy(max_unavailable=2))
        )  # fmt: skip
        seen = await plane.until(lambda all_: CHAT in all_ and all_[CHAT].updated_replica_count == 1)
        stays = await still(plane, 3.0)
        assert stays.engine_options.batch_size == 3
        assert rolled_out(seen[CHAT]).reason == rolled_out(stays).reason == "RollingOut"


async def still(plane: Plane, seconds: float) -> Deployment:
    """Watches for so long that a clock which ran would have ended; returns what is there then."""
    last: dict[str, Deployment] = {}
    async with plane.watching(plane.deployments.WatchDeployments(pb.WatchDeploymentsRequest())) as events:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                async for event in events:
                    take_in(event, last)
    return last[CHAT]


async def test_an_index_that_is_given_back_as_it_was_read_keeps_its_password(plane: Plane) -> None:
    agent = ScriptedAgent("one")
    async with agent.joined(plane.address):
        packages = VirtualEnv(packages=["peft"], index_url="https://me:hush@index.example/simple")
        await plane.create(virtual_env=packages)
        await settled(plane)
        read = await plane.get()
        assert "hush" not in read.virtual_env.index_url
        read.labels["a"] = "1"
        await plane.deployments.UpdateDeployment(pb.UpdateDeploymentRequest(deployment=read))
        after = await settled(plane)
        assert (dict(after.labels), after.generation) == ({"a": "1"}, 2)
        assert rolled_out(after).status == condition_pb2.CONDITION_STATUS_TRUE
        assert [each.spec.virtual_env.index_url for each in specs(agent)] == [packages.index_url]


async def test_a_star_stands_for_all_that_can_be_changed_and_clears_what_is_unset(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        await plane.create(replica_count=2, labels={"a": "1"}, env=[EnvVar(name="A", value="1")])
        await settled(plane, updated=2)
        await plane.deployments.UpdateDeployment(update("*", model=ModelSource(builtin="demo")))
        after = await settled(plane)
        assert (after.replica_count, dict(after.labels), list(after.env)) == (1, {}, [])


async def test_what_never_served_is_not_gone_back_to(plane: Plane) -> None:
    agent = ScriptedAgent("one")
    agent.is_keen = False
    async with agent.joined(plane.address):
        await plane.create()
        await agent.assigned(lambda each: len(each.engines) == 1)
        agent.become(STARTING)
        await plane.deployments.UpdateDeployment(update("engine_options.batch_size", engine_options=batch_of(3)))
        # The first one serves nobody, so it goes at once, and the second one alone counts.
        told = await agent.assigned(
            lambda each: any(
                one.spec.options.batch_size == 3 and one.desired_state == agent_pb.DESIRED_STATE_RUNNING
                for one in each.engines
            )
        )
        [new] = [each.replica_uid for each in told.engines if each.spec.options.batch_size == 3]
        agent.become(FAILED, [new], is_crash_loop=True)
        seen = await plane.until(lambda all_: "FAILED" in rolled_out(all_[CHAT]).message if CHAT in all_ else False)
        assert rolled_out(seen[CHAT]).reason == "RollingOut"
        agent.is_keen = True
        agent.become(READY, [new], is_crash_loop=False)
        assert (await settled(plane)).engine_options.batch_size == 3


async def test_without_room_for_a_second_one_it_says_so_and_goes_on_as_soon_as_one_may_be_missing(
    plane: Plane,
) -> None:
    agent = ScriptedAgent("one", gpu_count=1, gpu_bytes=4 * GIB)
    async with agent.joined(plane.address):
        await plane.create(placement=PlacementPolicy(memory_bytes=3 * GIB))
        await settled(plane)
        await plane.deployments.UpdateDeployment(update("engine_options.batch_size", engine_options=batch_of(3)))
        stuck = await settled(plane, "SurgeDoesNotFit", updated=0)
        assert stuck.ready_replica_count == 1
        assert "rollout.max_unavailable" in rolled_out(stuck).message
        assert "GiB" in rolled_out(stuck).message
        await plane.deployments.UpdateDeployment(update(rollout=RolloutPolicy(max_unavailable=1)))
        assert (await settled(plane)).engine_options.batch_size == 3


async def test_what_would_fit_nowhere_even_alone_is_refused(plane: Plane) -> None:
    async with ScriptedAgent("one", gpu_count=1, gpu_bytes=4 * GIB).joined(plane.address):
        await plane.create(placement=PlacementPolicy(memory_bytes=3 * GIB))
        await settled(plane)
        larger = update("placement.memory_bytes", placement=PlacementPolicy(memory_bytes=5 * GIB))
        error = await refused(plane.deployments.UpdateDeployment(larger))
        assert isinstance(error, NoCapacity)
        fits = update("placement.memory_bytes", placement=PlacementPolicy(memory_bytes=4 * GIB))
        fits.validate_only = True
        answer = (await plane.deployments.UpdateDeployment(fits)).deployment
        assert answer.memory_need.total_bytes == 4 * GIB
        assert (await plane.get()).generation == 1


async def test_a_secret_is_kept_or_replaced_and_counts_its_versions(plane: Plane) -> None:
    agent = ScriptedAgent("one")
    async with agent.joined(plane.address):
        await plane.create(env=[EnvVar(name="TOKEN", secret_value="hush-hush")])
        await settled(plane)
        await plane.deployments.UpdateDeployment(update("env", env=[EnvVar(name="TOKEN"), EnvVar(name="A", value="1")]))
        kept = await settled(plane)
        assert [(each.name, each.secret_version) for each in kept.env] == [("TOKEN", 1), ("A", 0)]
        assert {(each.name, each.value) for each in specs(agent)[0].spec.env} == {("TOKEN", "hush-hush"), ("A", "1")}
        await plane.deployments.UpdateDeployment(update("env", env=[EnvVar(name="TOKEN", secret_value="hush-anew")]))
        replaced = await settled(plane)
        assert [(each.name, each.secret_version) for each in replaced.env] == [("TOKEN", 2)]
        assert [each.value for each in specs(agent)[0].spec.env] == ["hush-anew"]


async def test_another_model_may_take_the_place_of_the_first(plane: Plane) -> None:
    agent = ScriptedAgent("one")
    other = agent_pb.ModelFacts()
    other.CopyFrom(agent.models[ModelSource(builtin="demo").SerializeToString()])
    other.source.CopyFrom(ModelSource(path="/models/tuned"))
    agent.knows(other)
    async with agent.joined(plane.address):
        await plane.create()
        await settled(plane)
        await plane.deployments.UpdateDeployment(update(model=ModelSource(path="/models/tuned")))
        assert (await settled(plane)).model.path == "/models/tuned"
        assert specs(agent)[0].spec.model.path == "/models/tuned"
        missing = await refused(plane.deployments.UpdateDeployment(update(model=ModelSource(path="/models/none"))))
        assert isinstance(missing, NotFound)


async def test_a_repeated_update_is_answered_as_before_and_made_once(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        await plane.create()
        asked = update("engine_options.batch_size", engine_options=batch_of(3))
        asked.request_id = "once"
        first = await plane.deployments.UpdateDeployment(asked)
        second = await plane.deployments.UpdateDeployment(asked)
        assert first == second
        assert (await plane.get()).generation == 2


async def test_of_two_updates_at_once_each_is_made_or_with_an_etag_one(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        first = await plane.create()
        calls = [
            update("labels", labels={"a": "1"}),
            update("engine_options.batch_size", engine_options=batch_of(3)),
            update("annotations", annotations={"b": "2"}),
        ]
        await asyncio.gather(*(plane.deployments.UpdateDeployment(each) for each in calls))
        both = await settled(plane)
        assert (dict(both.labels), dict(both.annotations), both.engine_options.batch_size) == (
            {"a": "1"},
            {"b": "2"},
            3,
        )
        for each in calls:
            each.deployment.etag = both.etag
            each.deployment.labels["c"] = each.update_mask.paths[0]
            each.update_mask.paths[:] = ["labels"]
        answers = await asyncio.gather(
            *(plane.deployments.UpdateDeployment(each) for each in calls), return_exceptions=True
        )
        refusals = [error_of(each) for each in answers if isinstance(each, grpc.aio.AioRpcError)]
        assert [reason_of(each) for each in refusals] == ["ETAG_MISMATCH"] * 2
        assert first.uid == both.uid


async def test_at_most_two_versions_run_beside_the_one_that_is_wanted(plane: Plane) -> None:
    agent = ScriptedAgent("one")
    async with agent.joined(plane.address):
        await plane.create()
        await settled(plane)
        agent.is_keen = False
        told = agent_pb.JoinResponse()
        for size in (3, 4):
            await plane.deployments.UpdateDeployment(update("engine_options.batch_size", engine_options=batch_of(size)))
            told = await agent.assigned(
                lambda each, size=size: any(one.spec.options.batch_size == size for one in each.engines)  # type: ignore[misc]
            )
        assert len({each.spec.options.batch_size for each in told.engines}) == 3
        error = await refused(
            plane.deployments.UpdateDeployment(update("engine_options.batch_size", engine_options=batch_of(5)))
        )
        assert isinstance(error, NotReady)
        assert reason_of(error) == "ROLLOUT_IN_PROGRESS"
