"""Writes what was measured of the machine as the contract has it."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from importlib import metadata

from nodeagent.model import Ecc, GpuProcess, HostReading, Link, Occupant, Reading, Sample
from roundhouse.internal.v1 import agent_service_pb2
from roundhouse.kit.times import to_timestamp
from roundhouse.v1 import node_pb2

_VERSION = metadata.version("roundhouse-serve")


def node_facts(
    labels: Mapping[str, str],
    taints: Sequence[tuple[str, str]],
    sample: Sample | None,
    occupants: Sequence[Occupant],
) -> agent_service_pb2.NodeFacts:
    """Returns what is known of the machine."""
    facts = agent_service_pb2.NodeFacts(
        hostname=socket.gethostname(),
        agent_version=_VERSION,
        labels=labels,
        taints=[node_pb2.Taint(key=key, value=value) for key, value in taints],
    )
    if sample is None:
        return facts
    real = {each.uuid for each in sample.gpus if not each.is_simulated}
    on_host = [each for each in occupants if real.isdisjoint(each.gpu_uuids)]
    facts.driver_version = sample.driver_version
    facts.gpus.extend(_gpu(each, sample.gpu_time_s) for each in sample.gpus)
    facts.host.CopyFrom(_host(sample.host, sum(each.reserved_bytes for each in on_host)))
    facts.sample_time.CopyFrom(to_timestamp(sample.time_s))
    return facts


def _host(reading: HostReading, reserved_bytes: int) -> node_pb2.Host:
    used = reading.total_bytes - reading.available_bytes
    return node_pb2.Host(
        cpu_count=reading.cpu_count,
        cpu_fraction=reading.mean_cpu_fraction,
        last_cpu_fraction=reading.cpu_fraction,
        total_memory_bytes=reading.total_bytes,
        available_memory_bytes=reading.available_bytes,
        reserved_memory_bytes=reserved_bytes,
        foreign_memory_bytes=max(0, used - sum(reading.measured_bytes.values())),
        disks=[
            node_pb2.Disk(path=each.path, total_bytes=each.total_bytes, available_bytes=each.available_bytes)
            for each in reading.disks
        ],
    )


def _gpu(reading: Reading, time_s: float) -> node_pb2.Gpu:
    return node_pb2.Gpu(
        uuid=reading.uuid,
        index=reading.index,
        product_name=reading.product_name,
        is_simulated=reading.is_simulated,
        state=node_pb2.GPU_STATE_FAILED if reading.failure else node_pb2.GPU_STATE_OK,
        state_message=reading.failure,
        state_reason=f"GPU_STATE_REASON_{reading.failure_kind.name}" if reading.failure else None,
        state_time=to_timestamp(reading.state_time_s),
        total_memory_bytes=reading.total_bytes,
        used_memory_bytes=reading.used_bytes,
        free_memory_bytes=reading.free_bytes,
        foreign_memory_bytes=reading.foreign_bytes,
        driver_memory_bytes=reading.driver_bytes,
        processes=map(_process, reading.processes),
        omitted_process_count=reading.omitted_process_count,
        utilization_fraction=reading.mean_utilization_fraction,
        last_utilization_fraction=reading.utilization_fraction,
        memory_utilization_fraction=reading.mean_memory_utilization_fraction,
        last_memory_utilization_fraction=reading.memory_utilization_fraction,
        temperature_celsius=reading.temperature_celsius,
        power_watts=reading.power_watts,
        power_limit_watts=reading.power_limit_watts,
        sm_clock_mhz=reading.sm_clock_mhz,
        max_sm_clock_mhz=reading.max_sm_clock_mhz,
        memory_clock_mhz=reading.memory_clock_mhz,
        throttle_reasons=[f"GPU_THROTTLE_REASON_{each.name}" for each in reading.throttles],
        ecc=None if reading.ecc is None else _ecc(reading.ecc),
        mig_mode=_mig_mode(reading.is_mig_enabled),
        links=map(_link, reading.links),
        nvlink_island=reading.nvlink_island,
        sample_time=to_timestamp(time_s),
    )


def _process(process: GpuProcess) -> node_pb2.GpuProcess:
    return node_pb2.GpuProcess(
        pid=process.pid, name=process.name, replica=process.replica, used_memory_bytes=process.used_bytes
    )


def _ecc(ecc: Ecc) -> node_pb2.GpuEcc:
    return node_pb2.GpuEcc(
        is_enabled=ecc.is_enabled, corrected_count=ecc.corrected_count, uncorrected_count=ecc.uncorrected_count
    )


def _link(link: Link) -> node_pb2.GpuLink:
    return node_pb2.GpuLink(peer_index=link.peer_index, kind=f"GPU_LINK_KIND_{link.kind.name}")


def _mig_mode(is_enabled: bool | None) -> node_pb2.GpuMigMode:
    if is_enabled is None:
        return node_pb2.GPU_MIG_MODE_UNSPECIFIED
    return node_pb2.GPU_MIG_MODE_ENABLED if is_enabled else node_pb2.GPU_MIG_MODE_DISABLED
