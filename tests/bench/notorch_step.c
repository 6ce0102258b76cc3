/* notorch_step.c - one training step of the bench's transformer on Notorch, compiled together with
 * the notorch.c of a folder beside this project (see notorch_peer.py); nothing of it is part of
 * this project. Sequences of a batch follow each other, their gradients are added. */
#include <stdint.h>
#include <stdlib.h>

#include "notorch.h"

enum { PER_LAYER = 9, BEFORE = 3 };

static struct {
    int width, layers, heads, context, hidden, vocabulary, count;
    nt_tensor *
        *params; /* embedding, norm, head; then of each layer norm1 q k v o norm2 gate up down */
} model;

/* Forgets the model before, and makes one. */
void peer_start(int width, int layers, int heads, int context, int hidden, int vocabulary) {
    nt_tape_destroy();
    for (int i = 0; i < model.count; i++) nt_tensor_free(model.params[i]);
    free(model.params);
    model.width = width, model.layers = layers, model.heads = heads, model.context = context;
    model.hidden = hidden, model.vocabulary = vocabulary, model.count = BEFORE + PER_LAYER * layers;
    model.params = calloc((size_t)model.count, sizeof *model.params);
    const int rows[PER_LAYER] = {0, width, width, width, width, 0, hidden, hidden, width};
    for (int i = 0; i < model.count; i++) {
        const int kind = (i - BEFORE) % PER_LAYER;
        if (i < BEFORE)
            model.params[i] =
                i == 1 ? nt_tensor_new((size_t)width) : nt_tensor_new2d(vocabulary, width);
        else
            model.params[i] = rows[kind] ? nt_tensor_new2d(rows[kind], kind == 8 ? hidden : width)
                                         : nt_tensor_new((size_t)width);
    }
    nt_train_mode(1);
}

float *peer_parameter(int i) {
    return model.params[i]->data;
}

static int constant(const int32_t *ids) {
    nt_tensor *t = nt_tensor_new((size_t)model.context);
    for (int i = 0; i < model.context; i++) t->data[i] = (float)ids[i];
    const int entry = nt_tape_record(t, NT_OP_NONE, -1, -1, 0);
    nt_tensor_free(t);
    return entry;
}

static int product(int w, int x, int ternary) {
    return ternary ? nt_bit_seq_linear(w, x, model.context) : nt_seq_linear(w, x, model.context);
}

static int turned(int x, int head_dim) {
    return nt_rope_split_half_freq(x, model.context, head_dim, 10000.0f);
}

/* The loss of one sequence, as an entry of the tape. */
static int forward(const int32_t *ids, const int32_t *labels, int ternary) {
    const int t = model.context, d = model.width, head_dim = d / model.heads;
    int *p = malloc((size_t)model.count * sizeof *p);
    for (int i = 0; i < model.count; i++) {
        p[i] = nt_tape_param(model.params[i]);
        if (model.params[i]->ndim == 1) nt_tape_no_decay(p[i]);
    }
    const int tokens = constant(ids), targets = constant(labels);
    int x = nt_seq_embedding(p[0], -1, tokens, t, d);
    for (int l = 0; l < model.layers; l++) {
        const int *w = p + BEFORE + PER_LAYER * l;
        int h = nt_seq_rmsnorm(x, w[0], t, d);
        const int q = product(w[1], h, ternary), k = product(w[2], h, ternary);
        const int v = product(w[3], h, ternary);
        h = nt_mh_causal_attention(turned(q, head_dim), turned(k, head_dim), v, t, head_dim);
        x = nt_add(x, product(w[4], h, ternary));
        h = nt_seq_rmsnorm(x, w[5], t, d);
        h = nt_swiglu(product(w[6], h, ternary), product(w[7], h, ternary));
        x = nt_add(x, product(w[8], h, ternary));
    }
    const int logits = product(p[2], nt_seq_rmsnorm(x, p[1], t, d), 0);
    free(p);
    return nt_seq_cross_entropy(logits, targets, t, model.vocabulary);
}

/* Forward, backward, clipping and AdamW; the mean loss before it. */
float peer_step(const int32_t *ids, const int32_t *labels, int batch, int ternary, float lr) {
    float total = 0;
    for (int b = 0; b < batch; b++) {
        nt_tape_start();
        const int loss = forward(ids + b * model.context, labels + b * model.context, ternary);
        total += nt_tape_get()->entries[loss].output->data[0] / (float)batch;
        nt_tape_backward(loss);
        if (batch > 1) nt_tape_accum_grads();
    }
    if (batch > 1) nt_tape_apply_accum(batch);
    nt_tape_clip_grads(1.0f);
    nt_tape_adamw_step(lr, 0.1f, 0.9f, 0.95f);
    nt_tape_clear();
    return total;
}
