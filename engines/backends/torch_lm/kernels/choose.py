"""Picks the kernels for a machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Set as AbstractSet
from functools import cache
from pathlib import Path

import torch

from engines.backends.torch_lm.kernels.interface import Kernels
from engines.backends.torch_lm.kernels.native import NativeKernels
from engines.backends.torch_lm.kernels.reference import TorchKernels
from roundhouse.kit.errors import InvalidArgument, NotServed

VARIABLE = "ROUNDHOUSE_KERNELS"  # names one of the libraries, for tests
_LIBRARIES = Path(__file__).parent / "lib"
_AVX2 = frozenset({"avx2", "fma", "f16c"})
# Best first; each with what a processor must have, in the words of /proc/cpuinfo.
_NEEDS: dict[str, frozenset[str]] = {
    "avx512": _AVX2 | {"avx512f", "avx512bw", "avx512vl", "avx512dq"},
    "avx2": _AVX2,
    "generic": frozenset(),
}


def choose(attention: str, device: torch.device, threads: int | None = None) -> Kernels:
    """Returns kernels by the option `attention`: `auto`, `c` or `torch`. `auto` is the ones in C where they work.

    threads: those that a call may use, torch's own number if None. Raises InvalidArgument, NotServed.
    """
    if attention not in {"auto", "c", "torch"} or (attention == "c" and device.type != "cpu"):
        raise InvalidArgument(f'attention "{attention}" does not work on {device.type}: use auto or torch')
    if attention == "torch" or device.type != "cpu":
        return TorchKernels()
    if names := available():
        return NativeKernels(library(names[0]), names[0], threads or torch.get_num_threads())
    if attention == "c":
        raise NotServed('attention "c" needs kernels that were compiled: install with a C compiler, or use auto')
    return TorchKernels()


def available() -> list[str]:
    """Returns which compiled kernels work on this machine, best first."""
    wanted = os.environ.get(VARIABLE)
    names = [name for name in _NEEDS if wanted is None or name == wanted]
    return [name for name in names if _NEEDS[name] <= _features() and _loads(name)]


def library(name: str) -> Path:
    """Returns where the compiled kernels of this name are, or would be."""
    return _LIBRARIES / f"{name}.so"


@cache
def _loads(name: str) -> bool:
    try:
        NativeKernels(library(name), name, 1)
    except (OSError, AttributeError):  # not there, made for another machine, or of other sources
        return False
    return True


@cache
def _features() -> AbstractSet[str]:
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return frozenset()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))
