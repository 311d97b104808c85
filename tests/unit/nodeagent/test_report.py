"""A report holds all that the parts of the agent know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nodeagent.identity import NodeIdentity
from nodeagent.model import HostReading, Occupant, Order, Reading, Sample
from nodeagent.report import Reporter, Self
from roundhouse.internal.v1 import agent_service_pb2 as wire
from roundhouse.kit.latest import Latest
from roundhouse.v1 import node_pb2

WHO = Self(NodeIdentity("a", "uid-of-a"), "agent", "boot", "machine", {"zone": "x"})
HOST = HostReading(cpu_count=2, cpu_fraction=0.5, total_bytes=100, available_bytes=60)
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
LOST = Reading("GPU-2", 1, "H200", is_simulated=False, total_bytes=10, failure="GPU is lost")


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


def test_the_host_counts_what_is_reserved_in_its_own_memory() -> None:
    on_gpu = Occupant("r-1", ("GPU-1",), 7)
    simulated, on_host = Occupant("r-2", ("SIM-a-0",), 8), Occupant("r-3", (), 9)
    host = report(Sample(5.0, HOST, (REAL,), 5.0), on_gpu, simulated, on_host).node.host
    assert (host.cpu_count, host.cpu_fraction, host.total_memory_bytes) == (2, 0.5, 100)
    assert (host.available_memory_bytes, host.reserved_memory_bytes) == (60, 17)
