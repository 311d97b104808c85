"""Weights of linear layers in eight bits, one scale for each output, as torchao makes them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from engines.backends.torch_lm.linears import Int8
from roundhouse.kit.errors import InvalidArgument, NotServed

QUANTIZATIONS = ("", "int8")


def check_quantization(quantization: str) -> None:
    """Raises InvalidArgument if there is no such thing, NotServed if torchao is needed and not installed."""
    if quantization not in QUANTIZATIONS:
        raise InvalidArgument(f'quantization "{quantization}" is unknown: use int8, or nothing')
    if quantization and find_spec("torchao") is None:
        raise NotServed(
            'quantization "int8" needs torchao, which is not installed: install roundhouse-serve[quantization]'
        )


def quantize(model: Any, quantization: str) -> None:
    """Changes the linear layers of a model in place."""
    if not quantization:
        return
    torchao: Any = import_module("torchao.quantization")
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig())


def weight_of(module: nn.Linear) -> Tensor | Int8:
    """Returns the weight of a linear layer, quantized or not."""
    weight: Any = module.weight
    if type(weight).__name__ != "Int8Tensor":
        return module.weight
    return Int8(weight.qdata, weight.scale.float().flatten(), weight.dtype)


def joined(weights: Sequence[Tensor | Int8]) -> Tensor | Int8:
    """Returns weights of one kind, one below the other."""
    if len(weights) == 1:
        return weights[0]
    quantized = [weight for weight in weights if isinstance(weight, Int8)]
    if not quantized:
        return torch.cat([weight for weight in weights if isinstance(weight, Tensor)])
    assert len(quantized) == len(weights)
    numbers, scale = torch.cat([each.numbers for each in quantized]), torch.cat([each.scale for each in quantized])
    return Int8(numbers, scale, quantized[0].dtype)
