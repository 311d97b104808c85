// Vectors of LANES floats, by the widest instructions that this is compiled for. Each lane is rounded as a scalar is.
//
// fused(a, b, c)      a * b + c, in one rounding where there is an instruction for it. The compiler must not choose
//                     where (-ffp-contract=off), or the same sum would be two numbers in two places.
// larger, smaller     b if a or b is a NaN, as x86 has it
// rounded             to the next whole number, to even from halfway
// power_of_two(x)     2^x for whole x in [-127, 128]: 0 for the least, infinite for the largest; anything for a NaN
// where_less          by lane, a < b ? yes : no
// total, largest      of all lanes, joined in one order
// store_first         the first `count` lanes, 0 to LANES
// transpose           lane j of vector i to lane i of vector j
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef int64_t i64;
typedef uint16_t bf16; // the upper half of a float
typedef uint16_t f16;  // IEEE 754 binary16
#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#include "simd_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "simd_avx2.h"
#else
#include "simd_generic.h"
#endif

INLINE float wide_f32(float x) { return x; }
INLINE float wide_bf16(bf16 x) {
    union { uint32_t bits; float number; } y = {(uint32_t)x << 16};
    return y.number;
}
