"""CreateDeployment: what is refused, and that what is accepted runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from roundhouse.internal.v1 import agent_service_pb2 as agent_pb
from roundhouse.kit.errors import (
    AlreadyExists,
    InvalidArgument,
    NoCapacity,
    NotFound,
    NotReady,
    NotServed,
    RoundhouseError,
)
from roundhouse.v1 import deployment_pb2
from roundhouse.v1 import deployment_service_pb2 as pb
from roundhouse.v1.deployment_pb2 import (
    Deployment,
    EngineArgument,
    EngineOptions,
    EnvVar,
    ModelSource,
    PlacementPolicy,
    Speculation,
)
from tests.support.plane import Plane, plane_on, reason_of, refused, wanted
from tests.support.scripted_agent import GIB, ScriptedAgent

READY = deployment_pb2.DEPLOYMENT_STATE_READY
DRAFT_MODEL = deployment_pb2.SPECULATION_METHOD_DRAFT_MODEL


def env(**fields: Any) -> list[EnvVar]:
    return [EnvVar(**fields)]


BAD_FIELDS: dict[str, tuple[Deployment, str]] = {
    "name missing": (Deployment(model=ModelSource(builtin="demo")), "deployment.name"),
    "name without collection": (Deployment(name="chat", model=ModelSource(builtin="demo")), "deployment.name"),
    "name with capitals": (wanted("Chat"), "deployment.name"),
    "name that is a number": (wanted("123"), "deployment.name"),
    "name that is too long": (wanted("a" * 64), "deployment.name"),
    "name that ends in a hyphen": (wanted("a-"), "deployment.name"),
    "no model": (wanted(model=ModelSource()), "deployment.model"),
    "relative path": (wanted(model=ModelSource(path="models/x")), "deployment.model.path"),
    "path with NUL": (wanted(model=ModelSource(path="/a\0b")), "deployment.model.path"),
    "replicas below 0": (wanted(replica_count=-1), "deployment.replica_count"),
    "too many replicas": (wanted(replica_count=1001), "deployment.replica_count"),
    "gpu_count 0": (wanted(placement=PlacementPolicy(gpu_count=0)), "deployment.placement.gpu_count"),
    "more GPUs than replicas": (
        wanted(replica_count=2, placement=PlacementPolicy(gpu_count=3)),
        "deployment.placement.gpu_count",
    ),
    "memory below 1 MiB": (wanted(placement=PlacementPolicy(memory_bytes=1)), "deployment.placement.memory_bytes"),
    "unknown routing": (wanted(routing_policy="luck"), "deployment.routing_policy"),
    "batch size 0": (wanted(engine_options=EngineOptions(batch_size=0)), "deployment.engine_options.batch_size"),
    "context below 16": (
        wanted(engine_options=EngineOptions(max_model_len=15)),
        "deployment.engine_options.max_model_len",
    ),
    "cache above what can be counted": (
        wanted(engine_options=EngineOptions(kv_cache_memory_bytes=2**63 - 1)),
        "deployment.engine_options.kv_cache_memory_bytes",
    ),
    "context above the model's": (
        wanted(engine_options=EngineOptions(max_model_len=4096)),
        "deployment.engine_options.max_model_len",
    ),
    "cache below one sequence": (
        wanted(engine_options=EngineOptions(kv_cache_memory_bytes=1024)),
        "deployment.engine_options.kv_cache_memory_bytes",
    ),
    "odd block size": (wanted(engine_options=EngineOptions(block_size=17)), "deployment.engine_options.block_size"),
    "unknown dtype": (wanted(engine_options=EngineOptions(dtype="int3")), "deployment.engine_options.dtype"),
    "negative interval": (
        wanted(engine_options=EngineOptions(batch_interval=Duration(seconds=-1))),
        "deployment.engine_options.batch_interval",
    ),
    "interval above 10 s": (
        wanted(engine_options=EngineOptions(batch_interval=Duration(seconds=11))),
        "deployment.engine_options.batch_interval",
    ),
    "unknown attention": (wanted(engine_options=EngineOptions(attention="x")), "deployment.engine_options.attention"),
    "unknown quantization": (
        wanted(engine_options=EngineOptions(quantization="int1")),
        "deployment.engine_options.quantization",
    ),
    "too many guesses": (
        wanted(engine_options=EngineOptions(speculation=Speculation(token_count=9))),
        "deployment.engine_options.speculation.token_count",
    ),
    "a draft model that is none": (
        wanted(engine_options=EngineOptions(speculation=Speculation(method=DRAFT_MODEL))),
        "deployment.engine_options.speculation.draft_model",
    ),
    "a draft model at a relative path": (
        wanted(engine_options=EngineOptions(speculation=Speculation(draft_model=ModelSource(path="a")))),
        "deployment.engine_options.speculation.draft_model.path",
    ),
    "a draft model by variable alone": (
        wanted(env=env(name="ROUNDHOUSE_SPECULATION", value="draft_model")),
        "deployment.engine_options.speculation.draft_model",
    ),
    "a variable out of range": (
        wanted(env=env(name="X", value="") + env(name="ROUNDHOUSE_BATCH_SIZE", value="0")),
        "deployment.env[1].value",
    ),
    "Xinference's variable out of range": (
        wanted(env=env(name="XINFERENCE_BATCH_INTERVAL", value="soon")),
        "deployment.env[0].value",
    ),
    "a context above the model's by variable": (
        wanted(env=env(name="ROUNDHOUSE_MAX_MODEL_LEN", value="4096")),
        "deployment.env",
    ),
    "env name": (wanted(env=env(name="1X", value="")), "deployment.env[0].name"),
    "env twice": (wanted(env=env(name="X", value="") + env(name="X", value="")), "deployment.env[1].name"),
    "env without value": (wanted(env=env(name="X")), "deployment.env[0]"),
    "a variable of the agent's": (wanted(env=env(name="CUDA_VISIBLE_DEVICES", value="0")), "deployment.env[0].name"),
    "a short secret": (wanted(env=env(name="X", secret_value="abc")), "deployment.env[0].secret_value"),
    "a secret with a NUL": (wanted(env=env(name="X", secret_value="abc\0def")), "deployment.env[0].secret_value"),
    "a setting as a secret": (
        wanted(env=env(name="XINFERENCE_BATCH_SIZE", secret_value="1234")),
        "deployment.env[0].secret_value",
    ),
    "env with a NUL": (wanted(env=env(name="X", value="a\0b")), "deployment.env[0].value"),
    "env too big in all": (
        wanted(env=[EnvVar(name=f"X{n}", value="x" * 8192) for n in range(3)]),
        "deployment.env",
    ),
    "too many labels": (wanted(labels={f"k{n}": "" for n in range(65)}), "deployment.labels"),
    "label key too long": (wanted(labels={"k" * 64: ""}), "deployment.labels"),
    "annotations too big": (wanted(annotations={"k": "v" * 16384}), "deployment.annotations"),
}


@pytest.mark.parametrize(("deployment", "field"), BAD_FIELDS.values(), ids=BAD_FIELDS)
async def test_a_bad_field_is_named_and_nothing_is_stored(plane: Plane, deployment: Deployment, field: str) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        error = await refused(
            plane.deployments.CreateDeployment(pb.CreateDeploymentRequest(deployment=deployment, allow_pending=True))
        )
        assert isinstance(error, InvalidArgument)
        assert reason_of(error) == "FIELD_INVALID"
        assert field in [each.field for each in error.fields]
        assert list((await plane.deployments.ListDeployments(pb.ListDeploymentsRequest())).deployments) == []


async def test_every_bad_field_is_named_at_once(plane: Plane) -> None:
    bad = wanted("X", replica_count=-1, model=ModelSource())
    error = await refused(
        plane.deployments.CreateDeployment(pb.CreateDeploymentRequest(deployment=bad, request_id="é" * 65))
    )
    assert {each.field for each in error.fields} == {
        "deployment.name",
        "deployment.model",
        "deployment.replica_count",
        "request_id",
    }


UNKNOWN: dict[str, tuple[dict[str, Any], type[RoundhouseError], str, str]] = {
    "engine": ({"engine": "fortran"}, InvalidArgument, "ENGINE_UNKNOWN", "deployment.engine"),
    "strategy": (
        {"placement": PlacementPolicy(strategy="lucky")},
        InvalidArgument,
        "STRATEGY_UNKNOWN",
        "deployment.placement.strategy",
    ),
    "secret_ref": ({"env": env(name="A", secret_ref="s")}, NotServed, "NOT_SERVED", "deployment.env[0].secret_ref"),
    "argument": (
        {"engine_options": EngineOptions(arguments=[EngineArgument(name="swap_space", value="4")])},
        InvalidArgument,
        "FIELD_INVALID",
        "deployment.engine_options.arguments[0].name",
    ),
    "path": ({"model": ModelSource(path="/nowhere")}, NotFound, "MODEL_NOT_FOUND", ""),
    "builtin": ({"model": ModelSource(builtin="nothing")}, NotFound, "MODEL_NOT_FOUND", ""),
    "broken": ({"model": ModelSource(path="/broken")}, InvalidArgument, "MODEL_BROKEN", "deployment.model.path"),
}


@pytest.mark.parametrize(("fields", "kind", "reason", "field"), UNKNOWN.values(), ids=UNKNOWN)
async def test_what_does_not_exist_is_refused_with_its_own_reason(
    plane: Plane, fields: dict[str, Any], kind: type[RoundhouseError], reason: str, field: str
) -> None:
    agent = ScriptedAgent("one")
    broken = agent_pb.MODEL_STATE_BROKEN
    agent.knows(agent_pb.ModelFacts(source=ModelSource(path="/broken"), state=broken, message="config.json is missing"))
    async with agent.joined(plane.address):
        error = await refused(plane.create(**fields))
        assert isinstance(error, kind)
        assert reason_of(error) == reason
        assert [each.field for each in error.fields] == ([field] if field else [])
        if reason.endswith("_UNKNOWN"):
            assert error.metadata["known"]
        if reason == "MODEL_BROKEN":
            assert "config.json is missing" in error.message


async def test_a_created_deployment_becomes_ready_where_there_is_room(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address) as agent:
        created = await plane.create(replica_count=3, placement=PlacementPolicy(gpu_count=2), engine="transformers")
        assert (created.generation, created.engine, created.placement.strategy) == (1, "torch", "idle_first")
        seen = await plane.until(lambda all_: all_["deployments/chat"].state == READY if all_ else False)
        assert seen["deployments/chat"].ready_replica_count == 3
        conditions = seen["deployments/chat"].conditions
        assert {each.type: each.status for each in conditions} == {"Placed": 1, "Available": 1, "RolledOut": 1}
        replicas = await plane.replicas()
        assert sorted(each.gpus[0].index for each in replicas) in ([0, 0, 1], [0, 1, 1])
        assert {each.engine_pid for each in replicas} == {1000, 1001, 1002}
        assert not any(hasattr(each, "engine_key") for each in replicas)
        spec = next(iter((await agent.assigned(lambda each: len(each.engines) == 3)).engines)).spec
        assert (spec.engine, spec.computed.max_model_len, spec.computed.dtype) == ("torch", 2048, "float32")


async def test_a_question_about_a_model_ends_with_its_answer(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address) as agent:
        await plane.create()
        assert ModelSource(builtin="demo") in agent.probed
        assert not (await agent.assigned(lambda each: not each.model_probes)).model_probes


async def test_a_mended_model_is_found_at_the_next_try(plane: Plane) -> None:
    agent, source = ScriptedAgent("one"), ModelSource(path="/model")
    agent.knows(agent_pb.ModelFacts(source=source, state=agent_pb.MODEL_STATE_BROKEN, message="config.json is missing"))
    async with agent.joined(plane.address):
        assert reason_of(await refused(plane.create(model=source))) == "MODEL_BROKEN"
        facts = next(iter(agent.models.values()))
        agent.knows(agent_pb.ModelFacts(**{**_fields(facts), "source": source}))
        assert (await plane.create(model=source)).uid


async def test_no_room_is_refused_with_the_numbers_of_each_gpu(plane: Plane) -> None:
    async with ScriptedAgent("one", gpu_count=2, gpu_bytes=GIB).joined(plane.address):
        error = await refused(plane.create(placement=PlacementPolicy(memory_bytes=30 * GIB)))
        assert isinstance(error, NoCapacity)
        assert reason_of(error) == "DOES_NOT_FIT"
        assert "30 GiB" in error.message
        assert "1 GiB" in error.message
        assert [each.subject for each in error.quota] == ["nodes/one/gpus/0", "nodes/one/gpus/1"]
        assert reason_of(await refused(plane.get())) == "DEPLOYMENT_NOT_FOUND"


async def test_a_third_replica_without_sharing_is_refused(tmp_path: Path) -> None:
    async with plane_on(tmp_path / "state", allows_sharing=False) as plane, ScriptedAgent("one").joined(plane.address):
        error = await refused(plane.create(replica_count=3))
        assert isinstance(error, NoCapacity)
        assert len(error.quota) == 2
        assert "1 of 3 replicas have no place" in error.message
        cure = "(2 of 2 GPUs are taken): add a GPU, or set ROUNDHOUSE_ALLOW_MULTI_REPLICA_PER_GPU=1"
        assert error.message.endswith(cure)
        assert (await plane.create(replica_count=2)).replica_count == 2


async def test_who_asks_not_to_share_is_told_that_it_is_up_to_him(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        error = await refused(plane.create(replica_count=3, placement=PlacementPolicy(allow_shared_gpu=False)))
        cure = "(2 of 2 GPUs are taken): add a GPU, or create it with allow_shared_gpu"
        assert error.message.endswith(cure)


async def test_while_the_only_gpus_are_lost_hosts_take_what_is_created_and_nothing_that_was_for_gpus(
    tmp_path: Path,
) -> None:
    gpus, host = ScriptedAgent("gpus", gpu_bytes=4 * GIB), ScriptedAgent("host", gpu_count=0, machine="m2")
    for gpu in gpus.gpus:
        gpu.is_simulated = False
    host.period_s = 0.2  # of a lease of 1 s
    async with plane_on(tmp_path, lease_s=1.0) as plane, host.joined(plane.address):
        async with gpus.joined(plane.address):
            await plane.create("running")
            await plane.create("waiting", placement=PlacementPolicy(memory_bytes=8 * GIB), allow_pending=True)
            await plane.until_replicas(lambda all_: [each.engine_pid > 0 for each in all_.values()] == [True, False])
        await plane.until_replicas(lambda all_: all("does not report" in each.message for each in all_.values()))
        await plane.create("created")
        await plane.until(lambda all_: "deployments/created" in all_ and all_["deployments/created"].state == READY)
        assert [each.node for each in await plane.replicas("created")] == ["nodes/host"]
        assert [each.node for each in await plane.replicas("waiting")] == [""]
        grown = pb.ScaleDeploymentRequest(name="deployments/running", replica_count=2)
        assert "node gpus does not report" in (await refused(plane.deployments.ScaleDeployment(grown))).message


async def test_fields_that_this_version_does_not_know_are_dropped(plane: Plane) -> None:
    unknown = b"\xfa\x7f\x04junk"  # field 2047
    asked = wanted(placement=PlacementPolicy(memory_bytes=GIB), env=env(name="A", value="b"))
    for part in (asked, asked.model, asked.engine_options, asked.placement, asked.env[0]):
        part.MergeFromString(unknown)
    async with ScriptedAgent("one").joined(plane.address) as agent:
        request = pb.CreateDeploymentRequest(deployment=asked, request_id="once")
        response = await plane.deployments.CreateDeployment(request)
        assert b"junk" not in response.SerializeToString()
        assert await plane.deployments.CreateDeployment(request) == response  # the same request still is
        told = await agent.assigned(lambda each: len(each.engines) == 1)
        assert b"junk" not in told.SerializeToString()
        assert told.engines[0].spec.env[0].value == "b"


async def test_what_is_stored_but_not_placed_yet_counts(plane: Plane) -> None:
    async with ScriptedAgent("one", gpu_count=1, gpu_bytes=10 * GIB).joined(plane.address):
        need = PlacementPolicy(memory_bytes=6 * GIB)
        await plane.create("first", placement=need)
        assert isinstance(await refused(plane.create("second", placement=need)), NoCapacity)


async def test_without_a_node_nothing_is_created_unless_it_may_wait(plane: Plane) -> None:
    error = await refused(plane.create())
    assert isinstance(error, NotReady)
    assert reason_of(error) == "NO_NODE"
    waiting = await plane.create(allow_pending=True)
    assert waiting.state == deployment_pb2.DEPLOYMENT_STATE_PENDING
    async with ScriptedAgent("one").joined(plane.address):
        await plane.until(lambda all_: all_["deployments/chat"].state == READY if all_ else False)


async def test_what_may_wait_is_stored_though_it_does_not_fit(plane: Plane) -> None:
    async with ScriptedAgent("one", gpu_count=1, gpu_bytes=GIB).joined(plane.address):
        await plane.create(placement=PlacementPolicy(memory_bytes=2 * GIB), allow_pending=True)
        [replica] = (
            await plane.until_replicas(lambda all_: any("2 GiB" in each.message for each in all_.values()))
        ).values()
        assert replica.state == deployment_pb2.REPLICA_STATE_PENDING
        placed = next(each for each in (await plane.get()).conditions if each.type == "Placed")
        assert (placed.status, placed.reason) == (2, "DoesNotFit")


async def test_one_deployment_too_many_with_a_large_env_is_refused_and_all_others_go_on(plane: Plane) -> None:
    large = env(name="LARGE", value="x" * 16_000)
    async with ScriptedAgent("one", gpu_bytes=400 * GIB).joined(plane.address):
        created = [(await plane.create(f"d{number}", env=large)).name for number in range(44)]
        error = await refused(plane.create("one-too-many", env=large))
        assert isinstance(error, NoCapacity)
        assert "704 KiB: shorten env" in str(error)
        assert reason_of(error) == "SPECS_TOO_LARGE"
        # Every one of them is on the same node, and that node could be told.
        await plane.until(lambda all_: [each.name for each in all_.values() if each.state == READY] == sorted(created))


async def test_a_name_in_use_is_refused(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        await plane.create()
        error = await refused(plane.create())
        assert isinstance(error, AlreadyExists)
        assert reason_of(error) == "DEPLOYMENT_EXISTS"
        assert error.resource is not None
        assert error.resource.name == "deployments/chat"


async def test_validate_only_answers_and_stores_nothing(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        request = pb.CreateDeploymentRequest(deployment=wanted(replica_count=2), validate_only=True, request_id="r")
        answer = (await plane.deployments.CreateDeployment(request)).deployment
        assert (answer.replica_count, answer.generation) == (2, 1)
        assert reason_of(await refused(plane.get())) == "DEPLOYMENT_NOT_FOUND"
        too_big = wanted(placement=PlacementPolicy(memory_bytes=100 * GIB))
        request = pb.CreateDeploymentRequest(deployment=too_big, validate_only=True)
        assert isinstance(await refused(plane.deployments.CreateDeployment(request)), NoCapacity)


def _fields(message: Any) -> dict[str, Any]:
    return {field.name: value for field, value in message.ListFields()}
