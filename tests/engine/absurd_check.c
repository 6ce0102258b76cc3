/* absurd_check.c - calls every function of te.h with NULL, zero and absurd arguments; the calls are
 * in calls.h, which test_absurd_arguments.py writes from the header. Built with sanitizers. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "te.h"

enum { TENSORS = 16, OPTIMISERS = 6, WORDS = 1 << 14 };

static te_ctx *own, *other;
static te_tensor *tensors[TENSORS];
static te_optim *optimisers[OPTIMISERS];
static uint64_t state = 1, memory_words[WORDS];
static int owning; /* results belong to the caller */

static int pick(int n) {
    state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (int)((state >> 33) % (uint64_t)n);
}

/* ---- Arguments ---- */

static te_ctx *a_context(void) {
    return pick(6) ? own : pick(2) ? other : NULL;
}
static te_ctx *fresh_context(void) {
    return pick(3) ? te_ctx_new(1) : NULL;
}
static te_tensor *a_tensor(void) {
    return pick(8) ? tensors[pick(TENSORS)] : NULL;
}
static te_tensor *fresh_tensor(void) {
    return te_zeros(own, 0, 0, NULL);
}
static te_optim *an_optimiser(void) {
    return pick(6) ? optimisers[pick(OPTIMISERS)] : NULL;
}
static te_optim *fresh_optimiser(void) {
    return pick(3) ? te_chuck(own, NULL) : NULL;
}
static te_tensor *const *some_tensors(void) {
    static te_tensor *list[TE_MAX_INPUTS];
    for (int i = 0; i < TE_MAX_INPUTS; i++) list[i] = a_tensor();
    return pick(6) ? list : NULL;
}
static int an_int(void) {
    static const int all[] = {0, 1, 2, 3, 4, -1, -2, 9, INT_MAX, INT_MIN};
    return all[pick(10)];
}
static int64_t a_long(void) {
    static const int64_t all[] = {0, 1, 2, 3, 4, -1, 7, INT64_MAX, INT64_MIN, INT64_C(1) << 40};
    return all[pick(10)];
}
static int64_t a_count(void) {
    static const int64_t all[] = {0, 1, 2, 17, 64, -1, INT64_MIN};
    return all[pick(7)];
}
static double a_double(void) {
    static const double all[] = {0, 1, 0.5, -1, 1e-300, 1e308, -1e308, NAN, INFINITY, -INFINITY};
    return all[pick(10)];
}
static int64_t *some_dimensions(void) {
    static int64_t list[TE_MAX_DIMS];
    static const int64_t all[] = {1, 2, 3, 4, 4, 2, 1, 0, -1, INT64_MAX, INT64_C(1) << 40};
    const int mild = pick(2) ? 8 : 11;
    for (int i = 0; i < TE_MAX_DIMS; i++) list[i] = all[pick(mild)];
    return pick(8) ? list : NULL;
}
static void *some_memory(void) {
    return pick(4) ? memory_words : NULL;
}
static te_float *some_floats(void) {
    return some_memory();
}
static uint64_t *some_words(void) {
    return some_memory();
}
static int8_t *some_bytes(void) {
    return some_memory();
}
static char *a_name(void) {
    static char names[][12] = {"", "avx2", "portable", "no such set"};
    return pick(5) ? names[pick(4)] : NULL;
}
static void release(void *owner) {
    (void)owner;
}
static te_release_fn a_release(void) {
    return pick(2) ? release : NULL;
}
static te_chuck_settings *some_settings(void) {
    static te_chuck_settings drawn;
    te_chuck_defaults(&drawn);
    double *wild[] = {&drawn.damp, &drawn.lowest, &drawn.noise, &drawn.slow_decay, &drawn.eps};
    if (pick(2)) *wild[pick(5)] = a_double();
    if (pick(2)) drawn.window = a_long();
    if (pick(2)) drawn.patience = drawn.still_steps = drawn.freeze_steps = a_long();
    return pick(4) ? &drawn : NULL;
}
static te_guard *a_guard(void) {
    static te_guard guard;
    te_guard_start(&guard, a_double());
    return pick(6) ? &guard : NULL;
}

/* ---- Answers ---- */

static void fail(const char *what) {
    printf("%s\n", what);
    exit(1);
}

/* A status: a NULL object never goes well. */
static void answered(te_status status, int nulls) {
    if (status == TE_OK && nulls) fail("TE_OK for a NULL object");
    if (!te_status_text(status)[0]) fail("a status without a text");
}

/* An operation: it gives a result or leaves a text. */
static void operated(te_ctx *ctx, te_tensor *result) {
    if (!result && ctx && (te_last_status(ctx) == TE_OK || !te_last_error(ctx)[0]))
        fail("no result and no text");
    if (result && pick(4) == 0) te_backward_from(ctx, result, (te_float *)memory_words);
    if (owning) te_release(result);
}

/* ---- Things to call with ---- */

static te_tensor *tensor(te_ctx *ctx, int dtype, int ndim, const int64_t *shape) {
    te_tensor *t = te_zeros(ctx, dtype, ndim, shape);
    te_fill(t, 1);
    if (!dtype) te_set_requires_grad(t, pick(2));
    return t;
}

static void begin(void) {
    static const int64_t shapes[][3] = {{4}, {0}, {4, 4}, {2, 4}, {2, 3, 4}, {1, 1, 1}, {3, 0, 2}};
    static const int ndims[] = {1, 1, 2, 2, 3, 3, 3};
    int n = 0;
    te_ctx *gone = te_ctx_new(3);
    own = te_ctx_new(1);
    other = te_ctx_new(2);
    for (; n < 7; n++) tensors[n] = tensor(own, 0, ndims[n], shapes[n]);
    tensors[n++] = tensor(own, 0, 0, NULL);
    tensors[n++] = tensor(own, 1, 1, shapes[0]);
    tensors[n++] = tensor(own, 1, 2, shapes[3]);
    tensors[n++] = tensor(other, 0, 2, shapes[2]);
    tensors[n++] = tensor(gone, 0, 2, shapes[2]);
    tensors[n++] = te_retain(te_transpose(own, tensors[3], 0, 1));
    tensors[n++] = te_retain(te_tanh(own, tensors[4]));
    tensors[n++] = te_retain(te_broadcast(own, tensors[0], 2, shapes[3]));
    tensors[n++] = te_retain(te_slice(own, tensors[4], 1, 1, 0));
    optimisers[0] = te_sgd(own, 0.9, 0.1);
    optimisers[1] = te_adamw(own, 0.9, 0.99, 1e-8, 0.1);
    optimisers[2] = te_chuck(own, NULL);
    optimisers[3] = te_adam(own, 0.9, 0.99, 1e-8, 0.1);
    optimisers[4] = te_chuck(gone, NULL);
    optimisers[5] = te_chuck(own, NULL);
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < TENSORS; k++) te_optim_add(optimisers[i], tensors[k], k & 1);
    for (int i = 0; i < WORDS; i++) memory_words[i] = state * (uint64_t)i;
    te_clear_error(own);
    te_ctx_free(gone);
}

static void end(void) {
    te_fail_allocation(own, -1);
    for (int i = 0; i < TENSORS; i++) te_release(tensors[i]);
    for (int i = 0; i < OPTIMISERS; i++) te_optim_free(optimisers[i]);
    te_ctx_free(own);
    te_ctx_free(other);
}

int main(int argc, char **argv) {
    const int rounds = argc > 1 ? atoi(argv[1]) : 100;
    for (int round = 0; round < rounds; round++) {
        begin();
        owning = round % 2;
        te_set_own_results(own, owning);
        te_set_own_results(other, owning);
        for (int i = 0; i < CALLS; i++) {
            switch (pick(CALLS)) { CASES }
            te_clear_error(pick(2) ? own : other);
        }
        end();
    }
    return 0;
}
