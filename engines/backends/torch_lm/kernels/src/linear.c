// Linear layers: y = f(norm(x) W' + b), with W packed once into panels of columns.
//
// Each number of y is one sum over the inputs, in order and in one accumulator, whatever the count of rows and threads:
// a row gives the same bits alone and among others.
#include "linear.h"

#include "functions.h"
#include "scratch.h"
#include "team.h"

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
#define AHEAD (16 << 10)  // bytes from what is computed to what is fetched: 4 and 8 KiB were slower on Zen 5
#define FLOCK 10          // passes over a panel while it, and their rows of x, are in a core's cache
#define SHORT (1 << 21)   // of effort: about 10 µs, in which a second thread would hardly have begun
#define LONG (1 << 23)    // about 40 µs, for which one may be woken

// --------------------------------------------------------------------------------------------------------- sums
// x: [inputs][rows]; panel: [inputs][WIDE]. Where inputs go in pairs: [inputs / 2][rows][2], [inputs / 2][WIDE][2].

#if LANES == 16
INLINE vec load_i8(const int8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p))); }
#elif LANES == 8
INLINE vec load_i8(const int8_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p))); }
#else
INLINE vec load_i8(const int8_t *p) { vec y; for (int i = 0; i < LANES; i++) y[i] = p[i]; return y; }
#endif

#define SUM(NAME, T, LOAD)                                                                                             \
    INLINE void NAME(const float *x, int rows, const T *panel, i64 inputs, vec sums[][2]) {                            \
        vec s[TALL][2];                                                                                                \
        UNROLL for (int i = 0; i < rows; i++) s[i][0] = s[i][1] = splat(0);                                            \
        for (i64 k = 0; k < inputs; k++, panel += WIDE) {                                                              \
            for (int o = 0; o < WIDE * (int)sizeof(T); o += 64)                                                        \
                __builtin_prefetch((const char *)panel + AHEAD + o);                                                   \
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
INLINE PAIRS void sum_pairs(const float *x, int rows, const int32_t *panel, i64 inputs, vec sums[][2]) {
    vec s[TALL][2];
    UNROLL for (int i = 0; i < rows; i++) s[i][0] = s[i][1] = _mm512_setzero_ps();
    for (i64 k = 0; k < inputs / 2; k++, panel += WIDE) {
        __builtin_prefetch((const char *)panel + AHEAD);
        __builtin_prefetch((const char *)panel + AHEAD + 64);
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
typedef void Pass(const float *x, int rows, const void *panel, i64 inputs, vec sums[][2]);

#define CASE(SUM, N) case N: SUM(x, N, panel, inputs, sums); break;
#if TALL == 14
#define TALLER(SUM) CASE(SUM, 7) CASE(SUM, 8) CASE(SUM, 9) CASE(SUM, 10) CASE(SUM, 11) CASE(SUM, 12) CASE(SUM, 13) CASE(SUM, 14)
#else
#define TALLER(SUM)
#endif
#define PASS(NAME, SUM)                                                                                                \
    static void NAME(const float *x, int rows, const void *panel, i64 inputs, vec sums[][2]) {                         \
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

// ------------------------------------------------------------------------------------------------------ packing

int linear_has_pairs(void) {
#ifdef PAIRS
    return __builtin_cpu_supports("avx512bf16") != 0;
#else
    return 0;
#endif
}

INLINE int has_pairs(const Linear *l) { return l->kind == BFLOAT16 && linear_has_pairs(); }

INLINE i64 padded_inputs(const Linear *l) { return has_pairs(l) ? (l->inputs + 1) / 2 * 2 : l->inputs; }
INLINE i64 panel_bytes(const Linear *l) { return padded_inputs(l) * WIDE * size_of(l->kind); }
INLINE i64 columns_of(const Linear *l) { return l->gate ? l->outputs / 2 : l->outputs; } // of y
INLINE i64 panel_columns(const Linear *l) { return l->gate ? LANES : WIDE; }            // of y that a panel gives

static i64 panel_count(const Linear *l) { return (columns_of(l) + panel_columns(l) - 1) / panel_columns(l); }

// Returns which output stands in a column, or -1. A panel has gates and, behind them, their ups.
INLINE i64 output_of(const Linear *l, i64 panel, int column) {
    i64 y = panel * panel_columns(l) + (l->gate ? column % LANES : column);
    if (y >= columns_of(l)) return -1;
    return l->gate && column >= LANES ? columns_of(l) + y : y;
}

i64 linear_bytes(const Linear *l) { return panel_count(l) * panel_bytes(l); }

struct packing {
    const Linear *l;
    const char *weights;
};

static void pack_panels(void *context, i64 first, i64 end) {
    const struct packing *it = context;
    const Linear *l = it->l;
    i64 group = has_pairs(l) ? 2 : 1, size = size_of(l->kind);
    for (i64 p = first; p < end; p++) {
        char *panel = (char *)l->panels + p * panel_bytes(l);
        memset(panel, 0, panel_bytes(l));
        for (int column = 0; column < WIDE; column++) {
            i64 output = output_of(l, p, column);
            if (output < 0) continue;
            const char *from = it->weights + output * l->inputs * size;
            for (i64 k = 0; k < l->inputs; k++)
                memcpy(panel + ((k / group * WIDE + column) * group + k % group) * size, from + k * size, size);
        }
    }
}

void linear_pack(const Linear *l, const void *weights, int threads) {
    struct packing it = {l, weights};
    team(panel_count(l), 1, pack_panels, &it, threads, 1);
}

// --------------------------------------------------------------------------------------------------- in and out

static float root_mean_square(const Linear *l, const void *x) {
    vec squares = splat(0);
    for (i64 k = 0; k < l->inputs; k += LANES) {
        vec v = load_some(l->dtype, x, k, l->inputs - k);
        squares = fused(v, v, squares);
    }
    return sqrtf(total(squares) / l->inputs + l->eps);
}

// Lays a row out, normed if need be, as row i of those that share a pass.
static void lay_out(const Linear *l, const void *x, float *to, i64 rows, i64 i) {
    vec scale = splat(l->norm ? 1 / root_mean_square(l, x) : 1);
    int is_paired = has_pairs(l);
    for (i64 k = 0; k < l->inputs; k += LANES) {
        vec v = load_some(l->dtype, x, k, l->inputs - k);
        if (l->norm) v = v * scale * load_some(FLOAT32, l->norm, k, l->inputs - k);
        int count = l->inputs - k < LANES ? l->inputs - k : LANES;
        float parts[LANES];
        if (is_paired) {
            store_bf16((bf16 *)parts, v);
            for (int j = 0; j < (count + 1) / 2; j++) memcpy(to + (k / 2 + j) * rows + i, parts + j, sizeof *to);
        } else {
            store_f32(parts, v);
            for (int j = 0; j < count; j++) to[(k + j) * rows + i] = parts[j];
        }
    }
}

// Writes what a pass has added up to rows of y, of `stride` numbers each.
static void finish(const Linear *l, vec sums[][2], int rows, i64 panel, void *y, i64 stride, int adds) {
    int dtype = l->is_wide ? FLOAT32 : l->dtype, gate = l->gate;
    i64 columns = columns_of(l), first = panel * panel_columns(l);
    for (int i = 0; i < rows; i++)
        for (int half = 0; half < (gate ? 1 : 2); half++) {
            i64 column = first + half * LANES, count = columns - column;
            if (count <= 0) break;
            vec v = sums[i][half];
            if (l->scale) v = v * load_some(FLOAT32, l->scale, column, count);
            if (l->bias) v = v + load_some(FLOAT32, l->bias, column, count);
            if (gate) {
                vec up = sums[i][1];
                if (l->scale) up = up * load_some(FLOAT32, l->scale, columns + column, count);
                if (l->bias) up = up + load_some(FLOAT32, l->bias, columns + column, count);
                v = (gate == SILU ? silu(v) : gelu_tanh(v)) * up;
            }
            if (adds) v = v + load_some(dtype, y, i * stride + column, count);
            store_some(dtype, y, i * stride + column, count, v);
        }
}

// ---------------------------------------------------------------------------------------------------------- all

struct product {
    const Linear *l;
    const char *x;
    char *y;
    const i64 *from;
    float *laid_out;
    i64 x_stride, y_stride, rows, passes, panels, inputs, width; // width: of a row that is laid out
    int adds;
};

INLINE i64 first_row(const struct product *it, i64 pass) { return it->rows * pass / it->passes; }

static void lay_out_rows(void *context, i64 first, i64 end) {
    const struct product *it = context;
    for (i64 row = first; row < end; row++) {
        i64 pass = ((row + 1) * it->passes - 1) / it->rows, start = first_row(it, pass);
        const char *x = it->x + (it->from ? it->from[row] : row) * it->x_stride * size_of(it->l->dtype);
        lay_out(it->l, x, it->laid_out + start * it->width, first_row(it, pass + 1) - start, row - start);
    }
}

static void add_up_panels(void *context, i64 first, i64 end) {
    const struct product *it = context;
    const Linear *l = it->l;
    Pass *const passes_by_kind[] = {pass_f32, pass_bf16, pass_f16, pass_i8};
    Pass *pass = passes_by_kind[l->kind];
#ifdef PAIRS
    if (has_pairs(l)) pass = pass_pairs;
#endif
    i64 y_size = l->is_wide ? 4 : size_of(l->dtype);
    for (i64 i = first; i < end; i++) {
        i64 flock = i / it->panels, panel = i % it->panels;
        for (i64 p = flock * FLOCK; p < it->passes && p < (flock + 1) * FLOCK; p++) {
            i64 start = first_row(it, p), count = first_row(it, p + 1) - start;
            vec sums[TALL][2];
            const char *columns = (char *)l->panels + panel * panel_bytes(l);
            pass(it->laid_out + start * it->width, count, columns, it->inputs, sums);
            finish(l, sums, count, panel, it->y + start * it->y_stride * y_size, it->y_stride, it->adds);
        }
    }
}

int linear(const Linear *l, const void *x, i64 x_stride, const i64 *from, i64 rows, void *y, i64 y_stride, int adds,
           int threads) {
    if (!rows) return 0;
    i64 inputs = padded_inputs(l), width = has_pairs(l) ? inputs / 2 : inputs, panels = panel_count(l);
    i64 passes = (rows + TALL - 1) / TALL, flocks = (passes + FLOCK - 1) / FLOCK;
    float *laid_out = scratch(LAID_OUT, rows * width * sizeof(float));
    if (!laid_out) return -1;
    struct product it = {l,      x,    y,      from,   laid_out, x_stride, y_stride,
                         rows, passes, panels, inputs, width,    adds};
    // Few rows cost as much as eight: it is their weights that are waited for.
    i64 effort = panels * WIDE * inputs * (rows + 8), spread = flocks * panels;
    team(rows, even_grain(rows, threads), lay_out_rows, &it, rows * inputs < SHORT / 64 ? 1 : threads, 0);
    team(spread, even_grain(spread, threads), add_up_panels, &it, effort < SHORT ? 1 : threads, effort >= LONG);
    return 0;
}
