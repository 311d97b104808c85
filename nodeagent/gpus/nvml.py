"""GPUs as NVML sees them. A GPU that NVML cannot read is reported as failed, in NVML's words."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pynvml
import structlog

from nodeagent.model import Occupant, Reading, unknown_gpu

log = structlog.get_logger()


def open_nvml(nvml: Any = pynvml) -> NvmlGpus | None:
    """Returns the GPUs of this machine; None if it has no driver of NVIDIA, which is no fault."""
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded):
        return None
    except nvml.NVMLError as error:
        log.error("nvml cannot be used, so the GPUs of this node count as failed until it can", error=str(error))
        return NvmlGpus(nvml, is_open=False)
    return NvmlGpus(nvml, is_open=True)


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    used_bytes: int | None  # None: NVML does not say


class NvmlGpus:
    """Every GPU of the machine. Its calls block, and may hang when the driver does."""

    def __init__(self, nvml: Any, *, is_open: bool) -> None:
        self._nvml = nvml
        self._is_open = is_open
        self._identities: dict[int, Reading] = {}  # by index: what a lost GPU is still known by
        self._owners: dict[int, str] = {}  # pid -> replica uid, for those on any GPU at the last sample

    def sample(self, occupants: Sequence[Occupant]) -> Sequence[Reading]:
        """Returns what each GPU says now. Memory of processes in the session of an engine counts as that engine's."""
        try:
            if not self._is_open:
                self._nvml.nvmlInit()
                self._is_open = True
            count = self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError as error:
            # There is a driver, so there is a GPU: a node without any would be given engines for its processors.
            known = [self._identities[index] for index in sorted(self._identities)] or [unknown_gpu(0, "")]
            return [replace(each, failure=str(error)) for each in known]
        owners: dict[int, str] = {}
        readings = [self._read(index, occupants, owners) for index in range(count)]
        self._owners = owners
        return readings

    def _read(self, index: int, occupants: Sequence[Occupant], owners: dict[int, str]) -> Reading:
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            identity = self._identify(index, handle, memory.total)
        except nvml.NVMLError as error:
            known = self._identities.get(index)
            return unknown_gpu(index, str(error)) if known is None else replace(known, failure=str(error))
        # NVML's own `used` leaves out what the driver keeps, or not, by its version.
        used = memory.total - memory.free
        measured = self._attribute(self._processes(handle), occupants, owners)
        utilization = self._optional(nvml.nvmlDeviceGetUtilizationRates, handle)
        power_milliwatts = self._optional(nvml.nvmlDeviceGetPowerUsage, handle)
        return replace(
            identity,
            used_bytes=used,
            free_bytes=memory.free,
            foreign_bytes=max(0, used - _ours(identity.uuid, measured, occupants)),
            measured_bytes=measured,
            utilization_fraction=None if utilization is None else min(1.0, utilization.gpu / 100),
            temperature_celsius=self._optional(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            power_watts=None if power_milliwatts is None else power_milliwatts / 1000,
        )

    def _identify(self, index: int, handle: Any, total_bytes: int) -> Reading:
        uuid = self._nvml.nvmlDeviceGetUUID(handle)
        name = self._nvml.nvmlDeviceGetName(handle)
        identity = Reading(uuid, index, name, is_simulated=False, total_bytes=total_bytes)
        self._identities[index] = identity
        return identity

    def _processes(self, handle: Any) -> Sequence[_Process]:
        found = self._optional(self._nvml.nvmlDeviceGetComputeRunningProcesses, handle)
        return [_Process(each.pid, each.usedGpuMemory) for each in found or ()]

    def _attribute(
        self, processes: Sequence[_Process], occupants: Sequence[Occupant], owners: dict[int, str]
    ) -> Mapping[str, int]:
        leaders = {each.pid: each.replica_uid for each in occupants if each.pid}
        measured: dict[str, int] = {}
        for process in processes:
            # A process that has just ended may hold memory a while longer: it is still whose it was.
            owner = leaders.get(_session(process.pid)) or self._owners.get(process.pid)
            if owner is not None and process.used_bytes is not None:
                owners[process.pid] = owner
                measured[owner] = measured.get(owner, 0) + process.used_bytes
        return measured

    def _optional(self, ask: Any, *arguments: Any) -> Any:
        """Returns what NVML says; None for a GPU that does not have it, or that does not say it to us."""
        try:
            return ask(*arguments)
        except self._nvml.NVMLError:
            return None


def _ours(gpu_uuid: str, measured: Mapping[str, int], occupants: Sequence[Occupant]) -> int:
    """Returns the bytes on a GPU that are our engines'.

    In a container NVML gives pids of the host, by which nothing can be recognized. A loaded engine that is not seen is
    taken to use what is reserved for it: counted as foreign, it would be counted twice.
    """
    loaded = [each for each in occupants if each.is_loaded and gpu_uuid in each.gpu_uuids]
    unseen = sum(each.reserved_bytes for each in loaded if each.replica_uid not in measured)
    return sum(measured.values()) + unseen


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0
