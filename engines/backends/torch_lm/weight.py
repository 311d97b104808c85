"""Weights that modelling code hands to `functional.linear` itself, as routers of experts do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.backends.torch_lm.linears import Linear, Linears

_CONVERSIONS = {Tensor.type, Tensor.to, Tensor.float}


class PackedWeight(Tensor):
    """Stands for a weight. As the second argument of `functional.linear` it is used packed, in any number format."""

    linears: Linears
    packed: dict[torch.dtype, PackedWeight]
    linear: Linear

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        """Sees every function of torch that is called with such a weight."""
        if function is functional.linear and len(arguments) > 1 and isinstance(arguments[1], PackedWeight):
            return _product(*arguments, **(options or {}))
        with torch._C.DisableTorchFunctionSubclass():
            result = function(*arguments, **(options or {}))
        is_converted = function in _CONVERSIONS and isinstance(result, Tensor)
        return _converted(arguments[0], result) if is_converted else result


def put_weight(module: nn.Module, linears: Linears) -> None:
    """Packs the weight of a module that is no embedding and has a matrix of that name."""
    weight = module._parameters.get("weight")
    if weight is None or weight.dim() != 2 or isinstance(module, nn.Embedding):
        return
    del module._parameters["weight"]
    module.__dict__["weight"] = _pack(weight.detach(), linears, {})


def _pack(weight: Tensor, linears: Linears, packed: dict[torch.dtype, PackedWeight]) -> PackedWeight:
    made = weight.as_subclass(PackedWeight)
    made.linears, made.packed, made.linear = linears, packed, linears.pack(weight)
    packed[weight.dtype] = made
    return made


def _converted(weight: Any, result: Tensor) -> Tensor:
    found = weight.packed.get(result.dtype)
    return _pack(result.as_subclass(Tensor), weight.linears, weight.packed) if found is None else found


def _product(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
    y = weight.linear(x.reshape(-1, x.shape[-1]))
    y = y.view(*x.shape[:-1], y.shape[-1])
    return y if bias is None else y + bias
