"""What engines are started with, and what is told of them to a node."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from controlplane import wire
from controlplane.api.sizing import COMPUTED_BYTES, engine_spec, sized
from controlplane.placement.model_size import EngineDevice
from roundhouse.internal.v1.store_pb2 import DeploymentRecord
from roundhouse.v1.deployment_pb2 import Deployment, EngineOptions, EnvVar
from tests.support.plane import wanted
from tests.support.scripted_agent import demo_facts


@pytest.mark.parametrize(
    ("devices", "dtype", "is_for_gpus"),
    [
        pytest.param({"cuda"}, "", True, id="gpus"),
        pytest.param({"cuda"}, "auto", True, id="gpus_and_auto"),
        pytest.param({"cuda"}, "bfloat16", True, id="gpus_in_a_format_that_was_asked_for"),
        pytest.param({"cpu"}, "", False, id="hosts"),
        pytest.param({"cpu", "cuda"}, "", False, id="both_by_the_larger_need"),
    ],
)
def test_a_deployment_that_was_sized_for_gpus_alone_is_known_as_such(
    devices: Collection[EngineDevice], dtype: str, is_for_gpus: bool
) -> None:
    deployment = wanted(engine_options=EngineOptions(dtype=dtype))
    found = sized(deployment, demo_facts(), devices)
    record = DeploymentRecord(deployment=deployment, engine_spec=found.spec, memory_need=wire.memory_need(found.need))
    seen = wire.wanted(record)
    assert seen is not None
    assert seen.is_for_gpus is is_for_gpus


@pytest.mark.parametrize("devices", [{"cpu"}, {"cuda"}], ids=str)
@pytest.mark.parametrize(
    "deployment",
    [
        pytest.param(wanted(), id="bare"),
        pytest.param(
            wanted(
                engine="torch",
                engine_options=EngineOptions(batch_size=4, max_num_batched_tokens=64, max_waiting=7),
                env=[EnvVar(name="A", value="x" * 1000)],
            ),
            id="full",
        ),
    ],
)
def test_no_spec_takes_more_than_is_counted(deployment: Deployment, devices: Collection[EngineDevice]) -> None:
    told = sized(deployment, demo_facts(), devices).spec
    assert told.ByteSize() <= engine_spec(deployment).ByteSize() + COMPUTED_BYTES


MIB = 1024 * 1024
SIZES: dict[str, tuple[dict[str, str], dict[str, Any], tuple[int, int, int]]] = {
    # By default 32 sequences of 2,048 tokens of 4 KiB are kept in blocks of 16.
    "defaults": ({}, {}, (2048, 16, 256 * MIB)),
    "a variable": ({"ROUNDHOUSE_MAX_MODEL_LEN": "1024"}, {}, (1024, 16, 128 * MIB)),
    "its old name": ({"XINFERENCE_BATCH_SIZE": "4"}, {}, (2048, 16, 32 * MIB)),
    "memory": ({"ROUNDHOUSE_KV_CACHE_MEMORY": "64MiB"}, {}, (2048, 16, 64 * MIB)),
    "format": ({"ROUNDHOUSE_DTYPE": "bfloat16"}, {}, (2048, 16, 128 * MIB)),
    "blocks": ({"ROUNDHOUSE_BLOCK_SIZE": "64"}, {}, (2048, 64, 256 * MIB)),
    "what is stated holds": (
        {"ROUNDHOUSE_KV_CACHE_MEMORY": "64MiB", "ROUNDHOUSE_MAX_MODEL_LEN": "16"},
        {"kv_cache_memory_bytes": 32 * MIB, "max_model_len": 512},
        (512, 16, 32 * MIB),
    ),
}


@pytest.mark.parametrize(("variables", "stated", "computed"), SIZES.values(), ids=SIZES)
def test_the_environment_of_a_deployment_sizes_it_as_its_options_do(
    variables: dict[str, str], stated: dict[str, Any], computed: tuple[int, int, int]
) -> None:
    env = [EnvVar(name=name, value=value) for name, value in variables.items()]
    deployment = wanted(engine_options=EngineOptions(**stated), env=env)
    found = sized(deployment, demo_facts(), {"cpu"})
    told = found.spec.computed
    assert (told.max_model_len, told.block_size, told.kv_cache_memory_bytes) == computed
    assert found.need.kv_cache_bytes == computed[2]
    assert found.spec.options == deployment.engine_options, "what is computed must not look as if it was stated"


def test_a_model_that_guesses_takes_memory_too() -> None:
    alone = sized(wanted(), demo_facts(), {"cpu"}).need
    found = sized(wanted(), demo_facts(), {"cpu"}, demo_facts())
    both = found.need
    assert both.weight_bytes == 2 * alone.weight_bytes
    assert both.kv_cache_bytes == 2 * alone.kv_cache_bytes, "it keeps as many tokens"
    assert found.spec.draft_kv_cache_memory_bytes == alone.kv_cache_bytes
    assert both.total_bytes - alone.total_bytes == alone.weight_bytes + alone.kv_cache_bytes
