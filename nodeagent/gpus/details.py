"""Asks one GPU for what it may or may not tell: how busy, warm and fast it is, and how its memory fares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pynvml

from nodeagent.gpus.driver import Driver
from nodeagent.model import Ecc, Throttle

THROTTLE_BITS: Mapping[Throttle, int] = {
    Throttle.POWER_CAP: pynvml.nvmlClocksEventReasonSwPowerCap,
    Throttle.POWER_BRAKE: pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
    Throttle.SOFTWARE_THERMAL: pynvml.nvmlClocksEventReasonSwThermalSlowdown,
    Throttle.HARDWARE_THERMAL: pynvml.nvmlClocksEventReasonHwThermalSlowdown,
    Throttle.HARDWARE_SLOWDOWN: pynvml.nvmlClocksEventReasonHwSlowdown,
    Throttle.USER_CLOCKS: pynvml.nvmlClocksEventReasonApplicationsClocksSetting,
    Throttle.SYNC_BOOST: pynvml.nvmlClocksEventReasonSyncBoost,
}


def details(driver: Driver, handle: Any) -> Mapping[str, Any]:
    """Returns fields of a `Reading`; None for what the GPU does not tell. Raises NVMLError if it cannot be used."""
    nvml, ask = driver.nvml, driver.ask
    rates = ask(nvml.nvmlDeviceGetUtilizationRates, handle)
    return {
        "utilization_fraction": _fraction(None if rates is None else rates.gpu),
        "memory_utilization_fraction": _fraction(None if rates is None else rates.memory),
        "temperature_celsius": ask(nvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        "power_watts": _watts(ask(nvml.nvmlDeviceGetPowerUsage, handle)),
        "power_limit_watts": _watts(ask(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)),
        "sm_clock_mhz": ask(nvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        "max_sm_clock_mhz": ask(nvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM),
        "memory_clock_mhz": ask(nvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
        "throttles": _throttles(ask(nvml.nvmlDeviceGetCurrentClocksEventReasons, handle) or 0),
        "ecc": _ecc(driver, handle),
    }


def _ecc(driver: Driver, handle: Any) -> Ecc | None:
    mode = driver.ask(driver.nvml.nvmlDeviceGetEccMode, handle)
    if mode is None:
        return None
    corrected, uncorrected = (
        driver.ask(driver.nvml.nvmlDeviceGetTotalEccErrors, handle, kind, pynvml.NVML_VOLATILE_ECC) or 0
        for kind in (pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED)
    )
    return Ecc(bool(mode[0]), corrected, uncorrected)


def _fraction(percent: float | None) -> float | None:
    return None if percent is None else min(1.0, percent / 100)


def _watts(milliwatts: float | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _throttles(bits: int) -> tuple[Throttle, ...]:
    return tuple(each for each, bit in THROTTLE_BITS.items() if bits & bit)
