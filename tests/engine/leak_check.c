/* leak_check.c - runs every operation forward and backward, with the n-th allocation failing, for
 * n = 0, 1, ... until a run needs no more allocations: first of those that the engine counts, then,
 * the engine being part of this file, of what the system gives: memory, threads. Built with the
 * address sanitizer, which reports what leaks or is touched after its end. Prints the numbers of
 * failures survived. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static long long system_fails_in = -1;
static int system_fails(void) {
    return system_fails_in >= 0 && system_fails_in-- == 0;
}
#define malloc(size)                      (system_fails() ? NULL : malloc(size))
#define calloc(count, size)               (system_fails() ? NULL : calloc(count, size))
#define realloc(old, size)                (system_fails() ? NULL : realloc(old, size))
#define pthread_create(thread, at, f, to) (system_fails() ? 1 : pthread_create(thread, at, f, to))

#include "engine.c"

static int releases;
static void count_release(void *owner) {
    releases += *(int *)owner;
}

static te_tensor *draw(te_ctx *ctx, te_tensor **all, int *count, int ndim, const int64_t *shape) {
    te_tensor *t = te_zeros(ctx, TE_DTYPE_FLOAT, ndim, shape);
    if (!t) return NULL;
    te_fill_normal(t, 0, 1);
    te_set_requires_grad(t, 1);
    return all[(*count)++] = t;
}
#define DRAW(...)                                                                                  \
    draw(ctx, all, &count, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t),                     \
         (int64_t[]){__VA_ARGS__})

/* The loss of a small network that uses every operation. */
static te_tensor *forward(te_ctx *ctx, te_tensor **all, int *n, te_tensor *ids, te_tensor *labels,
                          te_tensor *outside) {
    int count = *n;
    te_tensor *x = te_embedding(ctx, DRAW(5, 8), ids);
    te_tensor *gain = DRAW(8), *bias = DRAW(8);
    te_tensor *h = te_layernorm(ctx, te_rmsnorm(ctx, x, gain, 1e-5), gain, bias, 1e-5);
    te_tensor *q = te_rope(ctx, te_bitlinear(ctx, h, DRAW(8, 8)), 4, TE_ROPE_SPLIT_HALF, 1e4, 0);
    te_tensor *k =
        te_rope(ctx, te_linear(ctx, h, DRAW(4, 8), DRAW(4)), 4, TE_ROPE_INTERLEAVED, 1e4, 1);
    te_tensor *v = te_linear(ctx, h, DRAW(4, 8), NULL);
    h = te_attention(ctx, q, k, v, 2, 1, 1);
    h = te_lora(ctx, h, x, DRAW(2, 8), DRAW(8, 2), 0.5);
    h = te_swiglu(ctx, te_gelu(ctx, h), te_silu(ctx, te_relu(ctx, h)));
    h = te_add(ctx, h, te_mul(ctx, te_scale(ctx, x, 0.5), bias));
    h = te_conv1d(ctx, te_dropout(ctx, h, 0.5), DRAW(8, 2, 8), DRAW(8), 1, 1, 0);
    te_tensor *half = te_tanh(ctx, te_slice(ctx, h, -1, 0, 4));
    h = te_concat(ctx, 2, (te_tensor *[]){half, te_sigmoid(ctx, half)}, -1);
    h = te_geglu(ctx, h, te_minimum(ctx, h, te_clip(ctx, x, -1, 1)));
    te_tensor *flat = te_reshape(ctx, h, 2, (int64_t[]){-1, 8});
    te_tensor *fit = te_mse(ctx, te_softmax(ctx, flat), te_reshape(ctx, x, 2, (int64_t[]){6, 8}));
    te_tensor *logits = te_add(ctx, te_mean_pool(ctx, h), te_max_pool(ctx, h));
    te_tensor *picked = te_gather(ctx, te_log_softmax(ctx, logits), labels);
    te_tensor *turned = te_transpose(ctx, te_reshape(ctx, picked, 2, (int64_t[]){1, 2}), 0, 1);
    te_tensor *strided = te_transpose(ctx, flat, 0, 1);
    fit = te_add(ctx, fit, te_mse(ctx, strided, te_contiguous(ctx, te_transpose(ctx, flat, 0, 1))));
    strided = te_reshape(ctx, te_slice(ctx, strided, 1, 1, 2), 1, (int64_t[]){16});
    fit = te_add(ctx, fit, te_mse(ctx, strided, te_tanh(ctx, strided)));
    te_tensor *repeated = te_broadcast(ctx, bias, 2, (int64_t[]){6, 8});
    fit = te_add(ctx, fit, te_mse(ctx, repeated, flat));
    picked = te_reshape(ctx, te_sum_pool(ctx, te_log(ctx, te_exp(ctx, turned))), 0, NULL);
    *n = count;
    fit = te_add(ctx, fit, picked);
    te_tensor *two = te_slice(ctx, outside, 0, 0, 2);
    fit = te_add(ctx, fit, te_cross_entropy_masked(ctx, logits, labels, two, 7));
    return te_add(ctx, te_cross_entropy(ctx, logits, labels, -1), fit);
}

/* 0: all went well, 1: some allocation failed, 2: a failure without a text or a status, or
 * a second backward pass after a failed one */
static int attempt(int64_t failing, int system, int single_use) {
    static te_float memory[4] = {1, 2, 3, 4};
    static int one = 1;
    te_tensor *all[32];
    int count = 0, result = 1, used_up = 1;
    if (system) system_fails_in = failing;
    te_ctx *ctx = te_ctx_new(1);
    te_set_single_use(ctx, single_use);
    if (!system) te_fail_allocation(ctx, failing);
    const te_status threads = te_set_threads(ctx, 3);
    te_tensor *ids = te_zeros(ctx, TE_DTYPE_INT32, 2, (int64_t[]){2, 3});
    te_tensor *labels = te_zeros(ctx, TE_DTYPE_INT32, 1, (int64_t[]){2});
    te_tensor *outside =
        te_from_data(ctx, TE_DTYPE_FLOAT, 1, (int64_t[]){4}, memory, count_release, &one);
    const int expected_releases = releases + (outside != NULL);
    te_tensor *kept = outside ? te_retain(te_reshape(ctx, outside, 2, (int64_t[]){2, 2})) : NULL;
    te_optim *optim = te_adamw(ctx, 0.9, 0.99, 1e-8, 0.1);
    te_optim *chuck = te_chuck(ctx, NULL);
    if (ids && labels && outside && optim && chuck && threads == TE_OK) {
        te_tensor *loss = forward(ctx, all, &count, ids, labels, outside);
        te_status status = te_backward(ctx, loss);
        if (loss && status == TE_ERR_MEMORY) {
            te_clear_error(ctx);
            used_up = te_backward(ctx, loss) == TE_ERR_STATE;
        }
        for (int i = 0; i < count; i++) te_optim_add(optim, all[i], 1);
        te_clip_grad_norm(optim, 1.0);
        te_optim_step(optim, 0.01);
        for (int i = 0; i < count; i++) te_optim_add(chuck, all[i], 1);
        te_guard guard;
        te_guard_start(&guard, 1.0);
        te_guard_update(&guard, chuck, 1.0, 1.0, 0.01);
        if (status == TE_OK && te_last_status(ctx) == TE_OK)
            result = 0;
        else if (te_last_status(ctx) == TE_OK || !te_last_error(ctx)[0])
            result = 2;
    }
    te_release(ids);
    te_release(labels);
    te_release(outside);
    for (int i = 0; i < count; i++) te_release(all[i]);
    te_optim_free(optim);
    te_optim_free(chuck);
    te_ctx_free(ctx);
    if (kept) /* outlives its context */
        te_data(kept)[3] = 1;
    te_release(kept);
    return used_up && releases == expected_releases ? result : 2;
}

int main(void) {
    for (int system = 0; system < 2; system++) {
        int64_t failing = 0;
        for (int single_use = 0; single_use < 2; single_use++) {
            int64_t n = 0;
            int result;
            while ((result = attempt(n, system, single_use)) == 1) n++;
            failing += n;
            if (result || attempt(-1, system, single_use)) return 1;
        }
        printf("%lld\n", (long long)failing);
    }
    return 0;
}
