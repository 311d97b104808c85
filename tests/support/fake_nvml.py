"""A driver of NVIDIA that is not there: what `pynvml` offers, as far as the agent asks for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

GIB = 1024**3


@dataclass
class FakeGpu:
    """One GPU. `faults` maps names of functions to error codes of NVML."""

    uuid: str
    total: int = 80 * GIB
    driver_bytes: int = GIB // 2
    processes: dict[int, int | None] = field(default_factory=dict)
    utilization: int = 0
    faults: dict[str, int] = field(default_factory=dict)


class FakeNvml:
    """Stands in for the module `pynvml`."""

    NVMLError = pynvml.NVMLError
    NVMLError_LibraryNotFound = pynvml.NVMLError_LibraryNotFound
    NVMLError_DriverNotLoaded = pynvml.NVMLError_DriverNotLoaded
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU

    def __init__(self, *gpus: FakeGpu, faults: dict[str, int] | None = None) -> None:
        self.gpus, self.faults = gpus, faults or {}

    def nvmlInit(self) -> None:
        self._check(self.faults, "nvmlInit")

    def nvmlDeviceGetCount(self) -> int:
        self._check(self.faults, "nvmlDeviceGetCount")
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        return self._checked(self.gpus[index], "nvmlDeviceGetHandleByIndex")

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        return self._checked(gpu, "nvmlDeviceGetUUID").uuid

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str:
        return f"{self._checked(gpu, 'nvmlDeviceGetName').total // GIB} GiB of nothing"

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> Any:
        used = self._checked(gpu, "nvmlDeviceGetMemoryInfo").driver_bytes
        used += sum(each or 0 for each in gpu.processes.values())
        return SimpleNamespace(total=gpu.total, free=gpu.total - used, used=used - gpu.driver_bytes)

    def nvmlDeviceGetUtilizationRates(self, gpu: FakeGpu) -> Any:
        return SimpleNamespace(gpu=self._checked(gpu, "nvmlDeviceGetUtilizationRates").utilization, memory=0)

    def nvmlDeviceGetPowerUsage(self, gpu: FakeGpu) -> int:
        self._checked(gpu, "nvmlDeviceGetPowerUsage")
        return 71_500

    def nvmlDeviceGetTemperature(self, gpu: FakeGpu, sensor: int) -> int:
        self._checked(gpu, "nvmlDeviceGetTemperature")
        return 33

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: FakeGpu) -> list[Any]:
        self._checked(gpu, "nvmlDeviceGetComputeRunningProcesses")
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in gpu.processes.items()]

    def _checked(self, gpu: FakeGpu, name: str) -> FakeGpu:
        self._check(gpu.faults, name)
        return gpu

    def _check(self, faults: dict[str, int], name: str) -> None:
        if name in faults:
            raise pynvml.NVMLError(faults[name])
