// Keys and values on their way into the cache. For elements of type T; included once for each.

// Stores one token's key of one head across, its value along.
INLINE void NAME(keep_key)(const struct layer *layer, i64 slot, i64 head, const T *key) {
    i64 size = layer->block_size;
    T *to = (T *)layer->keys + slot / size * layer->key_block + head * layer->key_head + slot % size;
    for (i64 d = 0; d < layer->key_dim; d++) to[d * size] = key[d];
}

INLINE void NAME(keep_value)(const struct layer *layer, i64 slot, i64 head, const T *value) {
    i64 size = layer->block_size;
    T *to = (T *)layer->values + slot / size * layer->value_block + head * layer->value_head;
    memcpy(to + slot % size * layer->value_dim, value, sizeof(T) * layer->value_dim);
}

struct NAME(writing) {
    const struct layer *layer;
    const struct rows *rows;
    const T *keys, *values;
    i64 key_step, key_head_step, value_step, value_head_step;
};

static void NAME(write_tokens)(void *context, i64 first, i64 end) {
    const struct NAME(writing) *it = context;
    for (i64 token = first; token < end; token++)
        for (i64 head = 0; head < it->layer->kv_heads; head++) {
            i64 slot = it->rows->slots[token];
            NAME(keep_key)(it->layer, slot, head, it->keys + token * it->key_step + head * it->key_head_step);
            NAME(keep_value)(it->layer, slot, head, it->values + token * it->value_step + head * it->value_head_step);
        }
}

// keys: [tokens, kv_heads, key_dim], values: [tokens, kv_heads, value_dim], with the steps given.
void NAME(write)(const struct layer *layer, const struct rows *rows, const T *keys, i64 key_step, i64 key_head_step,
                 const T *values, i64 value_step, i64 value_head_step, int threads) {
    struct NAME(writing) it = {layer,    rows,          keys,       values,
                               key_step, key_head_step, value_step, value_head_step};
    i64 tokens = rows->starts[rows->count];
    if (tokens * layer->kv_heads * layer->key_dim <= LITTLE / 16) threads = 1;
    team(tokens, even_grain(tokens, threads), NAME(write_tokens), &it, threads, 0);
}

// Norms a head, if there is a weight, and rotates it: dimension i with i + half. wide: [key_dim], to work in.
INLINE void NAME(turn)(const T *in, T *out, float *wide, i64 dim, const struct turning *turning, i64 token,
                       const void *weight) {
    float scale = weight ? 1.0f / sqrtf(NAME(squares)(in, dim, 0) / (float)dim + turning->eps) : 1;
    for (i64 d = 0; d < dim; d += LANES) {
        vec x = LOAD_SOME(in + d, dim - d);
        if (weight) {
            vec factor = NAME(weight_at)(weight, turning->is_float, d, dim - d) + splat(turning->offset);
            x = x * splat(scale) * factor;
        }
        store_some_f32(wide + d, x, dim - d);
    }
    i64 half = turning->half;
    const float *cos = turning->cos + token * turning->step, *sin = turning->sin + token * turning->step;
    for (i64 d = 0; d < half; d += LANES) {
        i64 left = half - d;
        vec x = load_some_f32(wide + d, left), y = load_some_f32(wide + half + d, left);
        vec c = load_some_f32(cos + d, left), s = load_some_f32(sin + d, left);
        store_some_f32(wide + d, x * c - y * s, left);
        store_some_f32(wide + half + d, y * c + x * s, left);
    }
    for (i64 d = 0; d < dim; d += LANES) STORE_SOME(out + d, load_some_f32(wide + d, dim - d), dim - d);
}

struct NAME(turning) {
    const struct layer *layer;
    const struct rows *rows;
    T *qkv;
    i64 step;
    const struct turning *turning;
};

static void NAME(turn_tokens)(void *context, i64 first, i64 end) {
    const struct NAME(turning) *it = context;
    const struct layer *layer = it->layer;
    i64 dim = layer->key_dim, heads = layer->heads, kv_heads = layer->kv_heads;
    float wide[dim + LANES];
    T key[dim];
    for (i64 token = first; token < end; token++) {
        T *queries = it->qkv + token * it->step, *keys = queries + heads * dim, *values = keys + kv_heads * dim;
        for (i64 head = 0; head < heads; head++) {
            T *query = queries + head * dim;
            NAME(turn)(query, query, wide, dim, it->turning, token, it->turning->query_weight);
        }
        for (i64 head = 0; head < kv_heads; head++) {
            NAME(turn)(keys + head * dim, key, wide, dim, it->turning, token, it->turning->key_weight);
            NAME(keep_key)(layer, it->rows->slots[token], head, key);
            NAME(keep_value)(layer, it->rows->slots[token], head, values + head * layer->value_dim);
        }
    }
}

// qkv: [tokens, heads * key_dim + kv_heads * key_dim + kv_heads * value_dim]
void NAME(write_qkv)(const struct layer *layer, const struct rows *rows, T *qkv, i64 step,
                     const struct turning *turning, int threads) {
    struct NAME(turning) it = {layer, rows, qkv, step, turning};
    i64 tokens = rows->starts[rows->count];
    if (tokens * (layer->heads + layer->kv_heads) * layer->key_dim <= LITTLE / 16) threads = 1;
    team(tokens, even_grain(tokens, threads), NAME(turn_tokens), &it, threads, 0);
}
