"""Norms and gates by the Triton kernels."""

from __future__ import annotations

from torch import Tensor

from engines.backends.torch_lm.cuda.kernels.gate import gated
from engines.backends.torch_lm.cuda.kernels.norm import norm
from engines.backends.torch_lm.kernels.reference import TorchKernels


class TritonKernels(TorchKernels):
    """See `kernels.interface.Kernels`. Attention over a `PagedCache` is made by the cache, not here."""

    name = "triton"

    def rms_norm(
        self, x: Tensor, weight: Tensor, eps: float, *, offset: float = 0.0, residual: Tensor | None = None
    ) -> Tensor:
        """See `kernels.interface.Kernels`."""
        return norm(x, weight, None, eps, offset=offset, residual=residual)

    def layer_norm(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, *, residual: Tensor | None = None
    ) -> Tensor:
        """See `kernels.interface.Kernels`."""
        return norm(x, weight, bias, eps, is_centered=True, residual=residual)

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """See `kernels.interface.Kernels`."""
        return gated(gate_up, "silu")

    def gelu_tanh_mul(self, gate_up: Tensor) -> Tensor:
        """See `kernels.interface.Kernels`."""
        return gated(gate_up, "gelu_tanh")
