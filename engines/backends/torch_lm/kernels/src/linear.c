// Linear layers: y = f(norm(x) W' + b), with W packed once into panels of columns.
//
// Each number of y is one sum over the inputs, in order and in one accumulator (tiles have an order of their
// own), whatever the count of rows and threads: a row gives the same bits alone and among others.
#include "linear.h"

#if defined __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "functions.h"
#include "lay_out.h"
#include "scratch.h"
#include "team.h"

#define AHEAD (16 << 10)  // bytes from what is computed to what is fetched: 4 and 8 KiB were slower on Zen 5
#define NEAR (4 << 10)    // the same where the panel was just read for other rows
#define FLOCK (448 << 10) // bytes of rows that pass a panel while both are in a core's cache
#define SHORT (1 << 21)   // of effort: about 10 µs, in which a second thread would hardly have begun
#define LONG (1 << 23)    // about 40 µs, for which one may be woken

// ------------------------------------------------------------------------------------------------------ packing

int linear_has_pairs(void) {
#ifdef PAIRS
    return __builtin_cpu_supports("avx512bf16") != 0;
#else
    return 0;
#endif
}

#ifdef TILES
#define REQUEST_PERMISSION 0x1023 // ARCH_REQ_XCOMP_PERM, for all threads of the process
#define TILE_DATA 18              // XFEATURE_XTILEDATA
#endif

int linear_has_tiles(void) {
#ifdef TILES
    static _Atomic int known; // 1: no, 2: yes. Whoever asks at the same time finds out the same
    if (!known) {
        int has = __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") && linear_has_pairs();
        known = has && !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) ? 2 : 1;
    }
    return known == 2;
#else
    return 0;
#endif
}

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

// Writes what a pass has added up to rows of y, of `stride` numbers of a type each.
INLINE void finish_as(const Linear *l, int dtype, vec sums[][2], int rows, i64 panel, void *y, i64 stride, int adds) {
    int gate = l->gate;
    i64 columns = columns_of(l), first = panel * panel_columns(l);
    for (int half = 0; half < (gate ? 1 : 2); half++) {
        i64 column = first + half * LANES, count = columns - column;
        if (count <= 0) break;
        vec scale = l->scale ? load_some(FLOAT32, l->scale, column, count) : splat(1);
        vec bias = l->bias ? load_some(FLOAT32, l->bias, column, count) : splat(0);
        for (int i = 0; i < rows; i++) {
            vec v = sums[i][half];
            if (l->scale) v = v * scale;
            if (l->bias) v = v + bias;
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
}

static void finish(const Linear *l, vec sums[][2], int rows, i64 panel, void *y, i64 stride, int adds) {
    switch (l->is_wide ? FLOAT32 : l->dtype) {
    case FLOAT32: finish_as(l, FLOAT32, sums, rows, panel, y, stride, adds); break;
    case BFLOAT16: finish_as(l, BFLOAT16, sums, rows, panel, y, stride, adds); break;
    default: finish_as(l, FLOAT16, sums, rows, panel, y, stride, adds);
    }
}

// ---------------------------------------------------------------------------------------------------------- all

struct product {
    const Linear *l;
    const char *x;
    char *y;
    const i64 *from;
    float *laid_out;
    i64 x_stride, y_stride, rows, passes, parts, panels, inputs;
    i64 flock; // passes over a panel, one behind the other
    i64 width; // of a row that is laid out, in words
    int adds;
};

INLINE i64 first_row(const struct product *it, i64 pass) { return it->rows * pass / it->passes; }

// Threads take parts of a pass's inputs, not of its rows: these share lines of memory.
static void lay_out_parts(void *context, i64 first, i64 end) {
    const struct product *it = context;
    for (i64 i = first; i < end; i++) {
        i64 pass = i / it->parts, part = i % it->parts;
        i64 start = first_row(it, pass), rows = first_row(it, pass + 1) - start;
        const void *x[TALLEST];
        for (i64 row = 0; row < rows; row++)
            x[row] = it->x + (it->from ? it->from[start + row] : start + row) * it->x_stride * size_of(it->l->dtype);
        i64 vectors = (it->width + LANES - 1) / LANES;
        i64 begin = vectors * part / it->parts * LANES, stop = vectors * (part + 1) / it->parts * LANES;
        lay_out(it->l, x, rows, it->laid_out + start * it->width, begin, stop < it->width ? stop : it->width);
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
#ifdef TILES
    if (has_tiles(l)) pass = pass_tiles;
#endif
    i64 y_size = l->is_wide ? 4 : size_of(l->dtype);
    for (i64 i = first; i < end; i++) {
        i64 first_pass = i / it->panels * it->flock, panel = i % it->panels;
        for (i64 p = first_pass; p < it->passes && p < first_pass + it->flock; p++) {
            i64 start = first_row(it, p), count = first_row(it, p + 1) - start;
            vec sums[TALLEST][2];
            const char *columns = (char *)l->panels + panel * panel_bytes(l);
            i64 ahead = p == first_pass ? AHEAD : NEAR;
            pass(it->laid_out + start * it->width, count, columns, it->inputs, ahead, sums);
            finish(l, sums, count, panel, it->y + start * it->y_stride * y_size, it->y_stride, it->adds);
        }
    }
#ifdef TILES
    if (pass == pass_tiles) release_tiles();
#endif
}

int linear(const Linear *l, const void *x, i64 x_stride, const i64 *from, i64 rows, void *y, i64 y_stride, int adds,
           int threads) {
    if (!rows) return 0;
    i64 inputs = padded_inputs(l), width = has_pairs(l) ? inputs / 2 : inputs, panels = panel_count(l);
    i64 tall = has_tiles(l) ? TALLEST : TALL;
    i64 most = FLOCK / (tall * width * (i64)sizeof(float)), flock = most < 1 ? 1 : most;
    i64 passes = (rows + tall - 1) / tall, flocks = (passes + flock - 1) / flock;
    // Parts of one pass each compute its rows' norms: they are worth it only where threads would have no work else.
    int layers = rows * inputs < SHORT / 64 ? 1 : threads;
    i64 parts = layers > 1 && passes < 4 * layers ? 2 : 1;
    float *laid_out = scratch(LAID_OUT, rows * width * sizeof(float));
    if (!laid_out) return -1;
    struct product it = {l,      x,     y,      from,   laid_out, x_stride, y_stride, rows,
                         passes, parts, panels, inputs, flock,    width,    adds};
    // Few rows cost as much as eight: it is their weights that are waited for.
    i64 effort = panels * WIDE * inputs * (rows + 8), spread = flocks * panels;
    team(passes * parts, 1, lay_out_parts, &it, layers, 0);
    team(spread, even_grain(spread, threads), add_up_panels, &it, effort < SHORT ? 1 : threads, effort >= LONG);
    return 0;
}
