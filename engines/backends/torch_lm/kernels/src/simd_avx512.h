// See simd.h. 16 lanes.
#include <immintrin.h>

#define LANES 16
typedef __m512 vec;

INLINE vec splat(float x) { return _mm512_set1_ps(x); }
INLINE vec fused(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vec larger(vec a, vec b) { return _mm512_max_ps(a, b); }
INLINE vec smaller(vec a, vec b) { return _mm512_min_ps(a, b); }
INLINE vec magnitude(vec x) { return _mm512_abs_ps(x); }
INLINE vec rounded(vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vec power_of_two(vec x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtps_epi32(x + splat(127)), 23));
}
INLINE vec where_less(vec a, vec b, vec yes, vec no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
INLINE float largest(vec x) { return _mm512_reduce_max_ps(x); }
INLINE float total(vec x) { return _mm512_reduce_add_ps(x); }

INLINE vec load_f32(const float *p) { return _mm512_loadu_ps(p); }
INLINE void store_f32(float *p, vec x) { _mm512_storeu_ps(p, x); }
INLINE void store_first(float *p, vec x, int count) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1), x); }

INLINE void transpose(vec x[LANES]) {
    __m512d y[LANES];
    for (int i = 0; i < LANES; i += 4) { // 4 x 4 within each quarter
        vec a = _mm512_unpacklo_ps(x[i], x[i + 1]), b = _mm512_unpackhi_ps(x[i], x[i + 1]);
        vec c = _mm512_unpacklo_ps(x[i + 2], x[i + 3]), d = _mm512_unpackhi_ps(x[i + 2], x[i + 3]);
        y[i] = _mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(c));
        y[i + 1] = _mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(c));
        y[i + 2] = _mm512_unpacklo_pd(_mm512_castps_pd(b), _mm512_castps_pd(d));
        y[i + 3] = _mm512_unpackhi_pd(_mm512_castps_pd(b), _mm512_castps_pd(d));
    }
    for (int i = 0; i < 4; i++) { // then the quarters
        __m512d a = _mm512_shuffle_f64x2(y[i], y[i + 4], 0x88), b = _mm512_shuffle_f64x2(y[i], y[i + 4], 0xdd);
        __m512d c = _mm512_shuffle_f64x2(y[i + 8], y[i + 12], 0x88);
        __m512d d = _mm512_shuffle_f64x2(y[i + 8], y[i + 12], 0xdd);
        x[i] = _mm512_castpd_ps(_mm512_shuffle_f64x2(a, c, 0x88));
        x[i + 4] = _mm512_castpd_ps(_mm512_shuffle_f64x2(b, d, 0x88));
        x[i + 8] = _mm512_castpd_ps(_mm512_shuffle_f64x2(a, c, 0xdd));
        x[i + 12] = _mm512_castpd_ps(_mm512_shuffle_f64x2(b, d, 0xdd));
    }
}

INLINE vec load_bf16(const bf16 *p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
INLINE void store_bf16(bf16 *p, vec x) {
    __m512i bits = _mm512_castps_si512(x), nan = _mm512_set1_epi32(0x7fc00000);
    __m512i is_odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i near = _mm512_add_epi32(bits, _mm512_add_epi32(is_odd, _mm512_set1_epi32(0x7fff)));
    near = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), near, nan);
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(near, 16)));
}

INLINE float wide_f16(f16 x) { return _cvtsh_ss(x); }
INLINE vec load_f16(const f16 *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE void store_f16(f16 *p, vec x) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
