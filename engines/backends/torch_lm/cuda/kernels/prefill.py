"""Several queries of each sequence, the last of its positions: prompts and chunks of them.

A program has a tile of queries for a few heads that share keys. The tiles are listed before the step begins, so none
is empty.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: N803

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from engines.backends.torch_lm.attention import Shape
from engines.backends.torch_lm.cuda.kernels.sizes import FUSED, QUERY_TILE, heads_together, key_tile, padded
from engines.backends.torch_lm.cuda.kernels.tile import LOWEST, absorb, with_sinks
from engines.backends.torch_lm.cuda.tables import Tables


@triton.jit
def _prefill_kernel(
    query,
    keys,
    values,
    output,
    blocks,
    block_starts,
    kv_lengths,
    query_starts,
    tile_sequences,
    tile_begins,
    sinks,
    scale,
    softcap,
    query_head_stride,
    query_token_stride,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    KEY_PAD: tl.constexpr,
    VALUE_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    QUERIES: tl.constexpr,
    TOGETHER: tl.constexpr,
    TILE: tl.constexpr,
    WINDOW: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_SINKS: tl.constexpr,
):
    sequence = tl.load(tile_sequences + tl.program_id(0))
    begin = tl.load(tile_begins + tl.program_id(0))
    kv_head = tl.program_id(1)
    first = tl.load(query_starts + sequence)
    count = tl.load(query_starts + sequence + 1) - first
    computed = tl.load(kv_lengths + sequence) - count
    place = tl.arange(0, QUERIES * TOGETHER)
    offset = begin + place // TOGETHER
    member = tl.program_id(2) * TOGETHER + place % TOGETHER
    is_asked = (offset < count) & (member < GROUP)
    head = kv_head * GROUP + member
    token = (first + offset).to(tl.int64)
    column = tl.arange(0, KEY_PAD)
    asked = tl.load(
        query + (token * query_token_stride + head * query_head_stride)[:, None] + column[None, :],
        mask=is_asked[:, None] & (column < KEY_DIM)[None, :],
        other=0.0,
    )
    positions = computed + offset
    peak = tl.full([QUERIES * TOGETHER], LOWEST, tl.float32)
    total = tl.zeros([QUERIES * TOGETHER], tl.float32)
    gathered = tl.zeros([QUERIES * TOGETHER, VALUE_PAD], tl.float32)
    low = computed * 0
    if WINDOW > 0:
        low = tl.maximum(computed + begin - WINDOW + 1, 0) // TILE * TILE
    end = computed + tl.minimum(begin + QUERIES, count)
    own_blocks = blocks + tl.load(block_starts + sequence)
    for start in range(low, end, TILE):
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
    if HAS_SINKS:
        logits = tl.load(sinks + head, mask=is_asked, other=0.0).to(tl.float32)
        total, gathered = with_sinks(peak, total, gathered, logits)
    column = tl.arange(0, VALUE_PAD)
    target = (token * KV_HEADS * GROUP + head)[:, None] * VALUE_DIM + column[None, :]
    result = gathered / tl.where(is_asked, total, 1.0)[:, None]  # a query that is none may have seen nothing
    mask = is_asked[:, None] & (column < VALUE_DIM)[None, :]
    tl.store(output + target, result.to(output.dtype.element_ty), mask=mask)


def prefill(shape: Shape, query: Tensor, keys: Tensor, values: Tensor, tables: Tables, output: Tensor) -> None:
    """Attends for the sequences that have tiles.

    query: [tokens, heads, key_dim], the last stride 1; keys, values: [blocks, block_size, kv_heads, dim], contiguous;
    output: [tokens, heads, value_dim], contiguous.
    """
    heads = query.shape[1]
    _, block_size, kv_heads, key_dim = keys.shape
    value_dim, group = values.shape[3], heads // kv_heads
    together = heads_together(group, max(key_dim, value_dim), keys.element_size())
    _prefill_kernel[(len(tables.tile_sequences), kv_heads, triton.cdiv(group, together))](
        query,
        keys,
        values,
        output,
        tables.blocks,
        tables.block_starts,
        tables.kv_lengths,
        tables.query_starts,
        tables.tile_sequences,
        tables.tile_begins,
        output if shape.sinks is None else shape.sinks,
        float(shape.scale),
        float(shape.softcap or 0.0),
        query.stride(1),
        query.stride(0),
        KV_HEADS=kv_heads,
        GROUP=group,
        KEY_DIM=key_dim,
        VALUE_DIM=value_dim,
        KEY_PAD=padded(key_dim),
        VALUE_PAD=padded(value_dim),
        BLOCK_SIZE=block_size,
        QUERIES=QUERY_TILE,
        TOGETHER=together,
        TILE=key_tile(key_dim, value_dim, keys.element_size()),
        WINDOW=shape.window or 0,
        HAS_SOFTCAP=shape.softcap is not None,
        HAS_SINKS=shape.sinks is not None,
        num_warps=8,
        **FUSED,
    )
