// Asks for memory before it is read. A block is often a page or less, where the processor's own guesses end.
#pragma once
#include "layer.h"

// Pieces of so many bytes, of which every step asks for some lines.
struct ahead {
    const char *const *pieces, *at, *end;
    i64 count, bytes, step;
};

INLINE void ask(struct ahead *ahead) {
    if (!ahead->count) return;
    for (i64 b = 0; b < ahead->step; b += 64) __builtin_prefetch(ahead->at + b, 0, 2);
    ahead->at += ahead->step;
    if (ahead->at >= ahead->end && --ahead->count) {
        ahead->at = *++ahead->pieces;
        ahead->end = ahead->at + ahead->bytes;
    }
}

// Spreads so many pieces over so many steps.
INLINE struct ahead spread(const char *const *pieces, i64 count, i64 bytes, i64 steps) {
    if (!count) return (struct ahead){0};
    return (struct ahead){pieces, *pieces, *pieces + bytes, count, bytes, (count * bytes / steps + 63) / 64 * 64};
}
