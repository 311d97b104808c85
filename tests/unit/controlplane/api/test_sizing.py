"""What engines are started with, and what is told of them to a node."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from controlplane import wire
from controlplane.api.sizing import COMPUTED_BYTES, engine_spec, sized
from controlplane.placement.need import EngineDevice
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
