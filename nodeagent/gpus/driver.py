"""The door to NVML: opens it, opens it again once the driver is back, and says what its errors mean."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml

from nodeagent.model import Failure

_KINDS = {
    pynvml.NVML_ERROR_GPU_IS_LOST: Failure.OFF_BUS,
    pynvml.NVML_ERROR_RESET_REQUIRED: Failure.RESET_REQUIRED,
    pynvml.NVML_ERROR_TIMEOUT: Failure.DRIVER_HANGS,
    pynvml.NVML_ERROR_UNINITIALIZED: Failure.DRIVER_GONE,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: Failure.DRIVER_GONE,
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: Failure.DRIVER_GONE,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: Failure.DRIVER_GONE,
}
_ABSENT = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)


def failure_of(error: pynvml.NVMLError) -> Failure:
    """Returns what keeps a GPU from being used after an error."""
    return _KINDS.get(error.value, Failure.DRIVER_ERROR)


def has_device_files() -> bool:
    """Tells whether this machine, or this container, was given GPUs of NVIDIA, be their driver loaded or not.

    What the driver shows in /proc does not count: every container of a machine sees it, also those without a GPU.
    """
    return any(Path("/dev").glob("nvidia[0-9]*"))


class Driver:
    """NVML, open or not. `nvml` is the module `pynvml`, or what stands in for it."""

    def __init__(self, nvml: Any = pynvml, *, has_devices: Callable[[], bool] = has_device_files) -> None:
        self.nvml = nvml
        self.version = ""
        self._has_devices = has_devices
        self._is_open = False

    def open(self) -> None:
        """Opens it unless it is; raises NVMLError."""
        if not self._is_open:
            self.nvml.nvmlInit()
            self._is_open = True
            self.version = self.ask(self.nvml.nvmlSystemGetDriverVersion) or ""

    def close(self) -> None:
        """Lets go of it, so that it is opened anew: what a driver that was exchanged is asked has no answer else."""
        if self._is_open:
            self._is_open = False
            with contextlib.suppress(pynvml.NVMLError):
                self.nvml.nvmlShutdown()

    def is_absent(self, error: pynvml.NVMLError) -> bool:
        """Tells whether an error in opening means that there is nothing to open: a machine without such GPUs."""
        return error.value in _ABSENT and not self._has_devices()

    def ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """Returns what NVML says; None for what a GPU does not have, or does not say to us.

        Raises NVMLError if it means that the GPU cannot be used, whatever the question.
        """
        try:
            return question(*arguments)
        except pynvml.NVMLError as error:
            if failure_of(error) is Failure.DRIVER_ERROR:
                return None
            raise
