/* train_size.c - some training steps of one of the bench's transformers (transformer.py) as a C
 * program, which keeps only what it needs:
 *     train_size S|M|L BATCH ternary(0|1) STEPS [NANOSECONDS]
 * Prints the last loss and the most memory the process has had, and with the start of the process
 * (CLOCK_MONOTONIC) given the milliseconds from there to the end of the first step. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "te.h"

enum { VOCABULARY = 64, LAYER_WEIGHTS = 9 };

typedef struct {
    const char *name;
    int64_t width, layers, heads, context, hidden;
} size_of_model;

static const size_of_model sizes[] = {
    {"S", 64, 2, 4, 64, 176}, {"M", 128, 4, 4, 128, 352}, {"L", 384, 6, 6, 256, 1024}};

static te_ctx *ctx;
static te_optim *optim;
static int ternary;

/* A weight [rows, columns], or with no columns a gain [rows]; the optimiser keeps it. */
static te_tensor *parameter(int64_t rows, int64_t columns) {
    te_tensor *t = te_zeros(ctx, TE_DTYPE_FLOAT, columns ? 2 : 1, (int64_t[]){rows, columns});
    if (columns)
        te_init_xavier(t, 1.0);
    else
        te_fill(t, 1.0);
    te_set_requires_grad(t, 1);
    te_optim_add(optim, t, columns > 0);
    te_release(t);
    return t;
}

static te_tensor *linear(te_tensor *x, te_tensor *w) {
    return ternary ? te_bitlinear(ctx, x, w) : te_linear(ctx, x, w, NULL);
}

static te_tensor *rope(te_tensor *x, const size_of_model *s) {
    return te_rope(ctx, x, s->width / s->heads, TE_ROPE_SPLIT_HALF, 1e4, 0);
}

/* w: norm, q, k, v, o, norm, gate, up, down */
static te_tensor *layer(const size_of_model *s, te_tensor *x, te_tensor **w) {
    te_tensor *h = te_rmsnorm(ctx, x, w[0], 1e-5);
    te_tensor *q = rope(linear(h, w[1]), s), *k = rope(linear(h, w[2]), s);
    h = te_attention(ctx, q, k, linear(h, w[3]), s->heads, s->heads, 1);
    x = te_add(ctx, x, linear(h, w[4]));
    h = te_rmsnorm(ctx, x, w[5], 1e-5);
    h = te_swiglu(ctx, linear(h, w[6]), linear(h, w[7]));
    return te_add(ctx, x, linear(h, w[8]));
}

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Linux keeps the most memory a process has had resident, in KiB; 0 elsewhere. */
static long peak_kib(void) {
    char line[256];
    long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, "VmHWM:", 6)) kib = strtol(line + 6, NULL, 10);
    if (file) fclose(file);
    return kib;
}

int main(int argc, char **argv) {
    const size_of_model *s = sizes;
    if (argc < 5) return 2;
    while (strcmp(s->name, argv[1]) != 0)
        if (++s == sizes + 3) return 2;
    const int64_t batch = atoi(argv[2]), d = s->width, f = s->hidden;
    ternary = atoi(argv[3]);
    ctx = te_ctx_new(1);
    te_set_single_use(ctx, 1);
    optim = te_adamw(ctx, 0.9, 0.95, 1e-8, 0.1);
    te_tensor *embedding = parameter(VOCABULARY, d), *norm = parameter(d, 0);
    te_tensor *head = parameter(VOCABULARY, d), *weights[6][LAYER_WEIGHTS];
    const int64_t shapes[LAYER_WEIGHTS][2] = {{d, 0}, {d, d}, {d, d}, {d, d}, {d, d},
                                              {d, 0}, {f, d}, {f, d}, {d, f}};
    for (int64_t i = 0; i < s->layers; i++)
        for (int k = 0; k < LAYER_WEIGHTS; k++)
            weights[i][k] = parameter(shapes[k][0], shapes[k][1]);
    te_tensor *ids = te_zeros(ctx, TE_DTYPE_INT32, 2, (int64_t[]){batch, s->context});
    te_tensor *labels = te_zeros(ctx, TE_DTYPE_INT32, 2, (int64_t[]){batch, s->context});
    for (int64_t i = 0; i < te_numel(ids); i++) {
        te_data_i32(ids)[i] = (int32_t)(te_random_uniform(ctx) * VOCABULARY);
        te_data_i32(labels)[i] = (int32_t)(te_random_uniform(ctx) * VOCABULARY);
    }
    double loss = 0, first_ms = 0;
    for (int step = 0; step < atoi(argv[4]); step++) {
        te_tensor *x = te_embedding(ctx, embedding, ids);
        for (int64_t i = 0; i < s->layers; i++) x = layer(s, x, weights[i]);
        x = te_linear(ctx, te_rmsnorm(ctx, x, norm, 1e-5), head, NULL);
        te_tensor *result = te_cross_entropy(ctx, x, labels, -1);
        if (te_backward(ctx, result) != TE_OK) {
            fprintf(stderr, "%s\n", te_last_error(ctx));
            return 1;
        }
        te_clip_grad_norm(optim, 1.0);
        te_optim_step(optim, 1e-3);
        te_optim_zero_grad(optim);
        loss = te_item(result);
        te_tape_reset(ctx);
        if (step == 0 && argc > 5) first_ms = (now_ns() - strtod(argv[5], NULL)) / 1e6;
    }
    printf("loss %.4f peak %.2f MB first %.2f ms\n", loss, (double)peak_kib() * 1024 / 1e6,
           first_ms);
    te_release(ids);
    te_release(labels);
    te_optim_free(optim);
    te_ctx_free(ctx);
    return 0;
}
