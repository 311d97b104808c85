"""Elementwise functions of torch, used so that a row gets the same bits alone and among others.

torch computes the last few numbers of a tensor, and of each thread's share of one, by other instructions than the rest:
the result may differ in the last bit. Where these numbers are depends on how many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_STRIDE = 64  # numbers that are computed together at most
_SHARE = 32768  # numbers that one thread computes before another is asked


def evenly(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Returns function(x), which changes no number but each by itself. The last dimension of both is dense."""
    rows = x.reshape(-1, x.shape[-1])
    width = rows.shape[1]
    at_once = max(1, _SHARE // width) if width % _STRIDE == 0 else 1
    if len(rows) <= at_once and width <= _SHARE:
        return function(x)
    if width > _SHARE:
        parts = [torch.cat([function(part) for part in torch.split(row, _SHARE)])[None] for row in rows]
    else:
        parts = [function(part) for part in torch.split(rows, at_once)]
    both = torch.cat(parts)
    return both.view(*x.shape[:-1], both.shape[-1])


class Even(nn.Module):
    """Stands for an activation function."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Computes what it stands for, evenly."""
        return evenly(self._activation, x)


def is_activation(module: Any) -> bool:
    """Tells whether a module is one of the elementwise functions of torch or transformers."""
    is_known = type(module).__module__ in {"transformers.activations", "torch.nn.modules.activation"}
    return is_known and not any(True for _ in module.parameters()) and not isinstance(module, nn.Softmax)
