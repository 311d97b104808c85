"""Puts a model onto a device: tests it there, and makes the runner with its cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from engines.backends.torch_lm.adopt import Means, adopt
from engines.backends.torch_lm.cache import KvCache, block_bytes
from engines.backends.torch_lm.kernels.choose import available, choose, library
from engines.backends.torch_lm.kernels.interface import Kernels
from engines.backends.torch_lm.linears import Linears, NativeLinears
from engines.backends.torch_lm.linears_torch import TorchLinears
from engines.backends.torch_lm.runner import TorchRunner
from engines.loading import OnStage
from engines.loop.interfaces import Runner

Read = Callable[[], Any]  # reads the model anew, with its own attention


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of a runner."""

    block_size: int
    kv_cache_bytes: int
    context: int  # the most tokens of a sequence
    attention: str = "auto"
    is_compiled: bool = False
    batch_size: int = 32
    max_batched_tokens: int = 512


@dataclass(frozen=True, slots=True)
class Placed:
    """A model that was tested, and runs."""

    runner: Runner
    total_blocks: int
    numerics: str  # what computes, in words
    is_batch_invariant: bool


def place_on_cpu(read: Read, wishes: Wishes, on_stage: OnStage) -> Placed:
    """Raises InvalidArgument, NotServed, NoCapacity."""
    device = torch.device("cpu")
    kernels = choose(wishes.attention, device)
    linears = linears_for(kernels, device)
    adopted = adopt(read, device, Means(kernels, linears, is_compiled=wishes.is_compiled), wishes.context)
    on_stage("allocating the KV cache")
    blocks = wishes.kv_cache_bytes // block_bytes(adopted.layers, wishes.block_size, adopted.dtype)
    cache = KvCache(
        adopted.layers, blocks=blocks, block_size=wishes.block_size, dtype=adopted.dtype, device=device, kernels=kernels
    )
    numerics = f"{adopted.way}, attention by {kernels.name}"
    if not wishes.is_compiled:
        numerics += f", linears by {linears.name}"
    return Placed(TorchRunner(adopted.forward, cache, device), blocks, numerics, adopted.is_batch_invariant)


def place_on_cuda(read: Read, wishes: Wishes, on_stage: OnStage) -> Placed:
    """Raises InvalidArgument, NotServed, NoCapacity."""
    from engines.backends.torch_lm.cuda.machine import Cuda
    from engines.backends.torch_lm.cuda.place import place

    return place(read, wishes, on_stage, Cuda(torch.device("cuda")))


def linears_for(kernels: Kernels, device: torch.device) -> Linears:
    """Returns those in C, unless plain torch is to attend or they are not there."""
    if kernels.name in available():
        return NativeLinears(library(kernels.name), kernels.name, torch.get_num_threads())
    return TorchLinears(kernels, device)
