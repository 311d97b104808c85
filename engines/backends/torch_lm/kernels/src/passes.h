// Products of a few rows of x with a panel of weights: each is one sum over the inputs, in order, in one accumulator.
#pragma once
#include "linear.h"

#define UNROLL _Pragma("GCC unroll 16")
#if LANES == 16 && (__GNUC__ >= 11 || __clang_major__ >= 9)
#define PAIRS __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"))) // two products at once
#endif

#if LANES == 16
#define TALL 14 // rows of x that share one pass over a panel: their 2 * 14 sums fit in 32 registers
#else
#define TALL 6
#endif
#define WIDE (2 * LANES)  // columns of a panel

// x: [inputs][rows]; panel: [inputs][WIDE]. Where inputs go in pairs: [inputs / 2][rows][2], [inputs / 2][WIDE][2].

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
