"""The function between the two halves of a feed-forward block."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: N803

from __future__ import annotations

from typing import Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

from engines.backends.torch_lm.cuda.kernels.sizes import FUSED

_NUMBERS = 1024  # of one program
_TWO_ROOTS = tl.constexpr(1.5957691216057308)  # 2 * sqrt(2 / pi)


@triton.jit
def _gate_kernel(gate_up, output, stride, DIM: tl.constexpr, NUMBERS: tl.constexpr, IS_GELU: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * NUMBERS + tl.arange(0, NUMBERS)
    mask = column < DIM
    gate = tl.load(gate_up + row * stride + column, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * stride + DIM + column, mask=mask, other=0.0).to(tl.float32)
    if IS_GELU:
        gate = gate * tl.sigmoid((gate + 0.044715 * gate * gate * gate) * _TWO_ROOTS)
    else:
        gate = gate * tl.sigmoid(gate)
    tl.store(output + row * DIM + column, (gate * up).to(output.dtype.element_ty), mask=mask)


def gated(gate_up: Tensor, kind: Literal["silu", "gelu_tanh"]) -> Tensor:
    """Returns f(gate) * up, [rows, dim]. gate_up: [rows, 2 * dim], the gate first, the last dimension dense."""
    rows, dim = gate_up.shape[0], gate_up.shape[1] // 2
    output = torch.empty(rows, dim, dtype=gate_up.dtype, device=gate_up.device)
    if rows:
        _gate_kernel[(rows, triton.cdiv(dim, _NUMBERS))](
            gate_up, output, gate_up.stride(0), DIM=dim, NUMBERS=_NUMBERS, IS_GELU=kind == "gelu_tanh", **FUSED
        )
    return output
