// Products of a few rows of x with a panel of weights: each is one sum over the inputs, in order, in one accumulator.
#pragma once
#include "linear.h"

#define UNROLL _Pragma("GCC unroll 16")
#if LANES == 16 && (__GNUC__ >= 11 || __clang_major__ >= 9)
#define PAIRS __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"))) // two products at once
#if defined __x86_64__ && defined __linux__ && (__GNUC__ >= 11 || __clang_major__ >= 12)
#define TILES __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,amx-tile,amx-bf16"))) // 512 of them
#define DEEP 32 // inputs that a product of tiles takes in
#endif
#endif

#if LANES == 16
#define TALL 14 // rows of x that share one pass over a panel: their 2 * 14 sums fit in 32 registers
#else
#define TALL 6
#endif
#define WIDE (2 * LANES)  // columns of a panel
#ifdef TILES
#define TALLEST (2 * LANES) // rows that share a pass of tiles
#else
#define TALLEST TALL
#endif

// x: [inputs][rows]; panel: [inputs][WIDE]. Where inputs go in pairs: [inputs / 2][rows][2], [inputs / 2][WIDE][2]; and
// x for tiles: [inputs / DEEP][rows][DEEP].

#if LANES == 16
INLINE vec load_i8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
#elif LANES == 8
INLINE vec load_i8(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
#else
INLINE vec load_i8(const int8_t *p) { vec y; for (int i = 0; i < LANES; i++) y[i] = p[i]; return y; }
#endif

#define SUM(NAME, T, LOAD)                                                                                             \
    INLINE void NAME(const float *x, int rows, const T *panel, i64 inputs, i64 ahead, vec sums[][2]) {                 \
        vec s[TALL][2];                                                                                                \
        UNROLL for (int i = 0; i < rows; i++) s[i][0] = s[i][1] = splat(0);                                            \
        for (i64 k = 0; k < inputs; k++, panel += WIDE) {                                                              \
            for (int o = 0; o < WIDE * (int)sizeof(T); o += 64)                                                        \
                __builtin_prefetch((const char *)panel + ahead + o);                                                   \
            vec a = LOAD(panel), b = LOAD(panel + LANES);                                                              \
            UNROLL for (int i = 0; i < rows; i++) {                                                                    \
                vec y = splat(x[k * rows + i]);                                                                        \
                s[i][0] = fused(y, a, s[i][0]);                                                                        \
                s[i][1] = fused(y, b, s[i][1]);                                                                        \
            }                                                                                                          \
        }                                                                                                              \
        UNROLL for (int i = 0; i < rows; i++) sums[i][0] = s[i][0], sums[i][1] = s[i][1];                              \
    }

SUM(sum_f32, float, load_f32)
SUM(sum_bf16, bf16, load_bf16)
SUM(sum_f16, f16, load_f16)
SUM(sum_i8, int8_t, load_i8)

#ifdef PAIRS
INLINE PAIRS void sum_pairs(const float *x, int rows, const int32_t *panel, i64 inputs, i64 ahead, vec sums[][2]) {
    vec s[TALL][2];
    UNROLL for (int i = 0; i < rows; i++) s[i][0] = s[i][1] = _mm512_setzero_ps();
    for (i64 k = 0; k < inputs / 2; k++, panel += WIDE) {
        __builtin_prefetch((const char *)panel + ahead);
        __builtin_prefetch((const char *)panel + ahead + 64);
        __m512bh a = (__m512bh)_mm512_loadu_si512(panel), b = (__m512bh)_mm512_loadu_si512(panel + LANES);
        UNROLL for (int i = 0; i < rows; i++) {
            __m512bh y = (__m512bh)_mm512_set1_epi32(((const int32_t *)x)[k * rows + i]);
            s[i][0] = _mm512_dpbf16_ps(s[i][0], y, a);
            s[i][1] = _mm512_dpbf16_ps(s[i][1], y, b);
        }
    }
    UNROLL for (int i = 0; i < rows; i++) sums[i][0] = s[i][0], sums[i][1] = s[i][1];
}
#endif

// A pass adds up one panel for a few rows. Their count is a constant in each case, so that the sums stay in registers.
typedef void Pass(const float *x, int rows, const void *panel, i64 inputs, i64 ahead, vec sums[][2]);

#define CASE(SUM, N) case N: SUM(x, N, panel, inputs, ahead, sums); break;
#if TALL == 14
#define TALLER(SUM) \
    CASE(SUM, 7) CASE(SUM, 8) CASE(SUM, 9) CASE(SUM, 10) CASE(SUM, 11) CASE(SUM, 12) CASE(SUM, 13) CASE(SUM, 14)
#else
#define TALLER(SUM)
#endif
#define PASS(NAME, SUM)                                                                                                \
    static void NAME(const float *x, int rows, const void *panel, i64 inputs, i64 ahead, vec sums[][2]) {              \
        switch (rows) {                                                                                                \
            CASE(SUM, 1) CASE(SUM, 2) CASE(SUM, 3) CASE(SUM, 4) CASE(SUM, 5) CASE(SUM, 6) TALLER(SUM)                  \
        }                                                                                                              \
    }

PASS(pass_f32, sum_f32)
PASS(pass_bf16, sum_bf16)
PASS(pass_f16, sum_f16)
PASS(pass_i8, sum_i8)
#ifdef PAIRS
PAIRS PASS(pass_pairs, sum_pairs)
#endif

#ifdef TILES
struct shape {
    uint8_t palette, start;
    uint8_t reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
};

// Takes in DEEP inputs at a time; what they add up has an order of its own, the same for all rows.
TILES static void pass_tiles(const float *x, int rows, const void *panel, i64 inputs, i64 ahead, vec sums[][2]) {
    int low = rows < LANES ? rows : LANES, high = rows - low;
    // 0 and 1: sums of the first rows; 2 and 3: of the others; 4 and 5: these rows of x; 6 and 7: halves of the panel.
    int count[] = {low, low, high, high, low, high, DEEP / 2, DEEP / 2};
    struct shape shape = {.palette = 1};
    for (int tile = 0; tile < 8; tile++) shape.bytes[tile] = count[tile] ? 64 : 0, shape.rows[tile] = count[tile];
    __asm__ volatile("" ::: "memory"); // what follows reads all of it, and GCC knows of 8 bytes
    _tile_loadconfig(&shape);
    _tile_zero(0);
    _tile_zero(1);
    if (high) {
        _tile_zero(2);
        _tile_zero(3);
    }
    const int32_t *from = panel;
    for (i64 k = 0; k < inputs; k += DEEP, from += DEEP / 2 * WIDE, x += rows * DEEP / 2) {
        for (int o = 0; o < DEEP / 2 * WIDE * 4; o += 64) __builtin_prefetch((const char *)from + ahead + o);
        _tile_loadd(6, from, WIDE * 4);
        _tile_loadd(7, from + LANES, WIDE * 4);
        _tile_loadd(4, x, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (high) {
            _tile_loadd(5, x + low * DEEP / 2, 64);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, &sums[0][0], sizeof *sums);
    _tile_stored(1, &sums[0][1], sizeof *sums);
    if (high) {
        _tile_stored(2, &sums[low][0], sizeof *sums);
        _tile_stored(3, &sums[low][1], sizeof *sums);
    }
}

// Else the kernel would save and restore them at every change of threads.
TILES static void release_tiles(void) { _tile_release(); }
#endif
