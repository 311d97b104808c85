"""Memory that is fitted, stated or a share of a GPU, through a control plane."""

from __future__ import annotations

from typing import Any

import pytest

from roundhouse.kit.errors import InvalidArgument, NoCapacity, NotServed
from roundhouse.v1 import deployment_pb2
from roundhouse.v1 import deployment_service_pb2 as pb
from roundhouse.v1.deployment_pb2 import EngineOptions, EnvVar, PlacementPolicy
from tests.support.plane import Plane, reason_of, refused
from tests.support.scripted_agent import GIB, ScriptedAgent, simulated_gpu

MIB = 1 << 20
READY = deployment_pb2.DEPLOYMENT_STATE_READY
# The demo model: a block of its cache, its weights, and what an engine takes besides.
BLOCK, WEIGHTS, OVERHEAD = 64 * 1024, 4 * 2_800_000, 512 * MIB
BOTH = EngineOptions(fit_max_model_len=True, fit_kv_cache_memory=True)


def one_gpu(total_bytes: int) -> ScriptedAgent:
    return ScriptedAgent("one", gpu_count=1, gpu_bytes=total_bytes)


def left_in(total_bytes: int) -> int:
    """Returns what a cache gets of a GPU, in whole blocks."""
    return (total_bytes - WEIGHTS - OVERHEAD) // BLOCK * BLOCK


WAYS: dict[str, dict[str, Any]] = {
    "by option": {"engine_options": EngineOptions(fit_kv_cache_memory=True)},
    "by variable": {"env": [EnvVar(name="ROUNDHOUSE_KV_CACHE_MEMORY", value="auto")]},
}


@pytest.mark.parametrize("fields", WAYS.values(), ids=WAYS)
async def test_a_cache_is_as_large_as_fits_and_shown(plane: Plane, fields: dict[str, Any]) -> None:
    async with one_gpu(600 * MIB).joined(plane.address) as agent:
        created = await plane.create(**fields)
        assert created.computed_options.kv_cache_memory_bytes == left_in(600 * MIB)
        assert created.computed_options.max_model_len == 2048
        assert created.memory_need.is_fitted
        assert created.memory_need.total_bytes == WEIGHTS + left_in(600 * MIB) + OVERHEAD
        seen = await plane.until(lambda all_: all_["deployments/chat"].state == READY if all_ else False)
        assert seen["deployments/chat"].computed_options == created.computed_options
        spec = (await agent.assigned(lambda each: len(each.engines) == 1)).engines[0].spec
        assert spec.computed == created.computed_options
        assert spec.options == created.engine_options


async def test_all_replicas_fit_with_what_is_fitted(plane: Plane) -> None:
    async with one_gpu(1200 * MIB).joined(plane.address):
        created = await plane.create(replica_count=2, engine_options=BOTH)
        assert created.computed_options.kv_cache_memory_bytes == left_in(600 * MIB)
        await plane.until(lambda all_: all_["deployments/chat"].ready_replica_count == 2 if all_ else False)


async def test_what_is_placed_already_has_its_room(plane: Plane) -> None:
    async with one_gpu(1400 * MIB).joined(plane.address):
        first = await plane.create("first")
        fitted = await plane.create("second", engine_options=BOTH)
        left = 1400 * MIB - first.memory_need.total_bytes
        assert left - BLOCK < fitted.memory_need.total_bytes <= left
        again = await plane.get("first")
        assert not again.memory_need.is_fitted


async def test_a_context_is_shorter_where_memory_is_short(plane: Plane) -> None:
    room = WEIGHTS + OVERHEAD + 33 * BLOCK
    async with one_gpu(room).joined(plane.address):
        assert isinstance(await refused(plane.create("whole")), NoCapacity)
        created = await plane.create(engine_options=BOTH)
        assert created.computed_options.max_model_len == 32 * 16
        assert created.memory_need.total_bytes == room


async def test_where_not_even_the_least_fits_it_is_refused_with_the_numbers(plane: Plane) -> None:
    async with one_gpu(GIB // 2).joined(plane.address):
        error = await refused(plane.create(engine_options=BOTH))
        assert isinstance(error, NoCapacity)
        assert reason_of(error) == "DOES_NOT_FIT"
        assert "512 MiB" in error.quota[0].description


async def test_what_may_wait_is_fitted_when_there_is_room(plane: Plane) -> None:
    async with one_gpu(GIB // 2).joined(plane.address):
        created = await plane.create(engine_options=BOTH, allow_pending=True)
        assert not created.HasField("memory_need")
        await plane.until_replicas(lambda all_: any("no place" in each.message for each in all_.values()))
        async with ScriptedAgent("two", gpu_count=1, gpu_bytes=600 * MIB).joined(plane.address):
            seen = await plane.until(lambda all_: all_["deployments/chat"].state == READY if all_ else False)
            assert seen["deployments/chat"].computed_options.kv_cache_memory_bytes == left_in(600 * MIB)


async def test_scaling_keeps_what_was_fitted(plane: Plane) -> None:
    async with one_gpu(600 * MIB).joined(plane.address):
        created = await plane.create(engine_options=BOTH)
        grown = pb.ScaleDeploymentRequest(name=created.name, replica_count=2)
        assert isinstance(await refused(plane.deployments.ScaleDeployment(grown)), NoCapacity)
        assert (await plane.get()).computed_options == created.computed_options


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a context that is stated as well": (
        {"engine_options": EngineOptions(fit_max_model_len=True, max_model_len=64)},
        "deployment.engine_options.fit_max_model_len",
    ),
    "a cache that is stated as well": (
        {"engine_options": EngineOptions(fit_kv_cache_memory=True, kv_cache_memory_bytes=GIB)},
        "deployment.engine_options.fit_kv_cache_memory",
    ),
    "a total below one sequence": (
        {"placement": PlacementPolicy(memory_bytes=OVERHEAD + WEIGHTS + MIB)},
        "deployment.placement.memory_bytes",
    ),
    "a share below one sequence": (
        {"placement": PlacementPolicy(memory_fraction=0.01)},
        "deployment.placement.memory_fraction",
    ),
    "a total below a cache that is stated": (
        {
            "placement": PlacementPolicy(memory_bytes=GIB),
            "engine_options": EngineOptions(kv_cache_memory_bytes=GIB),
        },
        "deployment.placement.memory_bytes",
    ),
}


@pytest.mark.parametrize(("fields", "field"), REFUSED.values(), ids=REFUSED)
async def test_what_contradicts_itself_is_refused_by_name(plane: Plane, fields: dict[str, Any], field: str) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        error = await refused(plane.create(**fields))
        assert isinstance(error, InvalidArgument)
        assert [each.field for each in error.fields] == [field]


async def test_what_an_option_states_holds_over_a_variable_that_is_to_be_fitted(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        env = [EnvVar(name="ROUNDHOUSE_MAX_MODEL_LEN", value="auto")]
        created = await plane.create(engine_options=EngineOptions(max_model_len=64), env=env)
        assert (created.computed_options.max_model_len, created.memory_need.is_fitted) == (64, False)


async def test_of_a_total_that_is_stated_the_cache_gets_what_is_left(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        created = await plane.create(placement=PlacementPolicy(memory_bytes=GIB))
        assert created.computed_options.kv_cache_memory_bytes == left_in(GIB)
        assert (created.memory_need.total_bytes, created.memory_need.is_stated) == (GIB, True)


@pytest.mark.parametrize(
    ("replica_count", "total_bytes"),
    [(1, 6 * GIB), (2, int(0.6 * 4 * GIB))],
    ids=["of the largest GPU", "of the largest on which all fit"],
)
async def test_a_share_is_that_of_the_largest_gpu_on_which_all_fit(
    plane: Plane, replica_count: int, total_bytes: int
) -> None:
    agent = ScriptedAgent("one", gpu_count=1, gpu_bytes=10 * GIB)
    agent.gpus.append(simulated_gpu("one", 1, 4 * GIB))
    async with agent.joined(plane.address):
        created = await plane.create(replica_count=replica_count, placement=PlacementPolicy(memory_fraction=0.6))
        assert created.memory_need.total_bytes == total_bytes
        await plane.until(lambda all_: all_["deployments/chat"].state == READY if all_ else False)


async def test_gpus_of_one_replica_each_take_their_share(plane: Plane) -> None:
    async with ScriptedAgent("one", gpu_count=2).joined(plane.address):
        created = await plane.create(placement=PlacementPolicy(gpus_per_replica=2))
        need = created.memory_need
        assert need.gpu_count == 2
        assert need.total_bytes == need.weight_bytes // 2 + need.kv_cache_bytes // 2 + need.overhead_bytes


async def test_several_real_gpus_for_one_replica_are_not_served(plane: Plane) -> None:
    agent = ScriptedAgent("one", gpu_count=2)
    for each in agent.gpus:
        each.is_simulated = False
    async with agent.joined(plane.address):
        error = await refused(plane.create(placement=PlacementPolicy(gpus_per_replica=2)))
        assert isinstance(error, NotServed)
        assert [each.field for each in error.fields] == ["deployment.placement.gpus_per_replica"]
        assert (await plane.create("one")).memory_need.gpu_count == 1
