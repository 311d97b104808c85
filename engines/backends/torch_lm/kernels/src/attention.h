// Attention of a tile of rows over a paged cache. For elements of type T; included once for each.
#include "products.h"

static void NAME(open)(struct tile *tile, const struct layer *layer, const struct rows *rows, const struct task *task,
                       const T *queries, i64 token_step, i64 head_step) {
    i64 dim = layer->key_dim;
    place(tile, layer, rows, task);
    for (i64 r = 0; r < tile->count; r++) {
        const T *query = queries + token_of(tile, r) * token_step + head_of(tile, r) * head_step;
        for (i64 d = 0; d < dim; d += LANES)
            store_some_f32(tile->queries + r * dim + d, LOAD_SOME(query + d, dim - d), dim - d);
    }
}

INLINE const T *NAME(keys_of)(const struct tile *tile, const struct layer *layer, i64 block) {
    return (const T *)layer->keys + tile->kv_head * layer->key_head + tile->blocks[block] * layer->key_block;
}

INLINE const T *NAME(values_of)(const struct tile *tile, const struct layer *layer, i64 block) {
    return (const T *)layer->values + tile->kv_head * layer->value_head + tile->blocks[block] * layer->value_block;
}

// Where a chunk's keys are, by vectors of positions, and its values, by position. They are read from copies, as floats,
// where many rows read them or where they do not lie in whole vectors.
struct NAME(chunk) {
    const T *keys[CHUNK / LANES], *values[CHUNK];
    const float *key_copies[CHUNK / LANES], *value_copies[CHUNK];
    int copies_keys, copies_values;
    const char *values_now[CHUNK], *keys_next[CHUNK];
    struct ahead values_ahead, keys_ahead; // asked for while products of keys, and of values, are summed
};

// Finds `count` positions from `begin` on, the values from `from` on.
static void NAME(find)(struct NAME(chunk) *chunk, const struct tile *tile, const struct layer *layer, i64 begin,
                       i64 from, i64 count) {
    i64 size = layer->block_size, dim = whole_vectors(layer->value_dim);
    if (size % LANES == 0) {
        for (i64 v = 0; v < CHUNK / LANES; v++) {
            i64 position = begin + (v * LANES < count ? v * LANES : 0); // behind the end any vector will do
            chunk->keys[v] = NAME(keys_of)(tile, layer, position / size) + position % size;
        }
        for (i64 v = 0; chunk->copies_keys && v * LANES < count; v++)
            for (i64 d = 0; d < layer->key_dim; d++)
                store_f32(tile->keys + d * CHUNK + v * LANES, LOAD(chunk->keys[v] + d * size));
    } else {
        for (i64 j = 0; j < count; j++) {
            const T *key = NAME(keys_of)(tile, layer, (begin + j) / size) + (begin + j) % size;
            for (i64 d = 0; d < layer->key_dim; d++) tile->keys[d * CHUNK + j] = WIDE(key[d * size]);
        }
    }
    for (i64 j = from; j < count; j++) {
        i64 position = begin + j;
        chunk->values[j] = NAME(values_of)(tile, layer, position / size) + position % size * layer->value_dim;
        for (i64 d = 0; chunk->copies_values && d < dim; d += LANES)
            store_f32(tile->values + j * dim + d, LOAD_SOME(chunk->values[j] + d, layer->value_dim - d));
    }
}

// Prepares to ask for this chunk's values and the next one's keys. Where many rows read there is time enough, and where
// one or two read floats by whole lines, the processor is early enough by itself.
static void NAME(look_ahead)(struct NAME(chunk) *chunk, const struct tile *tile, const struct layer *layer, i64 begin,
                             i64 end) {
    i64 size = layer->block_size, count = 0, next_count = 0;
    chunk->values_ahead = chunk->keys_ahead = (struct ahead){0};
    if (tile->count > BAND || (tile->count <= 2 && sizeof(T) * LANES == 64)) return;
    for (i64 block = begin / size; block * size < min(begin + CHUNK, end); block++)
        chunk->values_now[count++] = (const char *)NAME(values_of)(tile, layer, block);
    for (i64 block = (begin + CHUNK) / size; block * size < min(begin + 2 * CHUNK, end); block++)
        chunk->keys_next[next_count++] = (const char *)NAME(keys_of)(tile, layer, block);
    i64 key_steps = layer->key_dim * max(1, CHUNK / (KEY_COLUMNS(tile->count) * LANES));
    i64 value_steps = CHUNK * max(1, whole_vectors(layer->value_dim) / (VALUE_COLUMNS(tile->count) * LANES));
    chunk->values_ahead = spread(chunk->values_now, count, sizeof(T) * size * layer->value_dim, key_steps);
    chunk->keys_ahead = spread(chunk->keys_next, next_count, sizeof(T) * size * layer->key_dim, value_steps);
}

INLINE void NAME(dot_band)(struct tile *tile, const struct layer *layer, struct NAME(chunk) *chunk, i64 row, i64 rows,
                           i64 from, i64 to) {
    const float *queries = tile->queries + row * layer->key_dim;
    i64 columns = KEY_COLUMNS(rows);
    for (i64 v = from / (columns * LANES) * columns; v * LANES < to; v += columns) {
        float *scores = tile->scores + v * LANES;
        if (chunk->copies_keys)
            dot_f32(rows, queries, layer->key_dim, chunk->key_copies + v, CHUNK, scores, &chunk->values_ahead);
        else
            NAME(dot)(rows, queries, layer->key_dim, chunk->keys + v, layer->block_size, scores, &chunk->values_ahead);
    }
}

INLINE void NAME(mix_band)(struct tile *tile, const struct layer *layer, struct NAME(chunk) *chunk, struct part *part,
                           i64 row, i64 first, i64 rows, i64 from, i64 to) {
    if (from >= to) return;
    i64 dim = whole_vectors(layer->value_dim);
    float *sums = part->sums + (row + first) * dim, *weights = tile->scores + first * CHUNK;
    if (chunk->copies_values)
        mix_f32(rows, weights, from, to, chunk->value_copies, sums, dim, &chunk->keys_ahead);
    else
        NAME(mix)(rows, weights, from, to, chunk->values, sums, dim, &chunk->keys_ahead);
}

// Counts a chunk in for a few rows from `row` on.
static void NAME(see_band)(struct tile *tile, const struct layer *layer, struct NAME(chunk) *chunk, i64 begin, i64 row,
                           i64 rows, struct part *part) {
    i64 from[BAND], to[BAND]; // what each row sees of the chunk; both rise
    for (i64 r = 0; r < rows; r++) {
        from[r] = min(CHUNK, max(0, tile->first[row + r] - begin));
        to[r] = max(from[r], min(CHUNK, tile->last[row + r] + 1 - begin));
    }
    if (from[0] >= to[rows - 1]) return;
    NAME(dot_band)(tile, layer, chunk, row, rows, from[0], to[rows - 1]);
    for (i64 r = 0; r < rows; r++)
        if (from[r] < to[r])
            weigh(tile->scores + r * CHUNK, from[r], to[r], layer->scale, layer->softcap, part, row + r,
                  whole_vectors(layer->value_dim));
    // A row must not meet a value that it does not see, not even with weight 0: it may be a NaN.
    i64 all_from = from[rows - 1], all_to = to[0]; // what every row sees
    if (all_from >= all_to) all_from = all_to = CHUNK;
    for (i64 r = 0; r < rows; r++) NAME(mix_band)(tile, layer, chunk, part, row, r, 1, from[r], min(all_from, to[r]));
    NAME(mix_band)(tile, layer, chunk, part, row, 0, rows, all_from, all_to);
    for (i64 r = 0; r < rows; r++) NAME(mix_band)(tile, layer, chunk, part, row, r, 1, max(from[r], all_to), to[r]);
}

// Sums up what the rows of a tile see of one split.
static void NAME(see)(struct tile *tile, const struct layer *layer, i64 split, struct part *part) {
    i64 dim = whole_vectors(layer->value_dim), first = tile->first[0];
    i64 end = min((split + 1) * SPLIT, tile->last[tile->count - 1] + 1);
    int has_many = tile->count > 2 * BAND && sizeof(T) < sizeof(float);
    struct NAME(chunk) chunk;
    chunk.copies_keys = has_many || layer->block_size % LANES;
    chunk.copies_values = has_many || layer->value_dim % LANES;
    for (i64 v = 0; v < CHUNK / LANES; v++) chunk.key_copies[v] = tile->keys + v * LANES;
    for (i64 j = 0; j < CHUNK; j++) chunk.value_copies[j] = tile->values + j * dim;
    empty(part, tile->count, dim);
    for (i64 begin = max(split * SPLIT, first / CHUNK * CHUNK); begin < end; begin += CHUNK) {
        NAME(find)(&chunk, tile, layer, begin, max(0, first - begin), min(CHUNK, end - begin));
        NAME(look_ahead)(&chunk, tile, layer, begin, end);
        for (i64 row = 0; row < tile->count; row += BAND)
            NAME(see_band)(tile, layer, &chunk, begin, row, min(BAND, tile->count - row), part);
    }
}

// Divides by the weights, and hands over.
static void NAME(close)(const struct tile *tile, const struct layer *layer, struct part *whole, T *output) {
    i64 dim = whole_vectors(layer->value_dim);
    for (i64 r = 0; r < tile->count; r++) {
        i64 token = token_of(tile, r), head = head_of(tile, r);
        if (layer->sinks) sink(whole, r, dim, layer->sinks[head] * 1.44269504f);
        vec share = splat(1.0f / total(load_f32(whole->weights + r * LANES)));
        T *to = output + (token * layer->heads + head) * layer->value_dim;
        for (i64 d = 0; d < layer->value_dim; d += LANES)
            STORE_SOME(to + d, load_f32(whole->sums + r * dim + d) * share, layer->value_dim - d);
    }
}
