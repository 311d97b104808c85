"""A report holds all that the parts of the agent know."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import replace

import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from nodeagent.identity import NodeIdentity
from nodeagent.model import (
    Disk,
    Ecc,
    Failure,
    GpuProcess,
    HostReading,
    Link,
    LinkKind,
    Occupant,
    Order,
    Reading,
    Sample,
    Throttle,
)
from nodeagent.report import Reporter, Self
from roundhouse.internal.v1 import agent_service_pb2 as wire
from roundhouse.kit.latest import Latest
from roundhouse.v1 import node_pb2

WHO = Self(
    NodeIdentity("a", "uid-of-a"), "agent", "boot", "machine", {"zone": "x"}, taints=(("owner", "me"), ("spot", ""))
)
HOST = HostReading(
    cpu_count=2,
    cpu_fraction=0.75,
    mean_cpu_fraction=0.5,
    total_bytes=100,
    available_bytes=60,
    measured_bytes={"r-2": 10, "r-3": 5},
    disks=(Disk("/models", 1000, 400),),
)
REAL = Reading(
    "GPU-1",
    0,
    "H200",
    is_simulated=False,
    total_bytes=10,
    used_bytes=4,
    free_bytes=6,
    foreign_bytes=1,
    utilization_fraction=0.9,
    mean_utilization_fraction=0.4,
    temperature_celsius=0.0,
)
FULL = replace(
    REAL,
    driver_bytes=1,
    processes=(GpuProcess(7, "python", "", None), GpuProcess(8, "engine", "deployments/chat/replicas/0", 3)),
    omitted_process_count=2,
    memory_utilization_fraction=0.2,
    mean_memory_utilization_fraction=0.1,
    power_watts=71.5,
    power_limit_watts=700.0,
    sm_clock_mhz=1200,
    max_sm_clock_mhz=1980,
    memory_clock_mhz=3200,
    throttles=(Throttle.POWER_CAP, Throttle.HARDWARE_THERMAL),
    ecc=Ecc(is_enabled=True, corrected_count=5, uncorrected_count=1),
    is_mig_enabled=False,
    links=(Link(1, LinkKind.NVLINK), Link(2, LinkKind.NUMA_NODE)),
    nvlink_island=0,
    state_time_s=3.0,
)
LOST = Reading("GPU-2", 1, "H200", is_simulated=False, total_bytes=10).failed(Failure.OFF_BUS, "GPU is lost")


class Parts:
    """Engines and models of a node."""

    def __init__(self, applied: Order | None) -> None:
        self.applied = applied

    def reports(self) -> Sequence[wire.EngineReport]:
        return [wire.EngineReport(replica_uid="r-1")]

    def refusals(self) -> Sequence[wire.Refusal]:
        return [wire.Refusal(replica_uid="r-2")]

    def facts(self) -> Sequence[wire.ModelFacts]:
        return [wire.ModelFacts(model_type="qwen3")]


def report(sample: Sample | None, *occupants: Occupant, applied: Order | None = None) -> wire.JoinRequest:
    parts = Parts(applied)
    return Reporter(WHO, parts, parts, Latest(occupants), Latest(sample)).report()


def test_a_report_says_who_sends_it_and_what_was_applied() -> None:
    said = report(None, applied=Order("cluster", 3, 7))
    assert (said.node_id, said.node_uid, said.agent_uid) == ("a", "uid-of-a", "agent")
    assert (said.boot_id, said.machine_id, dict(said.node.labels)) == ("boot", "machine", {"zone": "x"})
    assert said.applied_order == wire.Order(cluster_id="cluster", term=3, generation=7)
    assert (said.protocol_version, said.lowest_protocol_version) == (1, 1)


def test_a_gpu_that_does_not_tell_its_utilization_is_not_reported_idle() -> None:
    silent = replace(REAL, utilization_fraction=None, mean_utilization_fraction=None)
    [gpu] = report(Sample(5.0, HOST, (silent,), gpu_time_s=4.0)).node.gpus
    assert not gpu.HasField("utilization_fraction")
    assert not gpu.HasField("last_utilization_fraction")


def test_before_the_first_assignment_no_order_is_claimed() -> None:
    assert not report(None).HasField("applied_order")


def test_a_report_holds_engines_refusals_and_models() -> None:
    said = report(None)
    assert [each.replica_uid for each in said.engines] == ["r-1"]
    assert [each.replica_uid for each in said.refusals] == ["r-2"]
    assert [each.model_type for each in said.models] == ["qwen3"]


def test_gpus_are_reported_as_read() -> None:
    real, lost = report(Sample(5.0, HOST, (REAL, LOST), gpu_time_s=4.0)).node.gpus
    assert (real.uuid, real.state, real.used_memory_bytes, real.foreign_memory_bytes) == ("GPU-1", 1, 4, 1)
    assert (real.utilization_fraction, real.last_utilization_fraction) == (0.4, 0.9)
    assert real.HasField("temperature_celsius"), "zero degrees are a temperature"
    assert not real.HasField("power_watts")
    assert real.sample_time.seconds == 4
    assert (lost.state, lost.state_message) == (node_pb2.GPU_STATE_FAILED, "GPU is lost")
    assert lost.state_reason == node_pb2.GPU_STATE_REASON_OFF_BUS
    assert real.state_reason == node_pb2.GPU_STATE_REASON_UNSPECIFIED


def test_everything_that_a_gpu_tells_is_reported() -> None:
    facts = report(Sample(5.0, HOST, (FULL,), gpu_time_s=4.0, driver_version="595.45.04")).node
    [gpu] = facts.gpus
    assert facts.driver_version == "595.45.04"
    assert (gpu.memory_utilization_fraction, gpu.last_memory_utilization_fraction) == (0.1, 0.2)
    assert (gpu.driver_memory_bytes, gpu.omitted_process_count, gpu.state_time.seconds) == (1, 2, 3)
    assert [(each.pid, each.name, each.replica, each.used_memory_bytes) for each in gpu.processes] == [
        (7, "python", "", 0),
        (8, "engine", "deployments/chat/replicas/0", 3),
    ]
    assert [each.HasField("used_memory_bytes") for each in gpu.processes] == [False, True]
    assert (gpu.power_watts, gpu.power_limit_watts) == (71.5, 700.0)
    assert (gpu.sm_clock_mhz, gpu.max_sm_clock_mhz, gpu.memory_clock_mhz) == (1200, 1980, 3200)
    assert list(gpu.throttle_reasons) == [
        node_pb2.GPU_THROTTLE_REASON_POWER_CAP,
        node_pb2.GPU_THROTTLE_REASON_HARDWARE_THERMAL,
    ]
    assert gpu.ecc == node_pb2.GpuEcc(is_enabled=True, corrected_count=5, uncorrected_count=1)
    assert [(each.peer_index, each.kind) for each in gpu.links] == [
        (1, node_pb2.GPU_LINK_KIND_NVLINK),
        (2, node_pb2.GPU_LINK_KIND_NUMA_NODE),
    ]
    assert (gpu.mig_mode, gpu.HasField("nvlink_island"), gpu.nvlink_island) == (
        node_pb2.GPU_MIG_MODE_DISABLED,
        True,
        0,
    )


def test_what_a_gpu_does_not_tell_is_not_reported() -> None:
    [gpu] = report(Sample(5.0, HOST, (REAL,), gpu_time_s=4.0)).node.gpus
    silent = ("memory_utilization_fraction", "sm_clock_mhz", "power_limit_watts", "ecc", "nvlink_island")
    assert [gpu.HasField(name) for name in silent] == [False] * len(silent)
    assert (gpu.mig_mode, list(gpu.links)) == (node_pb2.GPU_MIG_MODE_UNSPECIFIED, [])


CONTRACT = {
    Failure: node_pb2.GpuStateReason,
    Throttle: node_pb2.GpuThrottleReason,
    LinkKind: node_pb2.GpuLinkKind,
}


@pytest.mark.parametrize(("ours", "contract"), CONTRACT.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_whatever_is_measured_has_a_name_in_the_contract(ours: type[enum.Enum], contract: EnumTypeWrapper) -> None:
    prefix = contract.Name(0).removesuffix("UNSPECIFIED")
    assert {f"{prefix}{each.name}" for each in ours} == set(contract.keys()) - {f"{prefix}UNSPECIFIED"}


def test_taints_are_reported() -> None:
    assert [(each.key, each.value) for each in report(None).node.taints] == [("owner", "me"), ("spot", "")]


def test_the_host_counts_what_is_reserved_in_its_own_memory() -> None:
    on_gpu = Occupant("r-1", ("GPU-1",), 7)
    simulated, on_host = Occupant("r-2", ("SIM-a-0",), 8), Occupant("r-3", (), 9)
    host = report(Sample(5.0, HOST, (REAL,), 5.0), on_gpu, simulated, on_host).node.host
    assert (host.cpu_count, host.cpu_fraction, host.total_memory_bytes) == (2, 0.5, 100)
    assert (host.available_memory_bytes, host.reserved_memory_bytes) == (60, 17)
    assert host.last_cpu_fraction == 0.75
    assert host.foreign_memory_bytes == 100 - 60 - 15
    assert list(host.disks) == [node_pb2.Disk(path="/models", total_bytes=1000, available_bytes=400)]
