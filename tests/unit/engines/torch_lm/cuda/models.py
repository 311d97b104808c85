"""Tiny models with a `CudaRunner`: on a GPU with Triton and CUDA graphs, on a CPU with plain torch and steps repeated.

On a CPU all that the host does is the same; what stands in for the GPU does it at once. Under Triton's interpreter the
kernels are the real ones, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engines.backends.torch_lm.cache import block_bytes
from engines.backends.torch_lm.cuda.machine import Cuda, Host, Machine, Mark
from engines.backends.torch_lm.cuda.place import place
from engines.backends.torch_lm.cuda.runner import CudaRunner
from engines.backends.torch_lm.place import Placed, Wishes
from engines.backends.torch_lm.self_test import SelfTest
from engines.backends.torch_lm.weights import read_config, read_model
from engines.loading import Count, LoadStage, to_nobody
from tests.support.tiny_models import CONTEXT
from tests.unit.engines.torch_lm.cuda.scenes import IS_INTERPRETED

BLOCKS, BLOCK_SIZE = 200, 8
ROWS, TOKENS = (4, 24) if IS_INTERPRETED else (8, 64)  # the interpreter is slow


class Pretending(Host):
    """A CPU that says that it can do what a GPU can, and is wide enough for keys to be read in parts."""

    capability = (9, 0) if IS_INTERPRETED else (0, 0)
    multiprocessors = 4

    def __init__(self) -> None:
        self.waited_count = 0  # how often somebody waited for what was under way

    def mark(self) -> Mark:
        return _Mark(self)


class _Mark:
    def __init__(self, machine: Pretending) -> None:
        self._machine = machine

    def synchronize(self) -> None:
        self._machine.waited_count += 1


@dataclass(frozen=True, slots=True)
class Model:
    """A model, and what computes it."""

    stock: Any  # with its own attention
    runner: CudaRunner
    machine: Machine
    way: str
    stages: list[str]


Load = Callable[..., Model]


def place_of(directory: Path, device: str, wishes: Wishes) -> Placed:
    """Puts a model onto a device, in float32."""
    machine: Machine = Cuda(torch.device(device)) if device == "cuda" else Pretending()
    config = read_config(directory)
    return place(lambda: read_model(directory, config, torch.float32, machine.device), wishes, to_nobody, machine)


def model_of(directory: Path, device: str, *, attention: str = "auto", dtype: torch.dtype = torch.float32) -> Model:
    """Loads a model, and once more to compare with."""
    machine: Machine = Cuda(torch.device(device)) if device == "cuda" else Pretending()

    def read() -> Any:
        return read_model(directory, read_config(directory), dtype, machine.device)

    stock, stages = read(), list[str]()
    kept = SelfTest(stock, machine.device).layers.kept
    stock.set_attn_implementation("eager")
    wishes = Wishes(
        block_size=BLOCK_SIZE,
        kv_cache_bytes=BLOCKS * block_bytes(kept, BLOCK_SIZE, dtype),
        context=CONTEXT,
        attention=attention,
        batch_size=ROWS,
        max_batched_tokens=TOKENS,
    )

    def note(message: str, _stage: LoadStage | None = None, _count: Count | None = None, /) -> None:
        stages.append(message)

    placed = place(read, wishes, note, machine)
    assert placed.total_blocks == BLOCKS
    assert isinstance(placed.runner, CudaRunner)
    if device == "cpu" and not IS_INTERPRETED:
        placed.runner.warm_up()  # what plain torch computes can be done again here
    return Model(stock, placed.runner, machine, placed.numerics, stages)


def greedy(model: Model, prompt: list[int], count: int) -> list[int]:
    """Returns what transformers' own greedy generate gives."""
    ids = torch.tensor([prompt], device=model.stock.device)
    output = model.stock.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, eos_token_id=-1
    )
    return list(output[0, len(prompt) :].tolist())
