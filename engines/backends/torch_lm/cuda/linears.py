"""Linear layers on a GPU: a product that adds to what is there already, with a norm before it and a gate behind it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from engines.backends.torch_lm.kernels.interface import Kernels
from engines.backends.torch_lm.linears import Gate, Int8, Norm


class CudaLinears:
    """See `linears.Linears`."""

    name = "cublas"

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels

    def pack(
        self,
        weight: Tensor | Int8,
        bias: Tensor | None = None,
        *,
        norm: Norm | None = None,
        gate: Gate | None = None,
        is_wide: bool = False,
    ) -> CudaLinear:
        """See `linears.Linears`. Weights in eight bits are left to torchao, in the modelling code."""
        assert isinstance(weight, Tensor)
        return CudaLinear(weight.detach(), None if bias is None else bias.detach(), self._kernels, norm, gate, is_wide)


class CudaLinear:
    """See `linears.Linear`."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        kernels: Kernels,
        norm: Norm | None,
        gate: Gate | None,
        is_wide: bool,
    ) -> None:
        self._weight, self._transposed, self._bias = weight, weight.t(), bias
        self._kernels, self._norm, self._gate, self._is_wide = kernels, norm, gate, is_wide

    def __call__(self, x: Tensor, *, of: Tensor | None = None, onto: Tensor | None = None) -> Tensor:
        """See `linears.Linear`."""
        if of is not None:
            x = x.index_select(0, of)
        if self._norm is not None:
            x = self._kernels.rms_norm(x, self._norm.weight, self._norm.eps)
        if onto is not None and self._bias is None and self._gate is None:
            return torch.addmm(onto, x, self._transposed, out=onto)
        y = functional.linear(x, self._weight, self._bias)
        if self._gate is not None:
            y = self._kernels.silu_mul(y) if self._gate == "silu" else self._kernels.gelu_tanh_mul(y)
        if onto is not None:
            return onto.add_(y)
        return y.float() if self._is_wide else y
