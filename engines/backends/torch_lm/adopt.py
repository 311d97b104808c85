"""Makes a model of transformers ready to be run here, in the fastest way that gives what it gave before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engines.backends.torch_lm.cache import LayerShape
from engines.backends.torch_lm.forward import Forward, Stock
from engines.backends.torch_lm.fused.decoder import Decoder
from engines.backends.torch_lm.fused.recognize import parts_of
from engines.backends.torch_lm.invariance import is_batch_invariant
from engines.backends.torch_lm.kernels.interface import Kernels
from engines.backends.torch_lm.linears import Linears
from engines.backends.torch_lm.self_test import SelfTest
from engines.backends.torch_lm.surgery import operate


@dataclass(frozen=True, slots=True)
class Means:
    """What a model is computed with."""

    kernels: Kernels
    linears: Linears
    is_compiled: bool = False


@dataclass(frozen=True, slots=True)
class Adopted:
    """A model that was tested."""

    forward: Forward
    layers: Mapping[int, LayerShape]  # what each layer keeps
    dtype: torch.dtype  # of what it keeps
    is_batch_invariant: bool
    way: str  # `fused`, `modules` or `compiled`


@torch.inference_mode()
def adopt(read: Callable[[], Any], device: torch.device, means: Means, context: int) -> Adopted:
    """Returns a model that `read` reads: once, or twice if it is not what it looks like.

    context: the most positions of a sequence. Raises NotServed, naming the family, if it cannot be served.
    """
    model = read()
    test = SelfTest(model, device)

    def adopted(forward: Forward, way: str) -> Adopted:
        layers, dtype = test.layers.kept, test.dtype
        is_invariant = is_batch_invariant(
            forward, layers, test.vocabulary, dtype=dtype, device=device, kernels=means.kernels
        )
        return Adopted(forward, layers, dtype, is_invariant, way)

    if not means.is_compiled:
        decoder = _decoder(model, test, means, context)
        if decoder is not None:
            del model
            if test.fault(decoder, means.kernels) is None:
                return adopted(decoder, "fused")
            model = read()
            test = SelfTest(model, device)
        operate(model, means.linears, means.kernels, context)
    forward = Stock(model, is_compiled=means.is_compiled)
    fault = test.fault(forward, means.kernels)
    if fault is not None:
        raise test.refusal(fault)
    return adopted(forward, "compiled" if means.is_compiled else "modules")


def _decoder(model: Any, test: SelfTest, means: Means, context: int) -> Decoder | None:
    parts = parts_of(model, len(test.layers.kept))
    if parts is None:
        return None
    for layer in parts.layers:
        if isinstance(layer.mlp, nn.Module):
            operate(layer.mlp, means.linears, means.kernels, context)
    return Decoder(parts, test.layers.shapes, means.linears, means.kernels, context)
