// Two small matrix products in registers. Every number is one sum in one order, whatever the shape that computes it.
// For elements of type T; included once for each.

// sums[r][v] = Σ_d queries[r][d] * keys[v][d * step], for `columns` vectors v
INLINE void NAME(dot_rows)(int rows, int columns, const float *queries, i64 dim, const T *const *keys, i64 step,
                           float *sums, struct ahead *ahead) {
    vec sum[BAND][KEY_COLUMNS(1)];
    struct ahead it = *ahead;
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < columns; v++) sum[r][v] = splat(0);
    for (i64 d = 0; d < dim; d++) {
        vec key[KEY_COLUMNS(1)];
        ask(&it);
        UNROLL for (int v = 0; v < columns; v++) key[v] = LOAD(keys[v] + d * step);
        UNROLL for (int r = 0; r < rows; r++) {
            vec query = splat(queries[r * dim + d]);
            UNROLL for (int v = 0; v < columns; v++) sum[r][v] = fused(query, key[v], sum[r][v]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < columns; v++) store_f32(sums + r * CHUNK + v * LANES, sum[r][v]);
    *ahead = it;
}

static void NAME(dot)(i64 rows, const float *queries, i64 dim, const T *const *keys, i64 step, float *sums,
                      struct ahead *ahead) {
    switch (rows) {
    case 1: NAME(dot_rows)(1, KEY_COLUMNS(1), queries, dim, keys, step, sums, ahead); break;
    case 2: NAME(dot_rows)(2, KEY_COLUMNS(2), queries, dim, keys, step, sums, ahead); break;
    case 3: NAME(dot_rows)(3, KEY_COLUMNS(3), queries, dim, keys, step, sums, ahead); break;
    case 4: NAME(dot_rows)(4, KEY_COLUMNS(4), queries, dim, keys, step, sums, ahead); break;
    case 5: NAME(dot_rows)(5, KEY_COLUMNS(5), queries, dim, keys, step, sums, ahead); break;
    default: NAME(dot_rows)(6, KEY_COLUMNS(6), queries, dim, keys, step, sums, ahead);
    }
}

// sums[r][d] += Σ_j weights[r][j] * values[j][d], for j in [from, to) and `columns` vectors from dimension `at` on
INLINE void NAME(mix_rows)(int rows, int columns, const float *weights, i64 from, i64 to, const T *const *values,
                           i64 at, float *sums, i64 dim, struct ahead *ahead) {
    vec sum[BAND][VALUE_COLUMNS(1)];
    struct ahead it = *ahead;
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < columns; v++) sum[r][v] = load_f32(sums + r * dim + at + v * LANES);
    for (i64 j = from; j < to; j++) {
        vec value[VALUE_COLUMNS(1)];
        ask(&it);
        UNROLL for (int v = 0; v < columns; v++) value[v] = LOAD(values[j] + at + v * LANES);
        UNROLL for (int r = 0; r < rows; r++) {
            vec weight = splat(weights[r * CHUNK + j]);
            UNROLL for (int v = 0; v < columns; v++) sum[r][v] = fused(weight, value[v], sum[r][v]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < columns; v++) store_f32(sums + r * dim + at + v * LANES, sum[r][v]);
    *ahead = it;
}

INLINE void NAME(mix_all)(int rows, const float *weights, i64 from, i64 to, const T *const *values, float *sums,
                          i64 dim, struct ahead *ahead) {
    i64 at = 0;
    if (rows <= 2)
        for (; at + VALUE_COLUMNS(1) * LANES <= dim; at += VALUE_COLUMNS(1) * LANES)
            NAME(mix_rows)(rows, VALUE_COLUMNS(1), weights, from, to, values, at, sums, dim, ahead);
    for (; at + COLUMNS * LANES <= dim; at += COLUMNS * LANES)
        NAME(mix_rows)(rows, COLUMNS, weights, from, to, values, at, sums, dim, ahead);
    for (; at < dim; at += LANES) NAME(mix_rows)(rows, 1, weights, from, to, values, at, sums, dim, ahead);
}

static void NAME(mix)(i64 rows, const float *weights, i64 from, i64 to, const T *const *values, float *sums, i64 dim,
                      struct ahead *ahead) {
    switch (rows) {
    case 1: NAME(mix_all)(1, weights, from, to, values, sums, dim, ahead); break;
    case 2: NAME(mix_all)(2, weights, from, to, values, sums, dim, ahead); break;
    case 3: NAME(mix_all)(3, weights, from, to, values, sums, dim, ahead); break;
    case 4: NAME(mix_all)(4, weights, from, to, values, sums, dim, ahead); break;
    case 5: NAME(mix_all)(5, weights, from, to, values, sums, dim, ahead); break;
    default: NAME(mix_all)(6, weights, from, to, values, sums, dim, ahead);
    }
}
