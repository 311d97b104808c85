// Lays out rows of x as passes read them: what the rows of one pass have of an input stands together.
#pragma once
#include "passes.h"

INLINE int has_pairs(const Linear *l) { return l->kind == BFLOAT16 && linear_has_pairs(); }

INLINE int has_tiles(const Linear *l) { return l->kind == BFLOAT16 && linear_has_tiles(); }

INLINE i64 padded_inputs(const Linear *l) {
#ifdef TILES
    if (has_tiles(l)) return (l->inputs + DEEP - 1) / DEEP * DEEP;
#endif
    return has_pairs(l) ? (l->inputs + 1) / 2 * 2 : l->inputs;
}

static float root_mean_square(const Linear *l, const void *x) {
    vec squares = splat(0);
    for (i64 k = 0; k < l->inputs; k += LANES) {
        vec v = load_some(l->dtype, x, k, l->inputs - k);
        squares = fused(v, v, squares);
    }
    return sqrtf(total(squares) / l->inputs + l->eps);
}

INLINE vec normed(const Linear *l, const void *x, vec scale, i64 k) {
    vec v = load_some(l->dtype, x, k, l->inputs - k);
    if (l->norm) v = v * scale * load_some(FLOAT32, l->norm, k, l->inputs - k);
    return v;
}

#ifdef PAIRS
// Returns LANES pairs of inputs from `k` on.
INLINE vec pairs(const Linear *l, const void *x, vec scale, i64 k) {
    bf16 some[2 * LANES] = {0};
    if (!l->norm) {
        i64 left = l->inputs - k;
        if (left >= 2 * LANES) return load_f32((const float *)((const bf16 *)x + k));
        memcpy(some, (const bf16 *)x + k, left * sizeof *some);
        return load_f32((const float *)some);
    }
    store_bf16(some, normed(l, x, scale, k));
    __m256i low = _mm256_loadu_si256((const __m256i *)some), high = _mm256_setzero_si256();
    if (k + LANES < l->inputs) {
        store_bf16(some + LANES, normed(l, x, scale, k + LANES));
        high = _mm256_loadu_si256((const __m256i *)(some + LANES));
    }
    return _mm512_castsi512_ps(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
}
#endif

// Returns LANES words of a row that is laid out: inputs, normed if need be, or pairs of them.
INLINE vec words(const Linear *l, const void *x, vec scale, i64 word, int is_paired) {
#ifdef PAIRS
    if (is_paired) return pairs(l, x, scale, 2 * word);
#endif
    return normed(l, x, scale, word);
}

// Lays out the rows that share a pass, from word `first` up to `end`: what they have of one input stands together; for
// tiles, what they have of DEEP inputs.
static void lay_out(const Linear *l, const void *const *x, i64 rows, float *to, i64 first, i64 end) {
    int is_paired = has_pairs(l);
    vec scale[TALLEST];
    for (i64 i = 0; i < rows; i++) scale[i] = splat(l->norm ? 1 / root_mean_square(l, x[i]) : 1);
    if (rows == 1 || has_tiles(l)) {
        for (i64 i = 0; i < rows; i++)
            for (i64 word = first; word < end; word += LANES)
                store_first(to + word * rows + i * LANES, words(l, x[i], scale[i], word, is_paired),
                            end - word < LANES ? end - word : LANES);
        return;
    }
    for (i64 word = first; word < end; word += LANES)
        for (i64 i = 0; i < rows; i += LANES) { // more than once where TALL > LANES
            int count = rows - i < LANES ? rows - i : LANES;
            vec v[LANES];
            for (int j = 0; j < LANES; j++)
                v[j] = j < count ? words(l, x[i + j], scale[i + j], word, is_paired) : splat(0);
            transpose(v);
            for (i64 j = 0; j < LANES && word + j < end; j++) store_first(to + (word + j) * rows + i, v[j], count);
        }
}
