"""A tile of keys and values taken into a running softmax: the arithmetic that decode and prefill share.

The softmax runs in float32 and to the base 2. `peak` is the largest score so far, `total` the sum of the weights
relative to it, `output` the values weighted so: [queries], [queries], [queries, value dim].
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: N803
# Triton compiles what is decorated: there are neither types nor calls of Python there, and constants are in capitals.

import triton
import triton.language as tl

LOWEST = tl.constexpr(-1e30)  # a score below all others; unlike an infinity it can be subtracted from itself
LOG2_E = tl.constexpr(1.4426950408889634)
_IS_INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def absorb(
    query,  # [queries, padded dim]
    positions,  # [queries]
    begin,  # of the tile
    end,  # of the keys that are there
    blocks,  # pointer to the first block of the sequence
    keys,
    values,
    kv_head,
    peak,
    total,
    output,
    scale,
    softcap,
    KV_HEADS: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    KEY_PAD: tl.constexpr,
    VALUE_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    WINDOW: tl.constexpr,  # 0: none
    HAS_SOFTCAP: tl.constexpr,
):
    """Returns peak, total and output with the keys at positions `begin` and on."""
    places = begin + tl.arange(0, TILE)
    is_there = places < end
    # What is not there is not read: whatever another sequence left in a block, not even a NaN of it comes in.
    block = tl.load(blocks + places // BLOCK_SIZE, mask=is_there, other=0).to(tl.int64)
    slots = (block * BLOCK_SIZE + places % BLOCK_SIZE) * KV_HEADS + kv_head
    column = tl.arange(0, KEY_PAD)
    seen_keys = tl.load(
        keys + slots[:, None] * KEY_DIM + column[None, :],
        mask=is_there[:, None] & (column < KEY_DIM)[None, :],
        other=0.0,
    )
    scores = _product(query, tl.trans(seen_keys)) * scale
    if HAS_SOFTCAP:
        scores = softcap * (2.0 * tl.sigmoid(2.0 * scores / softcap) - 1.0)  # tanh
    is_seen = is_there[None, :] & (places[None, :] <= positions[:, None])
    if WINDOW > 0:
        is_seen = is_seen & (places[None, :] > positions[:, None] - WINDOW)
    scores = tl.where(is_seen, scores * LOG2_E, LOWEST)
    new_peak = tl.maximum(peak, tl.max(scores, 1))
    shrink = tl.exp2(peak - new_peak)
    weights = tl.where(is_seen, tl.exp2(scores - new_peak[:, None]), 0.0)
    column = tl.arange(0, VALUE_PAD)
    seen_values = tl.load(
        values + slots[:, None] * VALUE_DIM + column[None, :],
        mask=is_there[:, None] & (column < VALUE_DIM)[None, :],
        other=0.0,
    )
    gained = _product(weights.to(seen_values.dtype), seen_values)
    return new_peak, total * shrink + tl.sum(weights, 1), output * shrink[:, None] + gained


@triton.jit
def with_sinks(peak, total, output, sinks):
    """Returns total and output with one more logit for each query, which takes weight and gives nothing."""
    sinks = sinks * LOG2_E
    new_peak = tl.maximum(peak, sinks)
    shrink = tl.exp2(peak - new_peak)
    return total * shrink + tl.exp2(sinks - new_peak), output * shrink[:, None]


@triton.jit
def _product(left, right):
    if _IS_INTERPRETED:  # the interpreter would multiply the bits of bfloat16 as whole numbers
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    return tl.dot(left, right, input_precision="ieee")  # float32 is not rounded to TF32
