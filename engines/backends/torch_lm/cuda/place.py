"""Puts a model onto a GPU, in the fastest way that gives what the stock implementation gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from engines.backends.torch_lm.cache import block_bytes
from engines.backends.torch_lm.cuda.cache import Attending, PagedCache
from engines.backends.torch_lm.cuda.check import BLOCK_COUNT, ROW_COUNT, TOKEN_COUNT, Expected, Tolerance, fault_of
from engines.backends.torch_lm.cuda.choose import triton_attending, triton_kernels, uses_triton
from engines.backends.torch_lm.cuda.decoder import Decoder
from engines.backends.torch_lm.cuda.limits import Limits
from engines.backends.torch_lm.cuda.linears import CudaLinears
from engines.backends.torch_lm.cuda.machine import Machine
from engines.backends.torch_lm.cuda.reference import TorchAttention
from engines.backends.torch_lm.cuda.runner import Compute, CudaRunner
from engines.backends.torch_lm.cuda.stock import Stock
from engines.backends.torch_lm.fused.recognize import parts_of
from engines.backends.torch_lm.linears import Int8
from engines.backends.torch_lm.place import Placed, Read, Wishes
from engines.backends.torch_lm.quantization import weight_of
from engines.backends.torch_lm.self_test import SelfTest
from engines.loading import OnStage
from engines.loop.interfaces import OutOfMemory
from roundhouse.kit.errors import NoCapacity, NotServed


class Bindable(Protocol):
    """A model, as `forward.Forward` is, on a GPU."""

    def bind(self, cache: PagedCache) -> Compute:
        """Returns what computes steps over this cache."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to compute a model."""

    name: str
    test: SelfTest
    forward: Bindable
    attending: Attending
    records: bool


@torch.inference_mode()
def place(read: Read, wishes: Wishes, on_stage: OnStage, machine: Machine) -> Placed:
    """Returns a runner that was tested.

    Raises NotServed, naming the family, if there is no way that gives what the stock implementation gives, and
    InvalidArgument or NoCapacity.
    """
    refusal: NotServed | None = None
    for way in _ways(read, wishes, machine):
        on_stage(f"making the GPU ready: {way.name}")
        blocks = wishes.kv_cache_bytes // block_bytes(way.test.layers.kept, wishes.block_size, way.test.dtype)
        tried = _tried(way, wishes, on_stage, machine, blocks)
        if isinstance(tried, CudaRunner):
            return Placed(tried, blocks, way.name, is_batch_invariant=False)
        on_stage(f"going on in another way: {tried}")
        refusal = way.test.refusal(tried)
        del way  # and its weights, before they are read anew
    assert refusal is not None, "there is always a way to try"
    raise refusal


def _ways(read: Read, wishes: Wishes, machine: Machine) -> Iterator[Way]:
    """Yields the fastest first. Without the option `attention`, plain torch takes over from kernels that fail."""
    model = _read(read, machine)
    test = SelfTest(model, machine.device)
    uses = uses_triton(wishes.attention, test.layers.kept, machine.capability)
    triton = triton_attending(machine, wishes.context) if uses else None
    decoder = _decoder(model, test, wishes) if uses else None
    if triton and decoder:
        yield Way("fused, attention by triton", test, decoder, triton, records=True)
        del model, decoder
        model = _read(read, machine)
        test = SelfTest(model, machine.device)
    stock = Stock(torch.compile(model) if wishes.is_compiled else model)
    if triton:
        yield Way("stock, attention by triton", test, stock, triton, records=True)
    if wishes.attention != "triton":
        yield Way("stock, attention by torch", test, stock, TorchAttention, records=False)


def _read(read: Read, machine: Machine) -> Any:
    model = read()
    in_groups = getattr(model.config, "_experts_implementation", None) == "grouped_mm"
    if in_groups and machine.device.type == "cuda" and model.dtype != torch.bfloat16:  # which alone a GPU multiplies so
        model.set_experts_implementation("eager")
    return model


def _decoder(model: Any, test: SelfTest, wishes: Wishes) -> Decoder | None:
    parts = None if wishes.is_compiled or _is_quantized(model) else parts_of(model, len(test.layers.kept))
    if parts is None:
        return None
    kernels = triton_kernels()
    try:
        return Decoder(parts, test.layers.shapes, CudaLinears(kernels), kernels, wishes.context)
    except ValueError:  # it is not of the usual shape after all
        return None


def _is_quantized(model: Any) -> bool:
    return any(isinstance(weight_of(each), Int8) for each in model.modules() if isinstance(each, nn.Linear))


def _tried(way: Way, wishes: Wishes, on_stage: OnStage, machine: Machine, blocks: int) -> CudaRunner | str:
    """Returns a runner, or what is wrong with it."""
    limits = Limits(
        rows=max(wishes.batch_size, ROW_COUNT),
        tokens=max(wishes.max_batched_tokens, TOKEN_COUNT),
        context=wishes.context,
    )
    test = way.test
    size, dtype, device = wishes.block_size, test.dtype, machine.device
    try:
        held = max(blocks, BLOCK_COUNT)
        cache = PagedCache(test.layers.kept, way.attending, blocks=held, block_size=size, dtype=dtype, device=device)
        runner = CudaRunner(way.forward.bind(cache), cache, machine, limits)
        obstacle = runner.warm_up(records=way.records)
    except (torch.OutOfMemoryError, OutOfMemory) as error:
        raise NoCapacity(
            f"the GPU is too small for the model, {blocks} blocks of KV cache and a step of {limits.tokens} tokens "
            f"({str(error).partition('. ')[0]}): lower kv_cache_memory or max_num_batched_tokens"
        ) from error
    except Exception as error:  # noqa: BLE001 - a kernel that does not compile on this GPU, say
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    if obstacle is not None:
        on_stage(f"going on without CUDA graphs: {obstacle}")
    long, short = (
        Expected(ids[: limits.context], logits[: limits.context])
        for ids, logits in zip(test.prompts, test.expected, strict=True)
    )
    return fault_of(runner, len(test.layers.kept), long, short, Tolerance(*test.tolerance)) or runner
