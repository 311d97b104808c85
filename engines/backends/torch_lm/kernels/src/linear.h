// What linear.c has. See there.
#pragma once
#include "elements.h"

enum { PLAIN, SILU, GELU_TANH };

// The same fields in the same order stand in linears.py.
typedef struct {
    i64 outputs, inputs;
    void *panels;       // linear_bytes(l) bytes, which linear_pack fills
    const float *scale; // [outputs]: what the sums are multiplied with, or null
    const float *bias;  // [outputs], or null
    const float *norm;  // [inputs]: weights of a root-mean-square norm of x, or null
    float eps;
    int32_t dtype;      // of x
    int32_t kind;       // of W: the same, or INT8
    int32_t gate;       // unless PLAIN: W has all gates before all ups, and y is f(gate) * up
    int32_t is_wide;    // y is float32, whatever x is
} Linear;

i64 linear_bytes(const Linear *l);

// weights: [outputs, inputs], of the kind.
void linear_pack(const Linear *l, const void *weights, int threads);

// Tells whether products of bfloat16 are made two at a time here, which rounds otherwise.
int linear_has_pairs(void);

// Tells whether they are made tile by tile, which adds up in another order.
int linear_has_tiles(void);

// x: rows of `x_stride` numbers, of which row from[i] is meant, or row i if that is null; y: rows of `y_stride`, to which
// the result is added if `adds`. Returns 0, or -1 if there is no memory.
int linear(const Linear *l, const void *x, i64 x_stride, const i64 *from, i64 rows, void *y, i64 y_stride, int adds,
           int threads);
