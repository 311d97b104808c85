"""What is refused in a report: one agent may not end the control plane, nor hide the fleet from others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from controlplane.api.reports import (
    MAX_DISKS,
    MAX_ENGINES,
    MAX_FACTS_BYTES,
    MAX_GPU_UUID,
    MAX_GPUS,
    MAX_MEMORY_BYTES,
    MAX_MODELS,
    MAX_PROCESSES,
    MAX_TAINTS,
    MAX_VERSIONS,
    check_report,
)
from roundhouse.internal.v1.agent_service_pb2 import EngineReport, JoinRequest, ModelFacts, NodeFacts, Refusal
from roundhouse.kit.errors import InvalidArgument
from roundhouse.v1.deployment_pb2 import LaunchProgress
from roundhouse.v1.node_pb2 import Disk, Gpu, GpuProcess, Host, Taint
from tests.support.scripted_agent import ScriptedAgent

Change = Callable[[JoinRequest], Any]
ENGINE = EngineReport(replica="deployments/chat/replicas/0", replica_uid="u")


def report(change: Change) -> JoinRequest:
    whole = ScriptedAgent("one").message()
    change(whole)
    return whole


def gpu(**fields: Any) -> Change:
    return lambda whole: whole.node.gpus.append(Gpu(uuid="x", **fields))


def engine(**fields: Any) -> Change:
    return lambda whole: whole.engines.add(replica=ENGINE.replica, replica_uid="u", **fields)


def host(**fields: Any) -> Change:
    return lambda whole: whole.node.host.MergeFrom(Host(**fields))


def taint(**fields: Any) -> Change:
    return lambda whole: whole.node.taints.add(**fields)


def model(**fields: Any) -> Change:
    return lambda whole: whole.models.add(**fields)


BAD: dict[str, tuple[Change, str]] = {
    "utilization that is no number": (gpu(utilization_fraction=math.nan), "node.gpus[2].utilization_fraction"),
    "infinite utilization": (gpu(utilization_fraction=math.inf), "node.gpus[2].utilization_fraction"),
    "utilization below 0": (gpu(utilization_fraction=-0.01), "node.gpus[2].utilization_fraction"),
    "sample above 1": (gpu(last_utilization_fraction=1.01), "node.gpus[2].last_utilization_fraction"),
    "busy processors that are no number": (host(cpu_fraction=math.nan), "node.host.cpu_fraction"),
    "memory utilization above 1": (gpu(memory_utilization_fraction=1.5), "node.gpus[2].memory_utilization_fraction"),
    "sample of it that is no number": (
        gpu(last_memory_utilization_fraction=math.nan),
        "node.gpus[2].last_memory_utilization_fraction",
    ),
    "absurd memory of the driver": (gpu(driver_memory_bytes=2**62), "node.gpus[2].driver_memory_bytes"),
    "GPU without a name": (lambda whole: whole.node.gpus.add(), "node.gpus[2].uuid"),
    "GPU with a long name": (lambda whole: whole.node.gpus.add(uuid="x" * (MAX_GPU_UUID + 1)), "node.gpus[2].uuid"),
    "GPU that is there twice": (
        lambda whole: whole.node.gpus.add(uuid=whole.node.gpus[0].uuid),
        "node.gpus[2].uuid",
    ),
    "last sample of the processors below 0": (host(last_cpu_fraction=-0.1), "node.host.last_cpu_fraction"),
    "absurd peak": (engine(peak_memory_bytes=2**63 - 1), "engines[0].peak_memory_bytes"),
    "taint without a key": (taint(value="x"), "node.taints[0]"),
    "taint with a long key": (taint(key="k" * 64), "node.taints[0]"),
    "taint with a long value": (taint(key="k", value="v" * 256), "node.taints[0]"),
    "index below 0": (gpu(index=-1), "node.gpus[2].index"),
    "absurd memory": (gpu(total_memory_bytes=MAX_MEMORY_BYTES + 1), "node.gpus[2].total_memory_bytes"),
    "negative use": (gpu(used_memory_bytes=-1), "node.gpus[2].used_memory_bytes"),
    "absurd memory of the host": (host(total_memory_bytes=2**63 - 1), "node.host.total_memory_bytes"),
    "negative memory of the host": (host(available_memory_bytes=-1), "node.host.available_memory_bytes"),
    "absurd reservation": (engine(reserved_memory_bytes=2**63 - 1), "engines[0].reserved_memory_bytes"),
    "absurd measurement": (engine(measured_memory_bytes=2**63 - 1), "engines[0].measured_memory_bytes"),
    "negative reservation": (engine(reserved_memory_bytes=-1), "engines[0].reserved_memory_bytes"),
    "more than all of a launch": (engine(progress=LaunchProgress(fraction=1.5)), "engines[0].progress.fraction"),
    "less than nothing of a launch": (engine(progress=LaunchProgress(done_bytes=-1)), "engines[0].progress.done_bytes"),
    "absurd launch": (engine(progress=LaunchProgress(total_bytes=2**62)), "engines[0].progress.total_bytes"),
    "engine of too many packages": (
        engine(package_versions={str(each): "1" for each in range(MAX_VERSIONS + 1)}),
        "engines[0].package_versions",
    ),
    "engine on too many GPUs": (engine(gpu_uuids=["x"] * (MAX_GPUS + 1)), "engines[0].gpu_uuids"),
    "model with less than no weights": (model(weight_bytes=-1), "models[0].weight_bytes"),
    "model with a negative cache": (model(kv_elements_per_token=-(2**63)), "models[0].kv_elements_per_token"),
    "facts too large": (lambda whole: whole.node.labels.update({"k": "v" * MAX_FACTS_BYTES}), "node"),
}


@pytest.mark.parametrize(("change", "field"), BAD.values(), ids=BAD)
def test_a_value_that_cannot_be_is_named(change: Change, field: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        check_report(report(change))
    assert [each.field for each in refusal.value.fields] == [field]


MANY: dict[str, tuple[Change, str]] = {
    "GPUs": (lambda whole: whole.node.gpus.extend([Gpu()] * (MAX_GPUS + 1)), "node.gpus"),
    "processes": (gpu(processes=[GpuProcess()] * (MAX_PROCESSES + 1)), "node.gpus[2].processes"),
    "disks": (host(disks=[Disk()] * (MAX_DISKS + 1)), "node.host.disks"),
    "taints": (lambda whole: whole.node.taints.extend([Taint()] * (MAX_TAINTS + 1)), "node.taints"),
    "engines": (lambda whole: whole.engines.extend([EngineReport()] * (MAX_ENGINES + 1)), "engines"),
    "refusals": (lambda whole: whole.refusals.extend([Refusal()] * (MAX_ENGINES + 1)), "refusals"),
    "models": (lambda whole: whole.models.extend([ModelFacts(weight_bytes=-1)] * (MAX_MODELS + 1)), "models"),
}


@pytest.mark.parametrize(("change", "field"), MANY.values(), ids=MANY)
def test_of_too_many_none_is_looked_at(change: Change, field: str) -> None:
    with pytest.raises(InvalidArgument, match="are too many: report at most") as refusal:
        check_report(report(change))
    assert [each.field for each in refusal.value.fields] == [field]


GOOD: dict[str, Change] = {
    "idle": gpu(utilization_fraction=0.0, last_utilization_fraction=0.0),
    "fully utilized": gpu(utilization_fraction=1.0, last_utilization_fraction=1.0),
    "utilization that is not told": gpu(),
    "as much memory as can be": gpu(total_memory_bytes=MAX_MEMORY_BYTES),
    "as large a reservation": engine(reserved_memory_bytes=MAX_MEMORY_BYTES),
    "launch that is done": engine(progress=LaunchProgress(fraction=1.0, total_bytes=MAX_MEMORY_BYTES)),
    "busy host": host(cpu_fraction=1.0),
    "taint as long as can be": taint(key="k" * 63, value="v" * 255),
    "processes of which nothing is known": gpu(processes=[GpuProcess()] * MAX_PROCESSES),
    "nothing measured yet": lambda whole: whole.node.CopyFrom(NodeFacts(hostname="one")),
}


@pytest.mark.parametrize("change", GOOD.values(), ids=GOOD)
def test_the_ends_of_a_range_belong_to_it(change: Change) -> None:
    check_report(report(change))
