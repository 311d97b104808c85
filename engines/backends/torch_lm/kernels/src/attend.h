// Attention of a step over a paged cache. For elements of type T; included once for each.
#include "attention.h"

// Attends to all splits that a task sees, each as if it were summed apart.
static void NAME(see_all)(struct tile *tile, const struct layer *layer, const struct task *task) {
    i64 dim = whole_vectors(layer->value_dim);
    NAME(see)(tile, layer, task->from, &tile->whole);
    for (i64 split = task->from + 1; split < task->to; split++) {
        NAME(see)(tile, layer, split, &tile->part);
        take(tile, split, &tile->whole, &tile->part, dim);
    }
}

static void NAME(join)(struct tile *tile, const struct layer *layer, const struct task *task, struct part *whole) {
    i64 dim = whole_vectors(layer->value_dim), size = part_size(tile->count, dim);
    *whole = part_at(task->parts, tile->count, dim);
    for (i64 split = task->from + 1; split < task->to; split++) {
        struct part part = part_at(task->parts + (split - task->from) * size, tile->count, dim);
        take(tile, split, whole, &part, dim);
    }
}

struct NAME(attending) {
    const struct layer *layer;
    const struct rows *rows;
    T *output;
    const T *queries;
    i64 token_step, head_step;
    struct tasks tasks;
    atomic_int failed;
};

// Sums splits of tasks, apart from the others.
static void NAME(attend_pieces)(void *context, i64 first, i64 end) {
    struct NAME(attending) *it = context;
    struct tile tile;
    if (!prepare(&tile, it->layer)) {
        it->failed = 1;
        return;
    }
    for (i64 i = first; i < end; i++) {
        const struct task *task = it->tasks.all + it->tasks.piece[i].task;
        i64 split = it->tasks.piece[i].split;
        NAME(open)(&tile, it->layer, it->rows, task, it->queries, it->token_step, it->head_step);
        i64 at = (split - task->from) * part_size(tile.count, whole_vectors(it->layer->value_dim));
        struct part part = part_at(task->parts + at, tile.count, whole_vectors(it->layer->value_dim));
        NAME(see)(&tile, it->layer, split, &part);
    }
}

static void NAME(attend_tasks)(void *context, i64 first, i64 end) {
    struct NAME(attending) *it = context;
    struct tile tile;
    if (!prepare(&tile, it->layer)) {
        it->failed = 1;
        return;
    }
    for (i64 i = first; i < end; i++) {
        const struct task *task = it->tasks.all + i;
        struct part whole = tile.whole;
        if (it->tasks.pieces) {
            place(&tile, it->layer, it->rows, task);
            NAME(join)(&tile, it->layer, task, &whole);
        } else {
            NAME(open)(&tile, it->layer, it->rows, task, it->queries, it->token_step, it->head_step);
            NAME(see_all)(&tile, it->layer, task);
        }
        NAME(close)(&tile, it->layer, &whole, it->output);
    }
}

// output: [tokens, heads, value_dim]. Returns 0, or 1 if there was no memory.
int NAME(attend)(const struct layer *layer, const struct rows *rows, T *output, const T *queries, i64 token_step,
                 i64 head_step, int threads) {
    struct NAME(attending) it = {layer, rows, output, queries, token_step, head_step, {0}, 0};
    int failed = !cut(&it.tasks, layer, rows, threads);
    if (!failed) {
        team(it.tasks.pieces, 1, NAME(attend_pieces), &it, it.tasks.threads, 1);
        team(it.tasks.count, 1, NAME(attend_tasks), &it, it.tasks.threads, 1);
        failed = it.failed;
    }
    drop(&it.tasks);
    return failed;
}
