"""A driver of NVIDIA that is not there: what `pynvml` offers, as far as the agent asks for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

from nodeagent.gpus.driver import Driver
from nodeagent.gpus.nvml import NvmlGpus

GIB = 1024**3


@dataclass
class FakeGpu:
    """One GPU. `faults` maps names of functions to error codes of NVML."""

    uuid: str
    total: int = 80 * GIB
    driver_bytes: int = GIB // 2
    processes: dict[int, int | None] = field(default_factory=dict)
    drawing: dict[int, int | None] = field(default_factory=dict)
    serving: dict[int, int | None] = field(default_factory=dict)  # by way of MPS
    utilization: int = 0
    memory_utilization: int = 0
    throttle_bits: int = 0
    is_mig_enabled: bool = False
    nvlink: frozenset[str] = frozenset()  # uuids that it reaches so
    ancestors: dict[str, int] = field(default_factory=dict)  # levels of NVML by uuid; SYSTEM if not said
    faults: dict[str, int] = field(default_factory=dict)


class FakeNvml:
    """Stands in for the module `pynvml`. `asked` has the names of the functions that were called."""

    def __init__(self, *gpus: FakeGpu, faults: dict[str, int] | None = None) -> None:
        self.gpus, self.faults = list(gpus), faults or {}
        self.is_open = False
        self.asked: list[str] = []

    def nvmlInit(self) -> None:
        self._check(self.faults, "nvmlInit")
        self.is_open = True

    def nvmlShutdown(self) -> None:
        self._check(self.faults, "nvmlShutdown")
        self.is_open = False

    def nvmlSystemGetDriverVersion(self) -> str:
        self._check(self.faults, "nvmlSystemGetDriverVersion")
        return "595.45.04"

    def nvmlDeviceGetCount(self) -> int:
        self._check(self.faults, "nvmlDeviceGetCount")
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        return self._checked(self.gpus[index], "nvmlDeviceGetHandleByIndex")

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        return self._checked(gpu, "nvmlDeviceGetUUID").uuid

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str:
        return f"{self._checked(gpu, 'nvmlDeviceGetName').total // GIB} GiB of nothing"

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> list[int]:
        return [int(self._checked(gpu, "nvmlDeviceGetMigMode").is_mig_enabled)] * 2

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu, version: int | None = None) -> Any:
        name = "nvmlDeviceGetMemoryInfo" if version is None else "nvmlDeviceGetMemoryInfo_v2"
        used = self._checked(gpu, name).driver_bytes
        used += sum(each or 0 for each in {**gpu.processes, **gpu.drawing, **gpu.serving}.values())
        return SimpleNamespace(
            total=gpu.total, free=gpu.total - used, used=used - gpu.driver_bytes, reserved=gpu.driver_bytes
        )

    def nvmlDeviceGetUtilizationRates(self, gpu: FakeGpu) -> Any:
        self._checked(gpu, "nvmlDeviceGetUtilizationRates")
        return SimpleNamespace(gpu=gpu.utilization, memory=gpu.memory_utilization)

    def nvmlDeviceGetPowerUsage(self, gpu: FakeGpu) -> int:
        self._checked(gpu, "nvmlDeviceGetPowerUsage")
        return 71_500

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu: FakeGpu) -> int:
        self._checked(gpu, "nvmlDeviceGetEnforcedPowerLimit")
        return 700_000

    def nvmlDeviceGetTemperature(self, gpu: FakeGpu, sensor: int) -> int:
        self._checked(gpu, "nvmlDeviceGetTemperature")
        return 33

    def nvmlDeviceGetClockInfo(self, gpu: FakeGpu, kind: int) -> int:
        self._checked(gpu, "nvmlDeviceGetClockInfo")
        return {pynvml.NVML_CLOCK_SM: 1200, pynvml.NVML_CLOCK_MEM: 3200}[kind]

    def nvmlDeviceGetMaxClockInfo(self, gpu: FakeGpu, kind: int) -> int:
        self._checked(gpu, "nvmlDeviceGetMaxClockInfo")
        return {pynvml.NVML_CLOCK_SM: 1980}[kind]

    def nvmlDeviceGetCurrentClocksEventReasons(self, gpu: FakeGpu) -> int:
        return self._checked(gpu, "nvmlDeviceGetCurrentClocksEventReasons").throttle_bits

    def nvmlDeviceGetEccMode(self, gpu: FakeGpu) -> list[int]:
        self._checked(gpu, "nvmlDeviceGetEccMode")
        return [1, 1]

    def nvmlDeviceGetTotalEccErrors(self, gpu: FakeGpu, kind: int, counter: int) -> int:
        self._checked(gpu, "nvmlDeviceGetTotalEccErrors")
        counts = {pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED: 5, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED: 1}
        return counts[kind] if counter == pynvml.NVML_VOLATILE_ECC else 99

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: FakeGpu) -> list[Any]:
        return _listed(self._checked(gpu, "nvmlDeviceGetComputeRunningProcesses").processes)

    def nvmlDeviceGetGraphicsRunningProcesses(self, gpu: FakeGpu) -> list[Any]:
        return _listed(self._checked(gpu, "nvmlDeviceGetGraphicsRunningProcesses").drawing)

    def nvmlDeviceGetMPSComputeRunningProcesses(self, gpu: FakeGpu) -> list[Any]:
        return _listed(self._checked(gpu, "nvmlDeviceGetMPSComputeRunningProcesses").serving)

    def nvmlDeviceGetP2PStatus(self, one: FakeGpu, other: FakeGpu, index: int) -> int:
        is_joined = index == pynvml.NVML_P2P_CAPS_INDEX_NVLINK and other.uuid in one.nvlink
        self._checked(one, "nvmlDeviceGetP2PStatus")
        return int(pynvml.NVML_P2P_STATUS_OK if is_joined else pynvml.NVML_P2P_STATUS_NOT_SUPPORTED)

    def nvmlDeviceGetTopologyCommonAncestor(self, one: FakeGpu, other: FakeGpu) -> int:
        self._checked(one, "nvmlDeviceGetTopologyCommonAncestor")
        return one.ancestors.get(other.uuid, int(pynvml.NVML_TOPOLOGY_SYSTEM))

    def _checked(self, gpu: FakeGpu, name: str) -> FakeGpu:
        self._check(gpu.faults, name)
        return gpu

    def _check(self, faults: dict[str, int], name: str) -> None:
        self.asked.append(name)
        if name in faults:
            raise pynvml.NVMLError(faults[name])
        if name != "nvmlInit" and not self.is_open:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)


def gpus_of(nvml: FakeNvml, *, has_devices: bool = True) -> NvmlGpus:
    """Returns the GPUs of a driver. has_devices: whether the machine has files of such devices, loaded or not."""
    return NvmlGpus(Driver(nvml, has_devices=lambda: has_devices))


def _listed(held: dict[int, int | None]) -> list[Any]:
    return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in held.items()]
