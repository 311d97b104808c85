"""NVML that is not there: what `pynvml` offers, as far as the agent asks for it, played from a script."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

from nodeagent.gpus.details import THROTTLE_BITS
from nodeagent.gpus.processes import ProcPids
from nodeagent.gpus.script import WHOLE_DRIVER, Foreign, Script, Step
from nodeagent.model import Failure, Occupant, Throttle

_READ_ERRORS = {
    Failure.RESET_REQUIRED: pynvml.NVML_ERROR_RESET_REQUIRED,
    Failure.DRIVER_ERROR: pynvml.NVML_ERROR_UNKNOWN,
}
_CLOCKS = {pynvml.NVML_CLOCK_SM: "sm_clock_mhz", pynvml.NVML_CLOCK_MEM: "memory_clock_mhz"}


@dataclass
class _Gpu:
    """What is so of one GPU now. It is its own handle."""

    index: int
    uuid: str
    settings: dict[str, Any] = field(default_factory=dict)
    foreign: tuple[Foreign, ...] = ()
    fault: Failure | None = None


class ScriptedNvml:
    """Stands in for the module `pynvml`, whose names it has, and for what the kernel says of processes.

    now_s: seconds on any clock that goes on; the script begins at once.
    """

    def __init__(self, node_id: str, script: Script, now_s: Callable[[], float]) -> None:
        self.occupants: Sequence[Occupant] = ()  # whose memory and work is charged
        self._script, self._now_s, self._start_s = script, now_s, now_s()
        self._gpus = [_Gpu(index, f"SIM-{node_id}-{index}") for index in range(script.gpu_count)]
        self._played_count = 0
        self._driver_fault: Failure | None = None
        self._is_open = False
        self._pids = ProcPids()

    def session(self, pid: int) -> int:
        """Returns the leader of the session of an engine; processes of a script are in none."""
        return 0 if pid in self._names() else self._pids.session(pid)

    def name(self, pid: int) -> str:
        """Returns the name of a process."""
        return self._names().get(pid) or self._pids.name(pid)

    def nvmlInit(self) -> None:
        self._play()
        if self._driver_fault is Failure.DRIVER_GONE:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        self._is_open = True

    def nvmlShutdown(self) -> None:
        self._is_open = False

    def nvmlSystemGetDriverVersion(self) -> str:
        raise _not_supported()

    def nvmlDeviceGetCount(self) -> int:
        self._play()
        if not self._is_open:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)
        return len(self._named())

    def nvmlDeviceGetHandleByIndex(self, index: int) -> _Gpu:
        gpu = self._named()[index]
        if gpu.fault is Failure.OFF_BUS:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return gpu

    def nvmlDeviceGetUUID(self, gpu: _Gpu) -> str:
        return gpu.uuid

    def nvmlDeviceGetName(self, gpu: _Gpu) -> str:
        return str(gpu.settings.get("product_name") or "simulated GPU")

    def nvmlDeviceGetMigMode(self, gpu: _Gpu) -> Sequence[int]:
        mode = pynvml.NVML_DEVICE_MIG_ENABLE if gpu.fault is Failure.MIG_ENABLED else pynvml.NVML_DEVICE_MIG_DISABLE
        return [mode, mode]

    def nvmlDeviceGetMemoryInfo(self, gpu: _Gpu, version: int | None = None) -> Any:
        if gpu.fault in _READ_ERRORS:
            raise pynvml.NVMLError(_READ_ERRORS[gpu.fault])
        total, reserved = self._script.total_bytes, gpu.settings.get("driver_memory_bytes") or 0
        used = min(total, reserved + sum(each.usedGpuMemory for each in self._held(gpu)))
        return SimpleNamespace(total=total, free=total - used, reserved=reserved)

    def nvmlDeviceGetUtilizationRates(self, gpu: _Gpu) -> Any:
        said, memory = gpu.settings.get("utilization_fraction"), gpu.settings.get("memory_utilization_fraction")
        if said is None and "utilization_fraction" in gpu.settings:
            raise _not_supported()
        busy = sum(each.busy_fraction for each in self._on(gpu)) if said is None else said
        return SimpleNamespace(gpu=busy * 100, memory=None if memory is None else memory * 100)

    def nvmlDeviceGetTemperature(self, gpu: _Gpu, sensor: int) -> float:
        return float(_said(gpu, "temperature_celsius"))

    def nvmlDeviceGetPowerUsage(self, gpu: _Gpu) -> float:
        return float(_said(gpu, "power_watts") * 1000)

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu: _Gpu) -> float:
        return float(_said(gpu, "power_limit_watts") * 1000)

    def nvmlDeviceGetClockInfo(self, gpu: _Gpu, kind: int) -> int:
        return int(_said(gpu, _CLOCKS[kind]))

    def nvmlDeviceGetMaxClockInfo(self, gpu: _Gpu, kind: int) -> int:
        return int(_said(gpu, "max_sm_clock_mhz"))

    def nvmlDeviceGetCurrentClocksEventReasons(self, gpu: _Gpu) -> int:
        return sum(THROTTLE_BITS[Throttle[each]] for each in gpu.settings.get("throttle_reasons") or ())

    def nvmlDeviceGetEccMode(self, gpu: _Gpu) -> Sequence[int]:
        return [int(_said(gpu, "ecc")["is_enabled"])] * 2

    def nvmlDeviceGetTotalEccErrors(self, gpu: _Gpu, kind: int, counter: int) -> int:
        is_corrected = kind == pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED
        return int(_said(gpu, "ecc").get("corrected_count" if is_corrected else "uncorrected_count", 0))

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: _Gpu) -> Sequence[Any]:
        return self._held(gpu)

    def nvmlDeviceGetGraphicsRunningProcesses(self, gpu: _Gpu) -> Sequence[Any]:
        return ()

    def nvmlDeviceGetMPSComputeRunningProcesses(self, gpu: _Gpu) -> Sequence[Any]:
        return ()

    def nvmlDeviceGetP2PStatus(self, one: _Gpu, other: _Gpu, index: int) -> int:
        if self._script.nvlink is None:
            raise _not_supported()
        is_joined = any({one.index, other.index} <= group for group in self._script.nvlink)
        return int(pynvml.NVML_P2P_STATUS_OK if is_joined else pynvml.NVML_P2P_STATUS_NOT_SUPPORTED)

    def nvmlDeviceGetTopologyCommonAncestor(self, one: _Gpu, other: _Gpu) -> int:
        if self._script.nvlink is None:
            raise _not_supported()
        return int(pynvml.NVML_TOPOLOGY_SYSTEM)

    def _named(self) -> Sequence[_Gpu]:
        return [each for each in self._gpus if each.fault is not Failure.MISSING]

    def _on(self, gpu: _Gpu) -> Sequence[Occupant]:
        return [each for each in self.occupants if each.pid and gpu.uuid in each.gpu_uuids]

    def _held(self, gpu: _Gpu) -> Sequence[Any]:
        ours = [SimpleNamespace(pid=each.pid, usedGpuMemory=each.reserved_bytes) for each in self._on(gpu)]
        return [*ours, *(SimpleNamespace(pid=each.pid, usedGpuMemory=each.used_bytes) for each in gpu.foreign)]

    def _names(self) -> dict[int, str]:
        return {each.pid: each.name for gpu in self._gpus for each in gpu.foreign}

    def _play(self) -> None:
        """Brings everything up to now; while the driver hangs, does not return."""
        while True:
            elapsed_s = self._now_s() - self._start_s
            left = self._script.steps[self._played_count :]
            due = [each for each in left if each.at_s <= elapsed_s]
            for step in due:
                self._take(step)
            self._played_count += len(due)
            if self._driver_fault is not Failure.DRIVER_HANGS:
                return
            left = left[len(due) :]
            threading.Event().wait(left[0].at_s - elapsed_s if left else None)  # it hangs: nothing else is waited for

    def _take(self, step: Step) -> None:
        if step.has_fault and step.gpus is None:
            self._driver_fault = step.fault if step.fault in WHOLE_DRIVER else None
            self._is_open = self._is_open and step.fault is not Failure.DRIVER_GONE
        for gpu in self._gpus if step.gpus is None else [self._gpus[index] for index in step.gpus]:
            gpu.settings.update(step.settings)
            if step.processes is not None:
                gpu.foreign = step.processes
            if step.has_fault and step.fault not in WHOLE_DRIVER:
                gpu.fault = step.fault


def _said(gpu: _Gpu, name: str) -> Any:
    """Returns what the script lets a GPU say; raises NVMLError if it does not."""
    value = gpu.settings.get(name)
    if value is None:
        raise _not_supported()
    return value


def _not_supported() -> Exception:
    return pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)  # type: ignore[no-any-return]
