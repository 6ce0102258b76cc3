/* train.c - trains a ternary transformer to reverse sequences of digits, in plain C.
 *     cc -O2 -I.. train.c ../engine.c -lm && ./a.out
 * Prints the loss on the way: from ln(10), which is guessing, to almost 0 in half a second. */
#include <stdio.h>

#include "te.h"

enum { DIGITS = 10, TIME = 8, WIDTH = 64, HEADS = 4, HIDDEN = 128, BATCH = 32, STEPS = 100 };

/* A new parameter, known to the optimiser: weights are drawn, gains (no columns) start at one. */
static te_tensor *parameter(te_ctx *ctx, te_optim *optim, int64_t rows, int64_t columns) {
    const int64_t shape[] = {rows, columns};
    te_tensor *t = te_zeros(ctx, TE_DTYPE_FLOAT, columns ? 2 : 1, shape);
    columns ? te_init_xavier(t, 1.0) : te_fill(t, 1.0);
    te_set_requires_grad(t, 1);
    te_optim_add(optim, t, columns > 0);
    te_release(t); /* the optimiser keeps it */
    return t;
}

int main(void) {
    te_ctx *ctx = te_ctx_new(1);
    te_optim *optim = te_adamw(ctx, 0.9, 0.95, 1e-8, 0.01);
    te_tensor *digit = parameter(ctx, optim, DIGITS, WIDTH);
    te_tensor *place = parameter(ctx, optim, TIME, WIDTH);
    te_tensor *gain1 = parameter(ctx, optim, WIDTH, 0), *gain2 = parameter(ctx, optim, WIDTH, 0);
    te_tensor *wq = parameter(ctx, optim, WIDTH, WIDTH), *wk = parameter(ctx, optim, WIDTH, WIDTH);
    te_tensor *wv = parameter(ctx, optim, WIDTH, WIDTH), *wo = parameter(ctx, optim, WIDTH, WIDTH);
    te_tensor *gate = parameter(ctx, optim, HIDDEN, WIDTH);
    te_tensor *up = parameter(ctx, optim, HIDDEN, WIDTH);
    te_tensor *down = parameter(ctx, optim, WIDTH, HIDDEN);
    te_tensor *head = parameter(ctx, optim, DIGITS, WIDTH);
    const int64_t shape[] = {BATCH, TIME};
    te_tensor *ids = te_zeros(ctx, TE_DTYPE_INT32, 2, shape);
    te_tensor *labels = te_zeros(ctx, TE_DTYPE_INT32, 2, shape);

    for (int step = 0; step < STEPS && te_last_status(ctx) == TE_OK; step++) {
        for (int i = 0; i < BATCH * TIME; i++) {
            const int mirrored = i - i % TIME + (TIME - 1 - i % TIME);
            const int32_t drawn = (int32_t)(te_random_uniform(ctx) * DIGITS);
            te_data_i32(ids)[i] = te_data_i32(labels)[mirrored] = drawn;
        }
        te_tensor *x = te_add(ctx, te_embedding(ctx, digit, ids), place);
        te_tensor *h = te_rmsnorm(ctx, x, gain1, 1e-5);
        te_tensor *mixed = te_attention(ctx, te_bitlinear(ctx, h, wq), te_bitlinear(ctx, h, wk),
                                        te_bitlinear(ctx, h, wv), HEADS, HEADS, 0);
        x = te_add(ctx, x, te_bitlinear(ctx, mixed, wo));
        h = te_rmsnorm(ctx, x, gain2, 1e-5);
        h = te_swiglu(ctx, te_bitlinear(ctx, h, gate), te_bitlinear(ctx, h, up));
        x = te_add(ctx, x, te_bitlinear(ctx, h, down));
        te_tensor *loss = te_cross_entropy(ctx, te_linear(ctx, x, head, NULL), labels, -1);
        if (te_backward(ctx, loss) != TE_OK) break;
        if (step % 10 == 9) printf("step %d loss %.6f\n", step + 1, te_item(loss));
        te_clip_grad_norm(optim, 1.0);
        te_optim_step(optim, te_lr_cosine(step, 20, STEPS, 5e-3, 0.0));
        te_optim_zero_grad(optim);
        te_tape_reset(ctx);
    }
    const int failed = te_last_status(ctx) != TE_OK;
    if (failed) fprintf(stderr, "%s\n", te_last_error(ctx));
    te_release(ids);
    te_release(labels);
    te_optim_free(optim);
    te_ctx_free(ctx);
    return failed;
}
