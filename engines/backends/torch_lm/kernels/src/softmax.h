// The running softmax of one row, over chunks and then over splits of its context. In powers of two throughout.
#pragma once
#include "functions.h"
#include "layer.h"

#define CHUNK 64  // positions whose weights are computed together
#define SPLIT 512 // positions that may be summed apart from others; a multiple of CHUNK
#define TILE 96   // rows, each a query of one head, that read the same keys and values together
#define BAND 6    // rows whose sums fit in registers, COLUMNS vectors of each
#if LANES == 16
#define COLUMNS 4
#else
#define COLUMNS 2
#endif
// Vectors that are summed at once: more where rows are few, so that none waits for its own last sum.
#define KEY_COLUMNS(rows) ((rows) > 2 ? COLUMNS : 2 * COLUMNS < CHUNK / LANES ? 2 * COLUMNS : CHUNK / LANES)
#define VALUE_COLUMNS(rows) ((rows) > 2 ? COLUMNS : 2 * COLUMNS)
#define UNROLL _Pragma("GCC unroll 8")

// Σ_j 2^(score_j - peak) * value_j over some positions j, and Σ_j 2^(score_j - peak) by lane.
struct part {
    float *sums;    // [rows, dim]
    float *weights; // [rows, LANES]
    float *peaks;   // [rows]
};

// An empty row, or one of infinitely small scores, has the peak -inf, and nothing may be taken from that.
INLINE float base(float peak) { return peak == -INFINITY ? 0 : peak; }
INLINE float power(float x) { return vexp2(splat(x))[0]; }

INLINE void scale_row(struct part *part, i64 row, i64 dim, float factor) {
    float *weights = part->weights + row * LANES, *sums = part->sums + row * dim;
    store_f32(weights, load_f32(weights) * splat(factor));
    for (i64 d = 0; d < dim; d += LANES) store_f32(sums + d, load_f32(sums + d) * splat(factor));
}

// Turns the scores in [from, to) of a chunk into weights, and counts them in. Those beside them become 0 or stay.
// A NaN is left out of the peak, so it comes through: its weight is one, and the row's sum.
INLINE void weigh(float *scores, i64 from, i64 to, float scale, float softcap, struct part *part, i64 row, i64 dim) {
    vec highest = splat(-INFINITY), lane = splat(0);
    for (int i = 0; i < LANES; i++) lane[i] = (float)i;
    i64 first = from / LANES * LANES;
    for (i64 j = first; j < to; j += LANES) {
        vec score = load_f32(scores + j) * splat(scale);
        if (softcap > 0) score = vtanh(score) * splat(softcap);
        if (j < from) score = where_less(lane, splat((float)(from - j)), splat(-INFINITY), score);
        if (j + LANES > to) score = where_less(lane, splat((float)(to - j)), score, splat(-INFINITY));
        highest = larger(score, highest);
        store_f32(scores + j, score);
    }
    float before = part->peaks[row], peak = largest(larger(highest, splat(before)));
    if (peak > before) {
        scale_row(part, row, dim, power(before - peak));
        part->peaks[row] = peak;
    }
    vec sum = load_f32(part->weights + row * LANES);
    for (i64 j = first; j < to; j += LANES) {
        vec weight = vexp2(load_f32(scores + j) - splat(base(peak)));
        sum = sum + weight;
        store_f32(scores + j, weight);
    }
    store_f32(part->weights + row * LANES, sum);
}

// Adds what one row of `part` has seen to `whole`.
INLINE void merge(struct part *whole, const struct part *part, i64 row, i64 dim) {
    float peak = whole->peaks[row] > part->peaks[row] ? whole->peaks[row] : part->peaks[row];
    vec old = splat(power(whole->peaks[row] - base(peak))), new = splat(power(part->peaks[row] - base(peak)));
    whole->peaks[row] = peak;
    float *weights = whole->weights + row * LANES, *sums = whole->sums + row * dim;
    const float *more_weights = part->weights + row * LANES, *more_sums = part->sums + row * dim;
    store_f32(weights, load_f32(weights) * old + load_f32(more_weights) * new);
    for (i64 d = 0; d < dim; d += LANES) store_f32(sums + d, load_f32(sums + d) * old + load_f32(more_sums + d) * new);
}

// Lets a logit take its share of a row's weight.
INLINE void sink(struct part *whole, i64 row, i64 dim, float logit) {
    float before = whole->peaks[row], peak = before > logit ? before : logit;
    scale_row(whole, row, dim, power(before - base(peak)));
    whole->peaks[row] = peak;
    whole->weights[row * LANES] += power(logit - base(peak));
}
