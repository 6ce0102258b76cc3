/* schedule.c - around an update: clipping by the global norm, the guard against steps that are not
 * finite, learning rates. */
#include "internal.h"
#include "kernels.h"

/* ---- Gradients ---- */

/* Parameters that threads share at a time. */
enum { TE_GRAD_BLOCK = 64 };

typedef struct {
    te_optim *optim;
    int64_t at; /* the first of the parameters in hand */
    int scaled; /* gradients are scaled, else squared and summed up */
    te_float factor;
    double squares[TE_GRAD_BLOCK];
} te_grad_work;

static void te_grad_range(void *argument, int thread, int64_t first, int64_t last) {
    te_grad_work *w = argument;
    const te_kernels *kernels = w->optim->ctx->kernels;
    (void)thread;
    for (int64_t i = first; i < last; i++) {
        const te_tensor *param = w->optim->entries[w->at + i].param;
        w->squares[i] = 0;
        if (!param->grad_set) continue;
        if (w->scaled)
            kernels->scale(param->numel, w->factor, param->grad, param->grad);
        else
            w->squares[i] = (double)kernels->sum_squares(param->numel, 0, param->grad);
    }
}

/* Scales all gradients, or gives the sum of their squares, the same on any number of threads. */
static double te_each_grad(te_optim *optim, int scaled, double factor) {
    te_grad_work w = {.optim = optim, .scaled = scaled, .factor = (te_float)factor};
    const int64_t count = te_optim_count(optim);
    double total = 0;
    for (; w.at < count; w.at += TE_GRAD_BLOCK) {
        const int64_t block = count - w.at < TE_GRAD_BLOCK ? count - w.at : TE_GRAD_BLOCK;
        te_share(optim->ctx, block, 4, te_grad_range, &w);
        for (int64_t i = 0; i < block; i++) total += w.squares[i];
    }
    return total;
}

void te_scale_grad(te_optim *optim, double factor) {
    te_each_grad(optim, 1, factor);
}

double te_clip_grad_norm(te_optim *optim, double max_norm) {
    const double norm = sqrt(te_each_grad(optim, 0, 0));
    if (isfinite(norm) && max_norm >= 0 && norm > max_norm) te_scale_grad(optim, max_norm / norm);
    return norm;
}

/* ---- Guard ---- */

static const double te_lowest_scale = 1.0 / (1 << 24);

void te_guard_start(te_guard *guard, double scale) {
    if (guard) *guard = (te_guard){.scale = scale, .highest = scale, .patience = 200};
}

static void te_guard_good(te_guard *guard) {
    guard->in_a_row = 0;
    if (++guard->good < guard->patience || guard->scale >= guard->highest) return;
    guard->scale = fmin(guard->highest, 2 * guard->scale);
    guard->good = 0;
}

static void te_guard_skip(te_guard *guard) {
    guard->skipped++;
    guard->in_a_row += guard->scale <= 1; /* above it, a lower scale may help */
    guard->scale = fmax(te_lowest_scale, guard->scale / 2);
    guard->good = 0;
}

int te_guard_update(te_guard *guard, te_optim *optim, double loss, double max_norm, double lr) {
    if (!guard || !optim) return -1;
    if (!(max_norm > 0)) {
        te_fail(optim->ctx, TE_ERR_VALUE,
                "guard_update: clipped to a norm of %g; expected one above 0, or INFINITY for none",
                max_norm);
        return -1;
    }
    int made = isfinite(loss) && isfinite(te_clip_grad_norm(optim, max_norm * guard->scale));
    if (made) {
        if (guard->scale != 1) te_scale_grad(optim, 1 / guard->scale);
        if (te_optim_observe(optim, loss) != TE_OK || te_optim_step(optim, lr) != TE_OK) return -1;
        te_guard_good(guard);
    } else {
        te_guard_skip(guard);
    }
    te_optim_zero_grad(optim);
    return made;
}

/* ---- Learning rates ---- */

/* The part of the way from the end of the warm-up to `total` that is done at a step; -1 before. */
static double te_lr_part(int64_t step, int64_t warmup, int64_t total) {
    if (step < warmup) return -1;
    if (step >= total) return 1;
    return ((double)step - (double)warmup) / ((double)total - (double)warmup);
}

double te_lr_constant(int64_t step, int64_t warmup, double lr) {
    if (step < 0) step = 0;
    return step < warmup ? lr * (double)(step + 1) / (double)warmup : lr;
}

double te_lr_cosine(int64_t step, int64_t warmup, int64_t total, double lr, double floor) {
    const double pi = 3.141592653589793, part = te_lr_part(step, warmup, total);
    if (part < 0) return te_lr_constant(step, warmup, lr);
    return part < 1 ? floor + (lr - floor) * 0.5 * (1 + cos(pi * part)) : floor;
}

double te_lr_linear(int64_t step, int64_t warmup, int64_t total, double lr, double floor) {
    const double part = te_lr_part(step, warmup, total);
    if (part < 0) return te_lr_constant(step, warmup, lr);
    return part < 1 ? lr + (floor - lr) * part : floor;
}

double te_lr_step(int64_t step, int64_t warmup, int64_t total, double lr, double floor,
                  double gamma, int64_t parts) {
    if (step < warmup) return te_lr_constant(step, warmup, lr);
    const double most = parts > 1 ? (double)(parts - 1) : 0;
    double ended = most; /* parts; whole numbers before the division, or 29 of 100 would be 28.99 */
    if (step < total)
        ended = trunc(((double)step - (double)warmup) * (double)parts /
                      ((double)total - (double)warmup));
    return fmax(floor, lr * pow(gamma, fmin(ended, most)));
}
