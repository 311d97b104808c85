"""Norms of rows, with the addition that comes before them."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: N803

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from engines.backends.torch_lm.cuda.kernels.sizes import FUSED


@triton.jit
def _norm_kernel(
    x,
    residual,
    weight,
    bias,
    output,
    x_stride,
    residual_stride,
    eps,
    offset,
    DIM: tl.constexpr,
    PAD: tl.constexpr,
    IS_CENTERED: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, PAD)
    mask = column < DIM
    numbers = tl.load(x + row * x_stride + column, mask=mask, other=0.0)
    if HAS_RESIDUAL:
        place = residual + row * residual_stride + column
        before = tl.load(place, mask=mask, other=0.0)
        numbers = (before.to(tl.float32) + numbers.to(tl.float32)).to(before.dtype)
        tl.store(place, numbers, mask=mask)
    numbers = numbers.to(tl.float32)
    if IS_CENTERED:
        numbers = tl.where(mask, numbers - tl.sum(numbers, 0) / DIM, 0.0)
    scale = tl.rsqrt(tl.sum(numbers * numbers, 0) / DIM + eps)
    factor = tl.load(weight + column, mask=mask, other=0.0).to(tl.float32) + offset
    result = numbers * scale * factor
    if HAS_BIAS:
        result += tl.load(bias + column, mask=mask, other=0.0).to(tl.float32)
    tl.store(output + row * DIM + column, result.to(output.dtype.element_ty), mask=mask)


def norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    *,
    offset: float = 0.0,
    is_centered: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    """Returns x / rms(x) * (weight + offset) + bias over the last dimension, dense. x: [rows, dim], the last dense.

    is_centered: the mean is taken from x first. With a residual, x is added to it in place, and the sum is what counts.
    """
    rows, dim = x.shape
    output = torch.empty(rows, dim, dtype=x.dtype, device=x.device)
    if rows == 0:
        return output
    pad = triton.next_power_of_2(dim)
    _norm_kernel[(rows,)](
        x,
        x if residual is None else residual,
        weight,
        weight if bias is None else bias,
        output,
        x.stride(0),
        x.stride(0) if residual is None else residual.stride(0),
        float(eps),
        float(offset),
        DIM=dim,
        PAD=pad,
        IS_CENTERED=is_centered,
        HAS_RESIDUAL=residual is not None,
        HAS_BIAS=bias is not None,
        num_warps=min(16, max(1, pad // 512)),
        **FUSED,
    )
    return output
