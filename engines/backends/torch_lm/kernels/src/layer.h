// What Python hands over. The same fields in the same order stand in native.py and rows.py.
#pragma once
#include "simd.h"

// A layer's cache. Keys lie across, so that what one query is multiplied with lies side by side; values lie along.
// Dimension d of what is kept for a head in a slot (block, offset) is at
//     keys[block * key_block + head * key_head + d * block_size + offset]
//     values[block * value_block + head * value_head + offset * value_dim + d]
struct layer {
    void *keys, *values;
    const float *sinks; // by head, or null
    i64 key_block, key_head, value_block, value_head;
    i64 block_size, heads, kv_heads, key_dim, value_dim;
    i64 window; // positions that a query sees, its own among them; 0 for all before it
    float scale, softcap; // 0 for no cap
};

// Row i has the tokens [starts[i], starts[i + 1]), the last of its lengths[i] positions. blocks: [count, width].
struct rows {
    const int32_t *blocks, *starts, *lengths;
    const i64 *slots; // by token
    i64 width, count;
};

// How heads are turned before they are kept. cos, sin: [tokens, half], with a step between tokens.
struct turning {
    const float *cos, *sin;
    const void *query_weight, *key_weight; // [key_dim], or null for no norm
    i64 step, half, is_float;              // whether the weights are floats; else they are like the rest
    float eps, offset;
};

INLINE i64 min(i64 a, i64 b) { return a < b ? a : b; }
INLINE i64 max(i64 a, i64 b) { return a > b ? a : b; }
