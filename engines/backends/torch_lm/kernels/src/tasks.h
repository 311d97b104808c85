// Cuts a step's attention into tasks for threads.
#pragma once
#include <stdatomic.h>
#include "team.h"
#include "tile.h"

#define LITTLE 300000         // products that one thread does in the time in which a second would wake up
#define MOST_APART (16 << 20) // floats that splits may wait in

struct tasks {
    i64 count, pieces; // pieces: tasks by split, if splits are summed apart, else 0
    int threads;
    struct task *all;
    struct { i64 task, split; } *piece;
    float *parts;
};

static void drop(struct tasks *tasks) {
    free(tasks->all), free(tasks->piece), free(tasks->parts);
}

// Returns 0 if there is no memory.
static int cut(struct tasks *tasks, const struct layer *layer, const struct rows *rows, int threads) {
    i64 group = layer->heads / layer->kv_heads, dim = whole_vectors(layer->value_dim), products = 0, apart = 0;
    *tasks = (struct tasks){.threads = threads};
    for (i64 s = 0; s < rows->count; s++) {
        i64 tokens = rows->starts[s + 1] - rows->starts[s];
        tasks->count += (tokens * group + TILE - 1) / TILE * layer->kv_heads;
        products += tokens * rows->lengths[s];
    }
    if (products * layer->heads * (layer->key_dim + layer->value_dim) < LITTLE) tasks->threads = 1;
    tasks->all = malloc(sizeof *tasks->all * max(1, tasks->count));
    if (!tasks->all) return 0;
    struct task *task = tasks->all;
    for (i64 s = 0; s < rows->count; s++) {
        i64 tokens = rows->starts[s + 1] - rows->starts[s], past = rows->lengths[s] - tokens;
        // Late tiles see most: they come first, so that no thread begins one when the others are done.
        for (i64 begin = (tokens * group - 1) / TILE * TILE; begin >= 0; begin -= TILE)
            for (i64 head = 0; head < layer->kv_heads; head++, task++) {
                i64 end = min(begin + TILE, tokens * group), last = past + (end - 1) / group;
                i64 first = layer->window ? max(0, past + begin / group + 1 - layer->window) : 0;
                *task = (struct task){s, head, begin, end, first / SPLIT, last / SPLIT + 1, NULL};
                tasks->pieces += task->to - task->from;
                apart += part_size(end - begin, dim) * (task->to - task->from);
            }
    }
    int has_enough = tasks->threads == 1 || tasks->count >= 2 * tasks->threads;
    if (has_enough || tasks->pieces == tasks->count || apart > MOST_APART) {
        tasks->pieces = 0;
        return 1;
    }
    tasks->piece = malloc(sizeof *tasks->piece * tasks->pieces);
    tasks->parts = malloc(sizeof(float) * apart);
    if (!tasks->piece || !tasks->parts) return 0;
    float *parts = tasks->parts;
    for (i64 t = 0, p = 0; t < tasks->count; t++) {
        task = tasks->all + t;
        task->parts = parts;
        parts += part_size(task->end - task->begin, dim) * (task->to - task->from);
        for (i64 split = task->from; split < task->to; split++, p++)
            tasks->piece[p].task = t, tasks->piece[p].split = split;
    }
    return 1;
}
