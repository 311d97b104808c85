"""Linear layers by torch: where there are none in C, and on other devices than a CPU."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from engines.backends.torch_lm.kernels.interface import Kernels
from engines.backends.torch_lm.linears import Gate, Int8, Norm

_ROWS = 8  # for which oneDNN chooses the layout; it is used for any count


class TorchLinears:
    """See `linears.Linears`. On a CPU through oneDNN, where torch still has what it keeps private."""

    def __init__(self, kernels: Kernels, device: torch.device) -> None:
        self._kernels = kernels
        self._onednn = _onednn() if device.type == "cpu" else None
        self.name = "torch" if self._onednn is None else "onednn"

    def pack(
        self,
        weight: Tensor | Int8,
        bias: Tensor | None = None,
        *,
        norm: Norm | None = None,
        gate: Gate | None = None,
        is_wide: bool = False,
    ) -> TorchLinear:
        """See `linears.Linears`."""
        if isinstance(weight, Int8):
            weight = (weight.numbers * weight.scale[:, None]).to(weight.dtype)
        weight, bias = weight.detach(), None if bias is None else bias.detach()
        return TorchLinear(self._product(weight, bias), self._kernels, norm, gate, is_wide)

    def _product(self, weight: Tensor, bias: Tensor | None) -> _Plain | _Packed:
        if self._onednn is not None:
            with suppress(RuntimeError):  # a number format that this processor has no instructions for
                return _Packed(self._onednn, weight, bias)
        return _Plain(weight, bias)


class TorchLinear:
    """See `linears.Linear`."""

    def __init__(
        self, product: _Plain | _Packed, kernels: Kernels, norm: Norm | None, gate: Gate | None, is_wide: bool
    ) -> None:
        self._product, self._kernels = product, kernels
        self._norm, self._gate, self._is_wide = norm, gate, is_wide

    def __call__(self, x: Tensor, *, of: Tensor | None = None, onto: Tensor | None = None) -> Tensor:
        """See `linears.Linear`."""
        if of is not None:
            x = x[of]
        if self._norm is not None:
            x = self._kernels.rms_norm(x, self._norm.weight, self._norm.eps)
        y = self._product(x)
        if self._gate is not None:
            y = self._kernels.silu_mul(y) if self._gate == "silu" else self._kernels.gelu_tanh_mul(y)
        if onto is not None:
            return onto.add_(y)
        return y.float() if self._is_wide else y


class _Plain:
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self._weight, self._bias)


class _Packed:
    def __init__(self, onednn: Any, weight: Tensor, bias: Tensor | None) -> None:
        self._multiply = onednn._linear_pointwise
        self._weight = onednn._reorder_linear_weight(weight.contiguous(), _ROWS)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        # A single row is computed in another order than two and more are.
        rows = x.expand(2, -1).contiguous() if x.shape[0] == 1 else x.contiguous()
        y: Tensor = self._multiply(rows, self._weight, self._bias, "none", [], "")
        return y[: x.shape[0]]


def _onednn() -> Any:
    operators = torch.ops.mkldnn
    has_all = hasattr(operators, "_reorder_linear_weight") and hasattr(operators, "_linear_pointwise")
    backend: Any = torch.backends.mkldnn
    return operators if has_all and backend.is_available() else None
