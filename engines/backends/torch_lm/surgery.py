"""Puts our own parts into a model of transformers: packed linear layers, norms, experts and rotations.

Each is recognized by what it computes. What is not recognized stays, and the self-test tells whether all is right.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from engines.backends.torch_lm.even import Even, is_activation
from engines.backends.torch_lm.experts import Experts, are_experts
from engines.backends.torch_lm.kernels.interface import Kernels
from engines.backends.torch_lm.linears import Linear, Linears, Norm
from engines.backends.torch_lm.norms import norm_of
from engines.backends.torch_lm.quantization import weight_of
from engines.backends.torch_lm.rotary import LookedUp
from engines.backends.torch_lm.weight import put_weight


class PackedLinear(nn.Module):
    """Stands for `nn.Linear` or `Conv1D`."""

    def __init__(self, linear: Linear, like: Tensor) -> None:
        super().__init__()
        self._linear = linear
        self.weight = torch.empty(0, dtype=like.dtype, device=like.device)  # some look at its dtype

    def forward(self, x: Tensor) -> Tensor:
        """Computes as the module does that it stands for."""
        y = self._linear(x.reshape(-1, x.shape[-1]))
        return y.view(*x.shape[:-1], y.shape[-1])


class KernelNorm(nn.Module):
    """Stands for a root-mean-square norm."""

    def __init__(self, norm: Norm, kernels: Kernels, like: Tensor) -> None:
        super().__init__()
        self._norm, self._kernels = norm, kernels
        self.weight = torch.empty(0, dtype=like.dtype, device=like.device)

    def forward(self, x: Tensor) -> Tensor:
        """Computes as the module does that it stands for."""
        rows = x.reshape(-1, x.shape[-1])
        return self._kernels.rms_norm(rows, self._norm.weight, self._norm.eps).view(x.shape)


def operate(module: nn.Module, linears: Linears, kernels: Kernels, context: int) -> None:
    """Replaces what is known below a module, and lets go of its weights one by one.

    context: positions that rotations are ever asked for.
    """
    for name, child in list(module.named_children()):
        replacement = _replacement(child, linears, kernels, context)
        if replacement is None:
            operate(child, linears, kernels, context)
        else:
            setattr(module, name, replacement)
    put_weight(module, linears)


def _replacement(module: Any, linears: Linears, kernels: Kernels, context: int) -> nn.Module | None:
    if isinstance(module, nn.Linear):
        return PackedLinear(linears.pack(weight_of(module), module.bias), module.weight)
    if isinstance(module, Conv1D):
        return PackedLinear(linears.pack(module.weight.t(), module.bias), module.weight)
    if are_experts(module):
        return Experts(module, linears)
    if is_activation(module):
        return Even(module)
    if _is_rotary(module):
        return LookedUp(module, context)
    norm = norm_of(module)
    return None if norm is None else KernelNorm(norm, kernels, module.weight)


def _is_rotary(module: nn.Module) -> bool:
    has_frequencies = any(name.endswith("inv_freq") for name, _ in module.named_buffers(recurse=False))
    return has_frequencies and list(signature(module.forward).parameters)[:2] == ["x", "position_ids"]
