"""The compiled kernels, by name."""

import pytest

from engines.backends.torch_lm.kernels.choose import available, library
from engines.backends.torch_lm.kernels.interface import Kernels
from engines.backends.torch_lm.kernels.native import NativeKernels
from engines.backends.torch_lm.kernels.reference import TorchKernels

NATIVE = pytest.mark.parametrize("name", ["generic", "avx2", "avx512"])
EVERY = pytest.mark.parametrize("name", ["torch", "generic", "avx2", "avx512"])


def kernels_of(name: str, threads: int = 1) -> Kernels:
    if name == "torch":
        return TorchKernels()
    if name not in available():
        pytest.skip(f"the {name} kernels are not compiled, or do not run here")
    return NativeKernels(library(name), name, threads)
