"""Writes the keys and values of a step into the cache."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: N803

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from engines.backends.torch_lm.cuda.kernels.sizes import FUSED

_NUMBERS = 2048  # that one program copies at most: 16 for each of 128 threads


@triton.jit
def _write_kernel(
    new_keys,
    new_values,
    keys,
    values,
    slots,
    key_head_stride,
    key_token_stride,
    value_head_stride,
    value_token_stride,
    KV_HEADS: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    KEY_PAD: tl.constexpr,
    VALUE_PAD: tl.constexpr,
    HEADS: tl.constexpr,  # of one program
):
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    slot = tl.load(slots + token).to(tl.int64)
    target = (slot * KV_HEADS + head)[:, None]
    is_head = (head < KV_HEADS)[:, None]
    column = tl.arange(0, KEY_PAD)[None, :]
    mask = is_head & (column < KEY_DIM)
    source = new_keys + token * key_token_stride + head[:, None] * key_head_stride + column
    tl.store(keys + target * KEY_DIM + column, tl.load(source, mask=mask), mask=mask)
    column = tl.arange(0, VALUE_PAD)[None, :]
    mask = is_head & (column < VALUE_DIM)
    source = new_values + token * value_token_stride + head[:, None] * value_head_stride + column
    tl.store(values + target * VALUE_DIM + column, tl.load(source, mask=mask), mask=mask)


def write_kv(new_keys: Tensor, new_values: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
    """Stores one key and one value of each head for each token.

    new_keys, new_values: [kv_heads, tokens, dim], the last stride 1; keys, values: [blocks, block_size, kv_heads, dim],
    contiguous; slots: [tokens], block * block_size + offset.
    """
    kv_heads, tokens, key_dim = new_keys.shape
    value_dim = new_values.shape[2]
    key_pad, value_pad = triton.next_power_of_2(key_dim), triton.next_power_of_2(value_dim)
    heads = min(triton.next_power_of_2(kv_heads), max(1, _NUMBERS // max(key_pad, value_pad)))
    _write_kernel[(tokens, triton.cdiv(kv_heads, heads))](
        new_keys,
        new_values,
        keys,
        values,
        slots,
        new_keys.stride(0),
        new_keys.stride(1),
        new_values.stride(0),
        new_values.stride(1),
        KV_HEADS=kv_heads,
        KEY_DIM=key_dim,
        VALUE_DIM=value_dim,
        KEY_PAD=key_pad,
        VALUE_PAD=value_pad,
        HEADS=heads,
        **FUSED,
    )
