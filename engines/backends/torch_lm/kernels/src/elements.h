// Numbers of a type that is known when the program runs.
#pragma once
#include "simd.h"

enum { FLOAT32, BFLOAT16, FLOAT16, INT8 };

INLINE i64 size_of(int kind) { return kind == FLOAT32 ? 4 : kind == INT8 ? 1 : 2; }

INLINE vec load_as(int dtype, const void *p) {
    return dtype == FLOAT32 ? load_f32(p) : dtype == BFLOAT16 ? load_bf16(p) : load_f16(p);
}

INLINE void store_as(int dtype, void *p, vec x) {
    if (dtype == FLOAT32) store_f32(p, x);
    else if (dtype == BFLOAT16) store_bf16(p, x);
    else store_f16(p, x);
}

// The first `count` numbers, and zeros behind them.
INLINE vec load_some(int dtype, const void *p, i64 at, i64 count) {
    const char *from = (const char *)p + at * size_of(dtype);
    if (count >= LANES) return load_as(dtype, from);
    char part[4 * LANES] = {0};
    memcpy(part, from, count * size_of(dtype));
    return load_as(dtype, part);
}

INLINE void store_some(int dtype, void *p, i64 at, i64 count, vec x) {
    char *to = (char *)p + at * size_of(dtype), part[4 * LANES];
    store_as(dtype, count >= LANES ? to : part, x);
    if (count < LANES) memcpy(to, part, count * size_of(dtype));
}
