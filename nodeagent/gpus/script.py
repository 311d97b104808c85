"""Reads scripts of simulated GPUs: what they say at which time, as JSON lines.

The first line says what there is. Each further one changes something at `at_s`, in seconds since the agent started:

    {"gpus": 4, "total_memory_bytes": "80GiB", "nvlink": [[0, 1], [2, 3]], "set": {"temperature_celsius": 40}}
    {"at_s": 5, "gpu": 1, "set": {"sm_clock_mhz": 900, "throttle_reasons": ["HARDWARE_THERMAL"]}}
    {"at_s": 9, "gpu": [0, 2], "processes": [{"pid": 77, "name": "python", "used_memory_bytes": "60GiB"}]}
    {"at_s": 12, "gpu": 3, "fault": "OFF_BUS"}
    {"at_s": 20, "gpu": 3, "fault": null}
    {"at_s": 30, "fault": "DRIVER_GONE"}
    {"at_s": 33, "fault": null}

- `gpus`: how many, 1 to 64. `nvlink`: groups of GPUs that reach one another over NVLink; all else goes over SYSTEM.
  Without it they do not tell how they are joined.
- `gpu`: an index, or several; left out, every GPU.
- `set`: fields of `roundhouse.v1.Gpu` that hold from then on; null: the GPU does not tell. As long as nothing is set,
  `utilization_fraction` is the share of time that the engines on the GPU spend in steps.
- `processes`: those of others, in place of the ones before. Each engine holds what is reserved for it, besides.
- `fault`: a reason of `roundhouse.v1.GpuStateReason`, until the next one; null: none. `DRIVER_GONE` and `DRIVER_HANGS`
  are of all GPUs together.

Bytes are a number, or written as `24GiB`. Blank lines, and lines that begin with `#`, are skipped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nodeagent.model import Failure, Throttle
from roundhouse.kit.config import parse_bytes
from roundhouse.kit.errors import Usage

MOST_GPUS = 64
LEAST_GPU_BYTES = 1024**2
WHOLE_DRIVER = (Failure.DRIVER_GONE, Failure.DRIVER_HANGS)
_FIRST_KEYS = {"gpus", "total_memory_bytes", "nvlink", "set", "processes", "fault"}
_STEP_KEYS = {"at_s", "gpu", "set", "processes", "fault"}


@dataclass(frozen=True, slots=True)
class Foreign:
    """A process of somebody else that holds memory of a GPU."""

    pid: int
    name: str
    used_bytes: int


@dataclass(frozen=True, slots=True)
class Step:
    """What changes at one time."""

    at_s: float
    gpus: tuple[int, ...] | None  # None: all, and their driver
    settings: Mapping[str, Any]
    processes: tuple[Foreign, ...] | None = None  # None: as before
    has_fault: bool = False  # `fault` is said
    fault: Failure | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """What simulated GPUs say, and when."""

    gpu_count: int
    total_bytes: int
    nvlink: tuple[frozenset[int], ...] | None = None  # None: they do not tell
    steps: tuple[Step, ...] = ()  # by time


def parse(text: str) -> Script:
    """Returns a script; raises Usage that names the line and what is wrong with it."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    said = [(number, _object(number, line)) for number, line in lines if not line.lstrip().startswith("#")]
    if not said:
        raise Usage("the script of simulated GPUs is empty: begin with how many there are")
    (number, first), *rest = said
    line = _Line(number, first, MOST_GPUS)
    line.only(_FIRST_KEYS)
    gpu_count = line.whole("gpus", 1, MOST_GPUS)
    total_bytes = line.size("total_memory_bytes", LEAST_GPU_BYTES)
    line = _Line(number, first, gpu_count)
    steps = [line.step(0.0)]
    nvlink = line.groups("nvlink") if "nvlink" in first else None
    for number, each in rest:
        line = _Line(number, each, gpu_count)
        line.only(_STEP_KEYS)
        steps.append(line.step(steps[-1].at_s))
    return Script(gpu_count, total_bytes, nvlink, tuple(steps))


def _object(number: int, line: str) -> Mapping[str, Any]:
    try:
        said = json.loads(line)
    except ValueError as error:
        raise Usage(f"line {number} of the script of simulated GPUs is no JSON: {error}") from None
    if not isinstance(said, dict):
        raise Usage(f"line {number} of the script of simulated GPUs is no object: write {{…}}")
    return said


class _Line:
    """One line of a script, and what may stand in it."""

    def __init__(self, number: int, said: Mapping[str, Any], gpu_count: int) -> None:
        self._number, self._said, self._gpu_count = number, said, gpu_count

    def only(self, keys: set[str]) -> None:
        """Raises Usage if there is anything else."""
        for key in self._said:
            if key not in keys:
                raise self._wrong(key, f"is not known: use {', '.join(sorted(keys))}")

    def whole(self, key: str, lowest: int, highest: int) -> int:
        """Returns a whole number."""
        value: Any = self._said.get(key)
        if not _is_whole(value) or not lowest <= value <= highest:
            raise self._wrong(key, f"is no whole number from {lowest} to {highest}")
        return int(value)

    def size(self, key: str, lowest: int) -> int:
        """Returns a number of bytes."""
        return self._bytes(key, self._said.get(key), lowest)

    def groups(self, key: str) -> tuple[frozenset[int], ...]:
        """Returns groups of GPUs, each GPU in one at most."""
        said = self._said[key]
        if not isinstance(said, list):
            raise self._wrong(key, "is no list of groups: write [[0, 1], [2, 3]]")
        groups = tuple(frozenset(self._indexes(key, each)) for each in said)
        if sum(map(len, groups)) != len(frozenset[int]().union(*groups)):
            raise self._wrong(key, "has a GPU in two groups")
        return groups

    def step(self, after_s: float) -> Step:
        """Returns what changes, not before `after_s`."""
        at_s = self._said.get("at_s", 0.0 if "gpus" in self._said else None)
        if not _is_number(at_s) or at_s < after_s:
            raise self._wrong("at_s", f"is no number of seconds from {after_s:g}, the line before")
        gpus = self._indexes("gpu", self._said["gpu"]) if "gpu" in self._said else None
        processes = self._foreign() if "processes" in self._said else None
        fault = self._fault(is_of_all=gpus is None)
        return Step(float(at_s), gpus, self._settings(), processes, "fault" in self._said, fault)

    def _settings(self) -> Mapping[str, Any]:
        said = self._said.get("set", {})
        if not isinstance(said, dict):
            raise self._wrong("set", "is no object: write {…}")
        for name, value in said.items():
            if name not in _SETTINGS:
                raise self._wrong(f"set.{name}", f"is not known: use {', '.join(_SETTINGS)}")
            if value is not None and not _SETTINGS[name](value):
                raise self._wrong(f"set.{name}", f"cannot be {json.dumps(value)}")
        sizes = {name: self._bytes(f"set.{name}", said[name], 0) for name in said if name == "driver_memory_bytes"}
        return {**said, **sizes}

    def _foreign(self) -> tuple[Foreign, ...]:
        said = self._said["processes"]
        if not isinstance(said, list) or not all(isinstance(each, dict) for each in said):
            raise self._wrong("processes", "is no list of objects")
        for each in said:
            if not _is_whole(each.get("pid")) or not isinstance(each.get("name", ""), str):
                raise self._wrong("processes", "has one without a pid, a whole number, or with a name that is none")
        return tuple(
            Foreign(each["pid"], each.get("name", ""), self._bytes("processes", each.get("used_memory_bytes"), 0))
            for each in said
        )

    def _fault(self, *, is_of_all: bool) -> Failure | None:
        said = self._said.get("fault")
        if said is None:
            return None
        if said not in Failure.__members__:
            raise self._wrong("fault", f"is not known: use {', '.join(Failure.__members__)}, or null")
        fault = Failure[said]
        if fault in WHOLE_DRIVER and not is_of_all:
            raise self._wrong("fault", f"cannot be of one GPU if it is {said}: leave gpu out")
        return fault

    def _indexes(self, key: str, said: Any) -> tuple[int, ...]:
        indexes = said if isinstance(said, list) else [said]
        if not all(_is_whole(each) and 0 <= each < self._gpu_count for each in indexes):
            raise self._wrong(key, f"names a GPU that is not there: use indexes from 0 to {self._gpu_count - 1}")
        return tuple(indexes)

    def _bytes(self, key: str, said: Any, lowest: int) -> int:
        size = parse_bytes(said, f"line {self._number}: {key}") if isinstance(said, str) else said
        if not _is_whole(size) or size < lowest:
            raise self._wrong(key, f"is no number of bytes from {lowest}: write 24GiB, say")
        return int(size)

    def _wrong(self, key: str, what: str) -> Usage:
        return Usage(f'line {self._number} of the script of simulated GPUs: "{key}" {what}')


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_amount(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_fraction(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _are_throttles(value: Any) -> bool:
    return isinstance(value, list) and all(each in Throttle.__members__ for each in value)


def _is_ecc(value: Any) -> bool:
    counts: Sequence[object] = [value.get(key, 0) for key in ("corrected_count", "uncorrected_count")]
    return isinstance(value.get("is_enabled"), bool) and all(_is_whole(each) for each in counts)


_SETTINGS: Mapping[str, Callable[[Any], bool]] = {
    "product_name": lambda value: isinstance(value, str),
    "driver_memory_bytes": lambda value: isinstance(value, int | str),
    "utilization_fraction": _is_fraction,
    "memory_utilization_fraction": _is_fraction,
    "temperature_celsius": _is_number,
    "power_watts": _is_amount,
    "power_limit_watts": _is_amount,
    "sm_clock_mhz": _is_amount,
    "max_sm_clock_mhz": _is_amount,
    "memory_clock_mhz": _is_amount,
    "throttle_reasons": _are_throttles,
    "ecc": lambda value: isinstance(value, dict) and _is_ecc(value),
}
