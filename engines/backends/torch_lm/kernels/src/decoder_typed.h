// A decoder for elements of type T; included once for each.
#define PASTE(name, suffix) name##_##suffix
#define PASTE_EXPANDED(name, suffix) PASTE(name, suffix)
#define NAME(name) PASTE_EXPANDED(name, SUFFIX)

// In kernels.c.
void NAME(write_qkv)(const struct layer *layer, const struct rows *rows, T *qkv, i64 step, const struct turning *turning,
                     int threads);
int NAME(attend)(const struct layer *layer, const struct rows *rows, T *output, const T *queries, i64 token_step,
                 i64 head_step, int threads);
void NAME(norm)(T *output, const T *x, i64 x_step, T *residual, i64 residual_step, const void *weight, const void *bias,
                int is_float, int is_centred, i64 rows, i64 dim, float eps, float offset, int threads);

// Adds what a linear layer gives, normed if there is a norm, to rows of x.
static int NAME(add)(const Linear *l, const float *norm, float eps, const T *in, i64 in_width, const i64 *from, i64 rows,
                     T *x, int threads) {
    i64 hidden = l->outputs, bytes = rows * hidden * sizeof(T);
    if (!norm) return linear(l, in, in_width, from, rows, x, hidden, 1, threads);
    T *result = scratch(RESULT, bytes), *normed = scratch(NORMED, bytes);
    if (!result || !normed || linear(l, in, in_width, from, rows, result, hidden, 0, threads)) return -1;
    NAME(norm)(normed, result, hidden, NULL, 0, norm, NULL, 1, 0, rows, hidden, eps, 0, threads);
    for (i64 at = 0; at < rows * hidden; at += LANES) {
        i64 count = rows * hidden - at;
        store_some(KIND, x, at, count, load_some(KIND, x, at, count) + load_some(KIND, normed, at, count));
    }
    return 0;
}

// x: [tokens, hidden], which is changed; logits: [wanted_count, vocabulary]. Returns 0, or -1 if there is no memory.
int NAME(decoder)(const struct decoder_layer *layers, i64 count, const Linear *head, const struct step *step, T *x,
                  float *logits, int threads) {
    i64 tokens = step->tokens, hidden = head->inputs, rows = tokens;
    for (const struct decoder_layer *layer = layers; layer < layers + count; layer++) {
        const struct layer *attention = layer->attention;
        i64 width = layer->qkv->outputs, seen_width = attention->heads * attention->value_dim;
        i64 inner_width = layer->down->inputs;
        T *qkv = scratch(QKV, tokens * width * sizeof(T)), *seen = scratch(SEEN, tokens * seen_width * sizeof(T));
        T *inner = scratch(INNER, tokens * inner_width * sizeof(T));
        if (!qkv || !seen || !inner || linear(layer->qkv, x, hidden, NULL, tokens, qkv, width, 0, threads)) return -1;
        struct turning turning = {
            .cos = step->turns[layer->turn].cos, .sin = step->turns[layer->turn].sin,
            .step = step->turns[layer->turn].step, .half = step->turns[layer->turn].half,
            .query_weight = layer->query_norm, .key_weight = layer->key_norm, .is_float = 1, .eps = layer->head_eps,
        };
        NAME(write_qkv)(attention, step->rows, qkv, width, &turning, threads);
        const i64 *from = NULL;
        if (layer == layers + count - 1 && step->wanted_count < tokens) {
            // Behind the last layer's keys and values, only tokens count whose logits are wanted.
            from = step->wanted, rows = step->wanted_count;
            if (!rows) return 0;
            T *kept = scratch(KEPT_ROWS, rows * hidden * sizeof(T));
            if (!kept) return -1;
            for (i64 i = 0; i < rows; i++) memcpy(kept + i * hidden, x + from[i] * hidden, hidden * sizeof(T));
            x = kept;
        }
        if (NAME(attend)(attention, step->rows, seen, qkv, width, attention->key_dim, threads) ||
            NAME(add)(layer->out, layer->after_attention, layer->after_attention_eps, seen, seen_width, from, rows, x, threads) ||
            linear(layer->gate_up, x, hidden, NULL, rows, inner, inner_width, 0, threads) ||
            NAME(add)(layer->down, layer->after_mlp, layer->after_mlp_eps, inner, inner_width, NULL, rows, x, threads))
            return -1;
    }
    return linear(head, x, hidden, NULL, rows, logits, head->outputs, 0, threads);
}

#undef PASTE
#undef PASTE_EXPANDED
#undef NAME
#undef T
#undef SUFFIX
#undef KIND
