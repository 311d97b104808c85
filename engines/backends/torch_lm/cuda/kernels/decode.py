"""One query for each sequence: its keys are read in parts by programs side by side, and the parts are put together.

How many parts there are is decided by what is known before the step, so that a captured graph holds for any lengths;
a part without keys ends at once.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: N803

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from engines.backends.torch_lm.attention import Shape
from engines.backends.torch_lm.cuda.kernels.sizes import FUSED, LEAST_PART, key_tile, padded
from engines.backends.torch_lm.cuda.kernels.tile import LOG2_E, LOWEST, absorb, with_sinks
from engines.backends.torch_lm.cuda.tables import Tables


@triton.jit
def _bounds(length, WINDOW: tl.constexpr, PARTS: tl.constexpr, TILE: tl.constexpr, LEAST: tl.constexpr):
    """Returns where the keys begin that are seen, and how many each part has."""
    low = length * 0
    if WINDOW > 0:
        low = tl.maximum(length - WINDOW, 0) // TILE * TILE
    each = tl.cdiv(tl.cdiv(length - low, PARTS), TILE) * TILE
    return low, tl.maximum(each, LEAST)


@triton.jit
def _decode_kernel(
    query,
    keys,
    values,
    output,
    parts,
    peaks,
    totals,
    blocks,
    block_starts,
    kv_lengths,
    sinks,
    scale,
    softcap,
    query_head_stride,
    query_token_stride,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_PAD: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    KEY_PAD: tl.constexpr,
    VALUE_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    WINDOW: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    PARTS: tl.constexpr,
    LEAST: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    part = tl.program_id(2)
    length = tl.load(kv_lengths + row)
    low, each = _bounds(length, WINDOW, PARTS, TILE, LEAST)
    begin = low + part * each
    end = tl.minimum(begin + each, length)
    if begin >= end:
        return
    member = tl.arange(0, GROUP_PAD)
    is_member = member < GROUP
    head = kv_head * GROUP + member
    column = tl.arange(0, KEY_PAD)
    asked = tl.load(
        query + row * query_token_stride + head[:, None] * query_head_stride + column[None, :],
        mask=is_member[:, None] & (column < KEY_DIM)[None, :],
        other=0.0,
    )
    positions = member * 0 + (length - 1)
    peak = tl.full([GROUP_PAD], LOWEST, tl.float32)
    total = tl.zeros([GROUP_PAD], tl.float32)
    gathered = tl.zeros([GROUP_PAD, VALUE_PAD], tl.float32)
    own_blocks = blocks + tl.load(block_starts + row)
    for start in range(begin, end, TILE):
        peak, total, gathered = absorb(
            asked,
            positions,
            start,
            end,
            own_blocks,
            keys,
            values,
            kv_head,
            peak,
            total,
            gathered,
            scale,
            softcap,
            KV_HEADS,
            KEY_DIM,
            VALUE_DIM,
            KEY_PAD,
            VALUE_PAD,
            BLOCK_SIZE,
            TILE,
            WINDOW,
            HAS_SOFTCAP,
        )
    place = row * KV_HEADS * GROUP + head
    column = tl.arange(0, VALUE_PAD)
    mask = is_member[:, None] & (column < VALUE_DIM)[None, :]
    if PARTS == 1:
        if HAS_SINKS:
            logits = tl.load(sinks + head, mask=is_member, other=0.0).to(tl.float32)
            total, gathered = with_sinks(peak, total, gathered, logits)
        result = (gathered / total[:, None]).to(output.dtype.element_ty)
        tl.store(output + place[:, None] * VALUE_DIM + column[None, :], result, mask=mask)
    else:
        place = place * PARTS + part
        tl.store(parts + place[:, None] * VALUE_DIM + column[None, :], gathered, mask=mask)
        tl.store(peaks + place, peak, mask=is_member)
        tl.store(totals + place, total, mask=is_member)


@triton.jit
def _combine_kernel(
    output,
    parts,
    peaks,
    totals,
    kv_lengths,
    sinks,
    HEADS: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    VALUE_PAD: tl.constexpr,
    TILE: tl.constexpr,
    WINDOW: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    PARTS: tl.constexpr,
    LEAST: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    length = tl.load(kv_lengths + row)
    low, each = _bounds(length, WINDOW, PARTS, TILE, LEAST)
    part = tl.arange(0, PARTS)
    has_keys = low + part * each < length
    place = row * HEADS + head
    peak = tl.load(peaks + place * PARTS + part, mask=has_keys, other=LOWEST)
    total = tl.load(totals + place * PARTS + part, mask=has_keys, other=0.0)
    highest = tl.max(peak, 0)
    sink = LOWEST
    if HAS_SINKS:
        sink = tl.load(sinks + head).to(tl.float32) * LOG2_E
        highest = tl.maximum(highest, sink)
    weight = tl.exp2(peak - highest)
    whole = tl.sum(total * weight, 0)
    if HAS_SINKS:
        whole += tl.exp2(sink - highest)
    column = tl.arange(0, VALUE_PAD)
    gathered = tl.load(
        parts + (place * PARTS + part)[:, None] * VALUE_DIM + column[None, :],
        mask=has_keys[:, None] & (column < VALUE_DIM)[None, :],
        other=0.0,
    )
    result = tl.sum(gathered * weight[:, None], 0) / whole
    tl.store(output + place * VALUE_DIM + column, result.to(output.dtype.element_ty), mask=column < VALUE_DIM)


def decode(
    shape: Shape, query: Tensor, keys: Tensor, values: Tensor, tables: Tables, parts: int, output: Tensor
) -> None:
    """Attends for the first tokens of a step, one of each sequence.

    query: [tokens, heads, key_dim], the last stride 1; keys, values: [blocks, block_size, kv_heads, dim], contiguous;
    output: [tokens, heads, value_dim], contiguous.
    """
    rows, heads = tables.single_count, query.shape[1]
    _, block_size, kv_heads, key_dim = keys.shape
    value_dim, group = values.shape[3], heads // kv_heads
    window, softcap = shape.window or 0, shape.softcap or 0.0
    tile = key_tile(key_dim, value_dim, keys.element_size())
    partial, peaks, totals = output, output, output  # not used if there is one part
    if parts > 1:
        partial = torch.empty(rows, heads, parts, value_dim, dtype=torch.float32, device=output.device)
        peaks, totals = torch.empty(2, rows, heads, parts, dtype=torch.float32, device=output.device)
    sinks = output if shape.sinks is None else shape.sinks
    common = {
        "VALUE_DIM": value_dim,
        "VALUE_PAD": padded(value_dim),
        "TILE": tile,
        "WINDOW": window,
        "HAS_SINKS": shape.sinks is not None,
        "PARTS": parts,
        "LEAST": LEAST_PART,
        **FUSED,
    }
    _decode_kernel[(rows, kv_heads, parts)](
        query,
        keys,
        values,
        output,
        partial,
        peaks,
        totals,
        tables.blocks,
        tables.block_starts,
        tables.kv_lengths,
        sinks,
        float(shape.scale),
        float(softcap),
        query.stride(1),
        query.stride(0),
        KV_HEADS=kv_heads,
        GROUP=group,
        GROUP_PAD=padded(group),
        KEY_DIM=key_dim,
        KEY_PAD=padded(key_dim),
        BLOCK_SIZE=block_size,
        HAS_SOFTCAP=softcap > 0,
        num_stages=3,
        **common,
    )
    if parts > 1:
        _combine_kernel[(rows, heads)](output, partial, peaks, totals, tables.kv_lengths, sinks, HEADS=heads, **common)
