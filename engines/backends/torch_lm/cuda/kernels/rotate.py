"""Norms and rotates the heads of queries and keys; keys go straight into the cache, and values with them."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: N803

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from engines.backends.torch_lm.cuda.kernels.sizes import FUSED
from engines.backends.torch_lm.kernels.interface import HeadNorm

_TOGETHER = 4  # heads of one program


@triton.jit
def _rotate_kernel(
    qkv,
    keys,
    values,
    slots,
    cos,
    sin,
    query_weight,
    key_weight,
    qkv_stride,
    cos_stride,
    eps,
    offset,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    HALF: tl.constexpr,  # dimension i is rotated with i + HALF; none if 0
    REST: tl.constexpr,  # dimensions behind those that are rotated
    HALF_PAD: tl.constexpr,
    REST_PAD: tl.constexpr,
    VALUE_PAD: tl.constexpr,
    HAS_NORM: tl.constexpr,
    TOGETHER: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token).to(tl.int64)
    head = tl.program_id(1) * TOGETHER + tl.arange(0, TOGETHER)
    source = qkv + token * qkv_stride
    # Heads [0, HEADS) are queries, [HEADS, HEADS + KV_HEADS) keys, and as many behind them values.
    is_turned = (head < HEADS + KV_HEADS)[:, None]
    is_query = (head < HEADS)[:, None]
    is_key = is_turned & (head >= HEADS)[:, None]
    place = (head * KEY_DIM)[:, None]
    target = ((slot * KV_HEADS + head - HEADS) * KEY_DIM)[:, None]
    half = tl.arange(0, HALF_PAD)[None, :]
    rest = tl.arange(0, REST_PAD)[None, :]
    in_half = half < HALF
    in_rest = rest < REST
    first = tl.load(source + place + half, mask=is_turned & in_half, other=0.0).to(tl.float32)
    second = tl.load(source + place + HALF + half, mask=is_turned & in_half, other=0.0).to(tl.float32)
    third = tl.load(source + place + 2 * HALF + rest, mask=is_turned & in_rest, other=0.0).to(tl.float32)
    if HAS_NORM:
        squares = tl.sum(first * first, 1) + tl.sum(second * second, 1) + tl.sum(third * third, 1)
        scale = tl.rsqrt(squares / KEY_DIM + eps)[:, None]
        first = first * scale * _weight(query_weight, key_weight, half, in_half, is_query, offset)
        second = second * scale * _weight(query_weight, key_weight, half + HALF, in_half, is_query, offset)
        third = third * scale * _weight(query_weight, key_weight, rest + 2 * HALF, in_rest, is_query, offset)
    if HALF > 0:
        turn_cos = tl.load(cos + token * cos_stride + half, mask=in_half, other=0.0)
        turn_sin = tl.load(sin + token * cos_stride + half, mask=in_half, other=0.0)
        turned = first * turn_cos - second * turn_sin
        second = second * turn_cos + first * turn_sin
        first = turned
    kind = qkv.dtype.element_ty
    tl.store(source + place + half, first.to(kind), mask=is_query & in_half)
    tl.store(source + place + HALF + half, second.to(kind), mask=is_query & in_half)
    tl.store(source + place + 2 * HALF + rest, third.to(kind), mask=is_query & in_rest)
    tl.store(keys + target + half, first.to(kind), mask=is_key & in_half)
    tl.store(keys + target + HALF + half, second.to(kind), mask=is_key & in_half)
    tl.store(keys + target + 2 * HALF + rest, third.to(kind), mask=is_key & in_rest)
    value_head = head - HEADS - KV_HEADS
    column = tl.arange(0, VALUE_PAD)[None, :]
    mask = ((value_head >= 0) & (value_head < KV_HEADS))[:, None] & (column < VALUE_DIM)
    begin = (HEADS + KV_HEADS) * KEY_DIM
    given = tl.load(source + begin + (value_head * VALUE_DIM)[:, None] + column, mask=mask, other=0.0)
    tl.store(values + ((slot * KV_HEADS + value_head) * VALUE_DIM)[:, None] + column, given, mask=mask)


@triton.jit
def _weight(query_weight, key_weight, column, mask, is_query, offset):
    ours = tl.load(query_weight + column, mask=mask, other=0.0).to(tl.float32)
    theirs = tl.load(key_weight + column, mask=mask, other=0.0).to(tl.float32)
    return tl.where(is_query, ours, theirs) + offset


def rotate_and_write(
    qkv: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    heads: int,
    cos: Tensor | None,
    sin: Tensor | None,
    norm: HeadNorm | None,
) -> None:
    """Changes queries in place, and writes keys and values. See `kernels.interface.Attention.write_qkv`.

    keys, values: [blocks, block_size, kv_heads, dim], contiguous; slots: [tokens], block * block_size + offset.
    """
    kv_heads, key_dim, value_dim = keys.shape[2], keys.shape[3], values.shape[3]
    half = 0 if cos is None else cos.shape[-1]
    rest = key_dim - 2 * half
    groups = triton.cdiv(heads + 2 * kv_heads, _TOGETHER)
    weight = qkv if norm is None else norm.query
    _rotate_kernel[(qkv.shape[0], groups)](
        qkv,
        keys,
        values,
        slots,
        qkv if cos is None else cos,
        qkv if sin is None else sin,
        weight,
        qkv if norm is None else norm.key,
        qkv.stride(0),
        0 if cos is None else cos.stride(0),
        0.0 if norm is None else float(norm.eps),
        0.0 if norm is None else float(norm.offset),
        HEADS=heads,
        KV_HEADS=kv_heads,
        KEY_DIM=key_dim,
        VALUE_DIM=value_dim,
        HALF=half,
        REST=rest,
        HALF_PAD=triton.next_power_of_2(max(1, half)),
        REST_PAD=triton.next_power_of_2(max(1, rest)),
        VALUE_PAD=triton.next_power_of_2(value_dim),
        HAS_NORM=norm is not None,
        TOGETHER=_TOGETHER,
        **FUSED,
    )
