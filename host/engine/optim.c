/* optim.c - SGD with momentum, Adam, AdamW; clipping by the global norm; cosine schedule. */
#include "internal.h"
#include "kernels.h"

enum { TE_OPTIM_SGD, TE_OPTIM_ADAM, TE_OPTIM_ADAMW };

typedef struct {
    te_tensor *param;
    te_float *state[2];
    int decay;
} te_optim_entry;

struct te_optim {
    te_ctx *ctx;
    int kind;
    double beta1, beta2, eps, weight_decay; /* SGD: beta1 is the momentum */
    int64_t steps;
    te_optim_entry *entries; /* pool block */
    int64_t count, capacity;
};

static te_optim *te_optim_new(te_ctx *ctx, const te_optim *settings) {
    te_optim *optim = te_alloc(ctx, sizeof *optim);
    if (!optim) return NULL;
    *optim = *settings;
    optim->ctx = ctx;
    ctx->live++;
    return optim;
}

te_optim *te_sgd(te_ctx *ctx, double momentum, double weight_decay) {
    te_optim settings = {.kind = TE_OPTIM_SGD, .beta1 = momentum, .weight_decay = weight_decay};
    return te_optim_new(ctx, &settings);
}

te_optim *te_adam(te_ctx *ctx, double beta1, double beta2, double eps, double weight_decay) {
    te_optim settings = {.kind = TE_OPTIM_ADAM,
                         .beta1 = beta1,
                         .beta2 = beta2,
                         .eps = eps,
                         .weight_decay = weight_decay};
    return te_optim_new(ctx, &settings);
}

te_optim *te_adamw(te_ctx *ctx, double beta1, double beta2, double eps, double weight_decay) {
    te_optim settings = {.kind = TE_OPTIM_ADAMW,
                         .beta1 = beta1,
                         .beta2 = beta2,
                         .eps = eps,
                         .weight_decay = weight_decay};
    return te_optim_new(ctx, &settings);
}

void te_optim_free(te_optim *optim) {
    if (!optim) return;
    te_ctx *ctx = optim->ctx;
    for (int64_t i = 0; i < optim->count; i++) {
        te_release(optim->entries[i].param);
        te_free(ctx, optim->entries[i].state[0]);
        te_free(ctx, optim->entries[i].state[1]);
    }
    te_free(ctx, optim->entries);
    te_free(ctx, optim);
    te_ctx_drop(ctx);
}

/* ---- Parameters ---- */

static int te_optim_reserve(te_optim *optim) {
    if (optim->count < optim->capacity) return 1;
    int64_t wanted = optim->capacity ? 2 * optim->capacity : 32;
    te_optim_entry *grown = te_alloc(optim->ctx, wanted * (int64_t)sizeof *grown);
    if (!grown) return 0;
    if (optim->count) memcpy(grown, optim->entries, (size_t)optim->count * sizeof *grown);
    te_free(optim->ctx, optim->entries);
    optim->entries = grown;
    optim->capacity = wanted;
    return 1;
}

te_status te_optim_add(te_optim *optim, te_tensor *param, int decay) {
    te_ctx *ctx = optim->ctx;
    if (!te_check_float(ctx, "optim_add", "param", param)) return ctx->status;
    if (param->node >= 0) {
        te_fail(ctx, TE_ERR_STATE, "optim_add: the parameter is a result of an operation");
        return ctx->status;
    }
    if (!te_optim_reserve(optim)) return ctx->status;
    te_optim_entry entry = {.decay = decay != 0};
    for (int slot = 0; slot < (optim->kind == TE_OPTIM_SGD ? 1 : 2); slot++) {
        entry.state[slot] = te_alloc_floats(ctx, param->numel);
        if (!entry.state[slot]) {
            te_free(ctx, entry.state[0]);
            return ctx->status;
        }
        te_clear_floats(entry.state[slot], param->numel);
    }
    entry.param = te_retain(param);
    optim->entries[optim->count++] = entry;
    return TE_OK;
}

int64_t te_optim_count(const te_optim *optim) {
    return optim->count;
}

te_tensor *te_optim_param(const te_optim *optim, int64_t i) {
    return i >= 0 && i < optim->count ? optim->entries[i].param : NULL;
}

te_float *te_optim_state(te_optim *optim, int64_t i, int slot) {
    return i >= 0 && i < optim->count && (slot == 0 || slot == 1) ? optim->entries[i].state[slot]
                                                                  : NULL;
}

int64_t te_optim_steps(const te_optim *optim) {
    return optim->steps;
}
void te_optim_set_steps(te_optim *optim, int64_t steps) {
    optim->steps = steps;
}

void te_optim_zero_grad(te_optim *optim) {
    for (int64_t i = 0; i < optim->count; i++) te_zero_grad(optim->entries[i].param);
}

/* ---- Steps ---- */

/* buffer = momentum * buffer + (grad + l2 * param);  param -= lr * buffer */
static void te_sgd_update(te_optim *optim, te_optim_entry *entry, double lr) {
    const te_kernels *kernels = optim->ctx->kernels;
    te_float *param = te_values(entry->param), *buffer = entry->state[0];
    const int64_t n = entry->param->numel;
    kernels->scale(n, (te_float)optim->beta1, buffer, buffer);
    kernels->add(n, buffer, entry->param->grad, buffer);
    if (entry->decay) kernels->axpy(n, (te_float)optim->weight_decay, param, buffer);
    kernels->axpy(n, (te_float)-lr, buffer, param);
}

/* m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
 * param -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) */
static void te_adam_update(te_optim *optim, te_optim_entry *entry, double lr) {
    const double decay = entry->decay ? optim->weight_decay : 0;
    const int decoupled = optim->kind == TE_OPTIM_ADAMW;
    const double t = (double)optim->steps;
    te_adam_step step = {.beta1 = (te_float)optim->beta1,
                         .beta2 = (te_float)optim->beta2,
                         .rest1 = (te_float)(1 - optim->beta1),
                         .rest2 = (te_float)(1 - optim->beta2),
                         .rate = (te_float)(lr / (1 - pow(optim->beta1, t))),
                         .root_correction = (te_float)(1 / sqrt(1 - pow(optim->beta2, t))),
                         .eps = (te_float)optim->eps,
                         .keep = (te_float)(decoupled ? 1 - lr * decay : 1),
                         .l2 = (te_float)(decoupled ? 0 : decay)};
    optim->ctx->kernels->adam(entry->param->numel, &step, entry->param->grad,
                              te_values(entry->param), entry->state[0], entry->state[1]);
}

te_status te_optim_step(te_optim *optim, double lr) {
    if (!isfinite(lr)) {
        te_fail(optim->ctx, TE_ERR_VALUE, "optim_step: the rate %g is not a number", lr);
        return TE_ERR_VALUE;
    }
    optim->steps++;
    for (int64_t i = 0; i < optim->count; i++) {
        te_optim_entry *entry = &optim->entries[i];
        if (!entry->param->grad_set) continue;
        if (optim->kind == TE_OPTIM_SGD)
            te_sgd_update(optim, entry, lr);
        else
            te_adam_update(optim, entry, lr);
    }
    return TE_OK;
}

double te_clip_grad_norm(te_optim *optim, double max_norm) {
    const te_kernels *kernels = optim->ctx->kernels;
    double total = 0;
    for (int64_t i = 0; i < optim->count; i++) {
        const te_tensor *param = optim->entries[i].param;
        if (param->grad_set) total += (double)kernels->sum_squares(param->numel, 0, param->grad);
    }
    const double norm = sqrt(total);
    if (!isfinite(norm) || norm <= max_norm) return norm;
    const te_float factor = (te_float)(max_norm / norm);
    for (int64_t i = 0; i < optim->count; i++) {
        const te_tensor *param = optim->entries[i].param;
        if (param->grad_set) kernels->scale(param->numel, factor, param->grad, param->grad);
    }
    return norm;
}

double te_lr_cosine(int64_t step, int64_t warmup, int64_t total, double lr, double floor) {
    const double pi = 3.141592653589793;
    if (step < warmup) return lr * (double)(step + 1) / (double)warmup;
    if (step >= total) return floor;
    double progress = (double)(step - warmup) / (double)(total - warmup);
    return floor + (lr - floor) * 0.5 * (1 + cos(pi * progress));
}
