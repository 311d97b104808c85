"""Copies of layers in float32 with weights that make every part of them count."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from engines.backends.torch_lm.fused.parts import Mlp, mlp_of

_LARGE = 2.0  # deviation of what a linear layer gives: attention is far from even then


class _HalfOf(nn.Module):
    """Stands for a feed-forward block that both codes use as it is: the copy need not have all its experts."""

    def __init__(self, returns_more: bool) -> None:
        super().__init__()
        self._returns_more = returns_more

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, None]:
        return (x / 2, None) if self._returns_more else x / 2


def kinds(layers: Sequence[nn.Module]) -> list[int]:
    """Returns the first layer of each kind: of one kind are those that differ in nothing but their numbers."""
    first: dict[object, int] = {}
    for index, layer in enumerate(layers):
        first.setdefault(_description(layer), index)
    return list(first.values())


def enlarged(layer: Any) -> nn.Module:
    """Returns a copy of a decoder layer on the CPU, with other weights."""
    block = layer.mlp
    if not isinstance(mlp_of(block), Mlp):
        parameter = next(layer.parameters())
        probe = torch.zeros(1, 1, layer.self_attn.o_proj.out_features, dtype=parameter.dtype, device=parameter.device)
        layer.mlp = _HalfOf(isinstance(block(probe), tuple))
    configs = {id(each.config): each.config for each in layer.modules() if hasattr(each, "config")}
    try:
        copy: nn.Module = deepcopy(layer, dict(configs))
    finally:
        layer.mlp = block
    chance = torch.Generator().manual_seed(0)
    for module in copy.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(_numbers(parameter.shape, chance), requires_grad=False)
    return copy.to("cpu", torch.float32)


def widened(value: Any) -> Any:
    """Returns what a layer was called with, for a copy of it."""
    if isinstance(value, Tensor):
        return value.to("cpu", torch.float32) if value.is_floating_point() else value.cpu()
    return tuple(map(widened, value)) if isinstance(value, tuple) else value


def _numbers(shape: torch.Size, chance: torch.Generator) -> Tensor:
    if len(shape) == 1:
        return torch.rand(shape, generator=chance) + 0.5
    deviation: float = _LARGE * shape[-1] ** -0.5
    return torch.randn(shape, generator=chance) * deviation


def _description(layer: nn.Module) -> object:
    return tuple(
        (
            type(module),
            tuple((key, value) for key, value in sorted(vars(module).items()) if _decides(key, value)),
            tuple((key, None if value is None else value.shape) for key, value in module._parameters.items()),
        )
        for module in layer.modules()
    )


def _decides(name: str, value: object) -> bool:
    return name != "layer_idx" and isinstance(value, bool | int | float | str | None)
