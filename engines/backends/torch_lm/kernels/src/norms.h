// Norms and gated activations. For elements of type T; included once for each.

INLINE vec NAME(weight_at)(const void *weight, int is_float, i64 d, i64 left) {
    return is_float ? load_some_f32((const float *)weight + d, left) : LOAD_SOME((const T *)weight + d, left);
}

// Adds a row to its residual, if there is one, and returns where the sum is.
INLINE const T *NAME(added)(const T *x, T *residual, i64 dim) {
    if (!residual) return x;
    for (i64 d = 0; d < dim; d += LANES)
        STORE_SOME(residual + d, LOAD_SOME(x + d, dim - d) + LOAD_SOME(residual + d, dim - d), dim - d);
    return residual;
}

INLINE float NAME(squares)(const T *x, i64 dim, float mean) {
    vec sum[4] = {splat(0), splat(0), splat(0), splat(0)};
    i64 d = 0;
    for (; d + 4 * LANES <= dim; d += 4 * LANES)
        UNROLL for (int v = 0; v < 4; v++) {
            vec apart = LOAD(x + d + v * LANES) - splat(mean);
            sum[v] = fused(apart, apart, sum[v]);
        }
    for (; d + LANES <= dim; d += LANES) {
        vec apart = LOAD(x + d) - splat(mean);
        sum[0] = fused(apart, apart, sum[0]);
    }
    float rest = 0;
    for (; d < dim; d++) rest += (WIDE(x[d]) - mean) * (WIDE(x[d]) - mean);
    return total((sum[0] + sum[1]) + (sum[2] + sum[3])) + rest;
}

INLINE float NAME(mean)(const T *x, i64 dim) {
    vec sum = splat(0);
    for (i64 d = 0; d < dim; d += LANES) sum = sum + LOAD_SOME(x + d, dim - d);
    return total(sum) / (float)dim;
}

struct NAME(norming) {
    T *output;
    const T *x;
    T *residual;
    const void *weight, *bias;
    i64 x_step, residual_step, dim;
    float eps, offset;
    int is_float, is_centred;
};

static void NAME(norm_rows)(void *context, i64 first, i64 end) {
    const struct NAME(norming) *it = context;
    i64 dim = it->dim;
    for (i64 row = first; row < end; row++) {
        T *residual = it->residual ? it->residual + row * it->residual_step : NULL;
        const T *in = NAME(added)(it->x + row * it->x_step, residual, dim);
        float mean = it->is_centred ? NAME(mean)(in, dim) : 0;
        float scale = 1.0f / sqrtf(NAME(squares)(in, dim, mean) / (float)dim + it->eps);
        for (i64 d = 0; d < dim; d += LANES) {
            vec y = (LOAD_SOME(in + d, dim - d) - splat(mean)) * splat(scale);
            y = y * (NAME(weight_at)(it->weight, it->is_float, d, dim - d) + splat(it->offset));
            if (it->bias) y = y + NAME(weight_at)(it->bias, it->is_float, d, dim - d);
            STORE_SOME(it->output + row * dim + d, y, dim - d);
        }
    }
}

// Writes (x - mean) * scale * (weight + offset) + bias. A null residual or bias is none.
void NAME(norm)(T *output, const T *x, i64 x_step, T *residual, i64 residual_step, const void *weight, const void *bias,
                int is_float, int is_centred, i64 rows, i64 dim, float eps, float offset, int threads) {
    struct NAME(norming) it = {output, x,   residual, weight, bias,     x_step,    residual_step,
                               dim,    eps, offset,   is_float, is_centred};
    if (rows * dim <= LITTLE / 8) threads = 1;
    team(rows, even_grain(rows, threads), NAME(norm_rows), &it, threads, 0);
}

#define STRIPE 2048 // columns that one thread takes

struct NAME(gating) {
    T *output;
    const T *gate_up;
    i64 step, dim, stripes; // by row
};

#define GATED(KIND)                                                                                                    \
    static void NAME(KIND##_stripes)(void *context, i64 first, i64 end) {                                              \
        const struct NAME(gating) *it = context;                                                                       \
        for (i64 i = first; i < end; i++) {                                                                            \
            i64 row = i / it->stripes, from = i % it->stripes * STRIPE, to = min(it->dim, from + STRIPE);              \
            const T *gate = it->gate_up + row * it->step, *up = gate + it->dim;                                        \
            for (i64 d = from; d < to; d += LANES) {                                                                   \
                vec y = KIND(LOAD_SOME(gate + d, to - d)) * LOAD_SOME(up + d, to - d);                                 \
                STORE_SOME(it->output + row * it->dim + d, y, to - d);                                                 \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    void NAME(KIND##_mul)(T *output, const T *gate_up, i64 step, i64 rows, i64 dim, int threads) {                     \
        struct NAME(gating) it = {output, gate_up, step, dim, (dim + STRIPE - 1) / STRIPE};                            \
        if (rows * dim <= LITTLE / 16) threads = 1;                                                                    \
        team(rows * it.stripes, even_grain(rows * it.stripes, threads), NAME(KIND##_stripes), &it, threads, 0);        \
    }
GATED(silu)
GATED(gelu_tanh)
#undef GATED
