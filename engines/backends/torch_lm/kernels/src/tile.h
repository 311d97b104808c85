// What a thread works on, and the memory that it does so in.
#pragma once
#include <pthread.h>
#include <stdlib.h>
#include "ahead.h"
#include "softmax.h"

// Rows of one sequence that read the same keys and values: [begin, end) in the order (token, head of the group).
struct task {
    i64 sequence, kv_head, begin, end;
    i64 from, to; // the splits that the rows see
    float *parts; // of these splits, if they are summed apart
};

struct tile {
    i64 count, kv_head, token, group; // rows; the step's first token of the sequence; heads that share a kv_head
    i64 begin;                        // the task's
    i64 first[TILE], last[TILE];      // row r sees positions [first[r], last[r]]; both rise with r
    const int32_t *blocks;
    float *queries; // [TILE, key_dim]
    float *keys;    // [key_dim, CHUNK]
    float *values;  // [CHUNK, dim]
    float scores[BAND * CHUNK];
    struct part whole, part;
};

INLINE i64 token_of(const struct tile *tile, i64 row) { return tile->token + (tile->begin + row) / tile->group; }
INLINE i64 head_of(const struct tile *tile, i64 row) {
    return tile->kv_head * tile->group + (tile->begin + row) % tile->group;
}

INLINE i64 whole_vectors(i64 dim) { return (dim + LANES - 1) / LANES * LANES; }
INLINE i64 part_size(i64 rows, i64 dim) { return rows * (dim + LANES + 1); }
INLINE struct part part_at(float *memory, i64 rows, i64 dim) {
    return (struct part){memory, memory + rows * dim, memory + rows * (dim + LANES)};
}

static void place(struct tile *tile, const struct layer *layer, const struct rows *rows, const struct task *task) {
    i64 start = rows->starts[task->sequence], tokens = rows->starts[task->sequence + 1] - start;
    i64 past = rows->lengths[task->sequence] - tokens;
    tile->count = task->end - task->begin, tile->kv_head = task->kv_head, tile->begin = task->begin;
    tile->token = start, tile->group = layer->heads / layer->kv_heads;
    tile->blocks = rows->blocks + task->sequence * rows->width;
    for (i64 r = 0; r < tile->count; r++) {
        tile->last[r] = past + (task->begin + r) / tile->group;
        tile->first[r] = layer->window ? max(0, tile->last[r] + 1 - layer->window) : 0;
    }
}

static void empty(struct part *part, i64 rows, i64 dim) {
    memset(part->sums, 0, sizeof(float) * rows * dim);
    memset(part->weights, 0, sizeof(float) * rows * LANES);
    for (i64 r = 0; r < rows; r++) part->peaks[r] = -INFINITY;
}

// Adds what a tile's rows have seen of a split. Whether a row takes part is a matter of its position alone.
static void take(const struct tile *tile, i64 split, struct part *whole, const struct part *part, i64 dim) {
    for (i64 r = 0; r < tile->count; r++) {
        if (tile->first[r] >= (split + 1) * SPLIT || tile->last[r] < split * SPLIT) continue;
        if (tile->first[r] < split * SPLIT) {
            merge(whole, part, r, dim);
        } else {
            memcpy(whole->sums + r * dim, part->sums + r * dim, sizeof(float) * dim);
            memcpy(whole->weights + r * LANES, part->weights + r * LANES, sizeof(float) * LANES);
            whole->peaks[r] = part->peaks[r];
        }
    }
}

static pthread_key_t memory_key;
static pthread_once_t memory_once = PTHREAD_ONCE_INIT;
static __thread struct { float *floats; i64 count; } memory;

static void make_memory_key(void) { pthread_key_create(&memory_key, free); }

// Returns at least so many floats that are this thread's own, or null. Kept, because fresh pages are slow.
static float *own_memory(i64 count) {
    if (memory.count < count) {
        pthread_once(&memory_once, make_memory_key);
        free(memory.floats);
        memory.count = 0;
        if (posix_memalign((void **)&memory.floats, 64, sizeof(float) * count)) memory.floats = NULL;
        else memory.count = count;
        pthread_setspecific(memory_key, memory.floats);
    }
    return memory.floats;
}

static int prepare(struct tile *tile, const struct layer *layer) {
    i64 dim = whole_vectors(layer->value_dim), key_dim = whole_vectors(layer->key_dim);
    float *at = own_memory(TILE * key_dim + CHUNK * (key_dim + dim) + 2 * part_size(TILE, dim));
    if (!at) return 0;
    tile->queries = at, at += TILE * key_dim;
    tile->keys = at, at += CHUNK * key_dim;
    tile->values = at, at += CHUNK * dim;
    tile->whole = part_at(at, TILE, dim);
    tile->part = part_at(at + part_size(TILE, dim), TILE, dim);
    return 1;
}
