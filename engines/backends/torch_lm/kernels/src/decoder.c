// All layers of a decoder in one call: the interpreter is left once in a step, not a hundred times, and other threads
// have it meanwhile.
#include "elements.h"
#include "layer.h"
#include "linear.h"
#include "scratch.h"

// The same fields in the same order stand in native.py of `fused`.
struct decoder_layer {
    const Linear *qkv, *out, *gate_up, *down; // qkv and gate_up norm what they are given
    const struct layer *attention;
    const float *query_norm, *key_norm;       // weights by dimension of a head, or null
    const float *after_attention, *after_mlp; // weights of norms, or null
    float head_eps, after_attention_eps, after_mlp_eps;
    int32_t turn;                             // which of the step's rotations
};

struct step {
    const struct rows *rows;
    const i64 *wanted;  // tokens whose logits are wanted, in order
    i64 tokens, wanted_count;
    struct { const float *cos, *sin; i64 step, half; } turns[8]; // by token
};

#define T float
#define SUFFIX f32
#define KIND FLOAT32
#include "decoder_typed.h"
#define T bf16
#define SUFFIX bf16
#define KIND BFLOAT16
#include "decoder_typed.h"
#define T f16
#define SUFFIX f16
#define KIND FLOAT16
#include "decoder_typed.h"
