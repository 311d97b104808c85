// See simd.h. 4 lanes, as the compiler's own vectors, for every processor.

#define LANES 4
typedef float vec __attribute__((vector_size(16)));
typedef int32_t bits __attribute__((vector_size(16)));

INLINE vec chosen(bits is_first, vec a, vec b) { return (vec)((is_first & (bits)a) | (~is_first & (bits)b)); }

INLINE vec splat(float x) { return (vec){x, x, x, x}; }
INLINE vec fused(vec a, vec b, vec c) { return a * b + c; }
INLINE vec larger(vec a, vec b) { return chosen(a > b, a, b); }
INLINE vec smaller(vec a, vec b) { return chosen(a < b, a, b); }
INLINE vec magnitude(vec x) { return (vec)((bits)x & 0x7fffffff); }
INLINE vec rounded(vec x) { return (x + splat(0x1.8p23f)) - splat(0x1.8p23f); } // for |x| < 2^22
INLINE vec power_of_two(vec x) {
    x = chosen(x == x, x, splat(0)); // a NaN is no integer in C
    return (vec)(__builtin_convertvector(x + splat(127), bits) << 23);
}
INLINE vec where_less(vec a, vec b, vec yes, vec no) { return chosen(a < b, yes, no); }
INLINE float largest(vec x) {
    float a = x[0] > x[1] ? x[0] : x[1], b = x[2] > x[3] ? x[2] : x[3];
    return a > b ? a : b;
}
INLINE float total(vec x) { return (x[0] + x[2]) + (x[1] + x[3]); }

INLINE vec load_f32(const float *p) {
    vec x;
    memcpy(&x, p, sizeof x);
    return x;
}
INLINE void store_f32(float *p, vec x) { memcpy(p, &x, sizeof x); }
INLINE void store_first(float *p, vec x, int count) { memcpy(p, &x, count * sizeof *p); }

INLINE void transpose(vec x[LANES]) {
    vec a = x[0], b = x[1], c = x[2], d = x[3];
    for (int i = 0; i < LANES; i++) x[i] = (vec){a[i], b[i], c[i], d[i]};
}

INLINE vec load_bf16(const bf16 *p) {
    return (vec)(bits){p[0] << 16, p[1] << 16, p[2] << 16, p[3] << 16};
}
INLINE void store_bf16(bf16 *p, vec x) {
    for (int i = 0; i < LANES; i++) {
        union { float number; uint32_t bits; } y = {x[i]};
        p[i] = x[i] == x[i] ? (bf16)((y.bits + 0x7fff + (y.bits >> 16 & 1)) >> 16) : 0x7fc0;
    }
}

INLINE float wide_f16(f16 x) {
    union { uint32_t bits; float number; } y = {(uint32_t)(x & 0x7fff) << 13};
    int is_special = (x & 0x7c00) == 0x7c00;     // infinite, or a NaN
    y.number *= is_special ? 1.0f : 0x1p112f;    // by which subnormal numbers come out right too
    y.bits |= (is_special ? 0x7f800000u : 0) | (uint32_t)(x & 0x8000) << 16;
    return y.number;
}
INLINE f16 narrow_f16(float x) {
    union { float number; uint32_t bits; } y = {x}, sum;
    uint32_t sign = y.bits >> 16 & 0x8000;
    y.bits &= 0x7fffffff;
    if (y.bits > 0x7f800000) return (f16)(sign | 0x7e00);
    if (y.bits >= 0x477ff000) return (f16)(sign | 0x7c00);
    if (y.bits >= 0x38800000) return (f16)(sign | ((y.bits + 0xfff + (y.bits >> 13 & 1) - 0x38000000) >> 13));
    sum.number = y.number + 0.5f; // subnormal there: this rounds at the last bit that it has
    return (f16)(sign | (sum.bits - 0x3f000000));
}
INLINE vec load_f16(const f16 *p) { return (vec){wide_f16(p[0]), wide_f16(p[1]), wide_f16(p[2]), wide_f16(p[3])}; }
INLINE void store_f16(f16 *p, vec x) {
    for (int i = 0; i < LANES; i++) p[i] = narrow_f16(x[i]);
}
