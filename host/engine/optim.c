/* optim.c - SGD with momentum, Adam, AdamW, Chuck: parameters, state, updates. */
#include "internal.h"
#include "kernels.h"

enum { TE_OPTIM_SGD, TE_OPTIM_ADAM, TE_OPTIM_ADAMW, TE_OPTIM_CHUCK };

typedef struct {
    te_tensor *param;
    te_float *state[2];
    te_chuck_watch *watch; /* Chuck only */
    int decay;
} te_optim_entry;

struct te_optim {
    te_ctx *ctx;
    int kind;
    double beta1, beta2, eps, weight_decay; /* SGD: beta1 is the momentum */
    int64_t steps;
    te_chuck_memory *chuck;  /* pool block, NULL for the others */
    te_optim_entry *entries; /* pool block */
    int64_t count, capacity;
};

static te_optim *te_optim_new(te_ctx *ctx, const te_optim *settings) {
    const te_optim *s = settings;
    if (!ctx) return NULL;
    if (!(s->beta1 >= 0 && s->beta1 < 1 && s->beta2 >= 0 && s->beta2 < 1 && s->eps >= 0 &&
          isfinite(s->eps) && s->weight_decay >= 0 && isfinite(s->weight_decay)))
        return te_fail(ctx, TE_ERR_VALUE,
                       "optimiser: betas or momentum %g and %g must be in 0..1 (not 1), eps %g and "
                       "weight decay %g finite and not negative",
                       s->beta1, s->beta2, s->eps, s->weight_decay);
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

te_optim *te_chuck(te_ctx *ctx, const te_chuck_settings *settings) {
    te_chuck_settings usual;
    te_chuck_defaults(&usual);
    if (!settings) settings = &usual;
    if (!ctx || !te_chuck_check(ctx, settings)) return NULL;
    te_chuck_memory *chuck = te_alloc(ctx, sizeof *chuck);
    if (!chuck) return NULL;
    te_chuck_start(chuck, settings);
    te_optim adam = {.kind = TE_OPTIM_CHUCK,
                     .beta1 = settings->beta1,
                     .beta2 = settings->beta2,
                     .eps = settings->eps,
                     .weight_decay = settings->weight_decay,
                     .chuck = chuck};
    te_optim *optim = te_optim_new(ctx, &adam);
    if (!optim) te_free(ctx, chuck);
    return optim;
}

void te_optim_free(te_optim *optim) {
    if (!optim) return;
    te_ctx *ctx = optim->ctx;
    for (int64_t i = 0; i < optim->count; i++) {
        te_release(optim->entries[i].param);
        te_free(ctx, optim->entries[i].state[0]);
        te_free(ctx, optim->entries[i].state[1]);
        te_free(ctx, optim->entries[i].watch);
    }
    te_free(ctx, optim->chuck);
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

/* Zeroed state for one parameter; 0 on failure, with nothing kept. */
static int te_optim_entry_fill(te_optim *optim, te_optim_entry *entry, int64_t numel) {
    te_ctx *ctx = optim->ctx;
    const int slots = optim->kind == TE_OPTIM_SGD ? 1 : 2;
    int done = 1;
    for (int slot = 0; done && slot < slots; slot++) {
        done = (entry->state[slot] = te_alloc_floats(ctx, numel)) != NULL;
        if (done) te_clear_floats(entry->state[slot], numel);
    }
    if (done && optim->chuck) {
        done = (entry->watch = te_alloc(ctx, sizeof *entry->watch)) != NULL;
        if (done) *entry->watch = (te_chuck_watch){.norms.lambda = 1};
    }
    if (done) return 1;
    te_free(ctx, entry->state[0]);
    te_free(ctx, entry->state[1]);
    return 0;
}

te_status te_optim_add(te_optim *optim, te_tensor *param, int decay) {
    if (!optim) return TE_ERR_VALUE;
    te_ctx *ctx = optim->ctx;
    if (!te_check_float(ctx, "optim_add", "param", param)) return ctx->status;
    if (param->node >= 0) {
        te_fail(ctx, TE_ERR_STATE, "optim_add: the parameter is a result of an operation");
        return ctx->status;
    }
    if (param->strided) {
        te_fail(ctx, TE_ERR_STATE, "optim_add: the parameter is a view that is not contiguous");
        return ctx->status;
    }
    for (int64_t i = 0; i < optim->count; i++) {
        if (optim->entries[i].param != param) continue;
        te_fail(ctx, TE_ERR_STATE, "optim_add: the parameter was added before");
        return ctx->status;
    }
    te_optim_entry entry = {.decay = decay != 0};
    if (!te_optim_reserve(optim) || !te_optim_entry_fill(optim, &entry, param->numel))
        return ctx->status;
    entry.param = te_retain(param);
    optim->entries[optim->count++] = entry;
    return TE_OK;
}

int64_t te_optim_count(const te_optim *optim) {
    return optim ? optim->count : 0;
}

te_tensor *te_optim_param(const te_optim *optim, int64_t i) {
    return optim && i >= 0 && i < optim->count ? optim->entries[i].param : NULL;
}

te_float *te_optim_state(te_optim *optim, int64_t i, int slot) {
    const int there = optim && i >= 0 && i < optim->count && (slot == 0 || slot == 1);
    return there ? optim->entries[i].state[slot] : NULL;
}

int64_t te_optim_steps(const te_optim *optim) {
    return optim ? optim->steps : 0;
}
void te_optim_set_steps(te_optim *optim, int64_t steps) {
    if (optim && steps >= 0 && steps <= INT64_C(1) << 53) optim->steps = steps;
}

void te_optim_zero_grad(te_optim *optim) {
    for (int64_t i = 0; i < te_optim_count(optim); i++) {
        te_zero_grad(optim->entries[i].param);
        if (optim->ctx->single_use) te_grad_drop(optim->entries[i].param);
    }
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

typedef struct {
    const te_optim_entry *entry;
    const te_kernels *kernels;
    const te_adam_step *step;
} te_adam_work;

static void te_adam_range(void *argument, int thread, int64_t i, int64_t end) {
    const te_adam_work *w = argument;
    const te_optim_entry *entry = w->entry;
    (void)thread;
    w->kernels->adam(end - i, w->step, entry->param->grad + i, te_values(entry->param) + i,
                     entry->state[0] + i, entry->state[1] + i);
}

/* m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
 * param -= lr * factor * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) */
static void te_adam_update(te_optim *optim, te_optim_entry *entry, double lr, double factor) {
    const double decay = entry->decay ? optim->weight_decay : 0;
    const int decoupled = optim->kind != TE_OPTIM_ADAM;
    const double t = (double)optim->steps;
    te_adam_step step = {.beta1 = (te_float)optim->beta1,
                         .beta2 = (te_float)optim->beta2,
                         .rest1 = (te_float)(1 - optim->beta1),
                         .rest2 = (te_float)(1 - optim->beta2),
                         .rate = (te_float)(lr * factor / (1 - pow(optim->beta1, t))),
                         .root_correction = (te_float)(1 / sqrt(1 - pow(optim->beta2, t))),
                         .eps = (te_float)optim->eps,
                         .keep = (te_float)(decoupled ? 1 - lr * decay : 1),
                         .l2 = (te_float)(decoupled ? 0 : decay)};
    te_adam_work work = {entry, optim->ctx->kernels, &step};
    te_share(optim->ctx, entry->param->numel, TE_SHARE_FLOATS, te_adam_range, &work);
}

static void te_chuck_update(te_optim *optim, te_optim_entry *entry, double lr) {
    const te_chuck_memory *chuck = optim->chuck;
    const te_tensor *param = entry->param;
    const double norm =
        sqrt((double)optim->ctx->kernels->sum_squares(param->numel, 0, param->grad));
    if (!te_chuck_watch_norm(entry->watch, &chuck->set, norm)) return;
    te_adam_update(optim, entry, lr,
                   chuck->scale * chuck->losses.lambda * entry->watch->norms.lambda);
    /* Noise below a thousandth of what it started with is over. */
    if (chuck->noise > chuck->set.noise * 1e-3) te_chuck_stir(entry->param, chuck->noise);
}

te_status te_optim_observe(te_optim *optim, double loss) {
    if (!optim) return TE_ERR_VALUE;
    if (!isfinite(loss)) {
        te_fail(optim->ctx, TE_ERR_VALUE, "optim_observe: the loss %g is not a number", loss);
        return TE_ERR_VALUE;
    }
    if (optim->chuck) te_chuck_observe(optim->chuck, loss);
    return TE_OK;
}

te_status te_optim_step(te_optim *optim, double lr) {
    if (!optim) return TE_ERR_VALUE;
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
        else if (optim->chuck)
            te_chuck_update(optim, entry, lr);
        else
            te_adam_update(optim, entry, lr, 1);
    }
    return TE_OK;
}

/* ---- What Chuck remembers ---- */

double te_chuck_read(const te_optim *optim, int64_t i, int what) {
    const te_chuck_memory *chuck = optim ? optim->chuck : NULL;
    if (!chuck || i >= optim->count) return NAN;
    const te_chuck_watch *watch = i >= 0 ? optim->entries[i].watch : NULL;
    const te_chuck_follower *follower = watch ? &watch->norms : &chuck->losses;
    switch (what) {
    case TE_CHUCK_MEAN:
        return watch ? watch->norm : chuck->mean;
    case TE_CHUCK_TREND:
        return follower->trend;
    case TE_CHUCK_LAMBDA:
        return follower->lambda;
    case TE_CHUCK_NOISE:
        return watch ? NAN : chuck->noise;
    case TE_CHUCK_FROZEN:
        return watch ? (double)watch->frozen : NAN;
    case TE_CHUCK_SCALE:
        return watch ? NAN : chuck->scale;
    case TE_CHUCK_SLOW_MEAN:
        return watch ? NAN : chuck->slow_mean;
    default:
        return NAN;
    }
}

enum {
    TE_CHUCK_SETTINGS_BYTES = sizeof(te_chuck_settings),
    TE_CHUCK_LOSS_WORDS = (sizeof(te_chuck_memory) - TE_CHUCK_SETTINGS_BYTES) / 8,
    TE_CHUCK_WATCH_WORDS = sizeof(te_chuck_watch) / 8
};

int64_t te_chuck_words(const te_optim *optim) {
    return optim && optim->chuck ? TE_CHUCK_LOSS_WORDS + optim->count * TE_CHUCK_WATCH_WORDS : 0;
}

void te_chuck_save(const te_optim *optim, uint64_t *words) {
    if (!optim || !optim->chuck || !words) return;
    memcpy(words, &optim->chuck->losses, TE_CHUCK_LOSS_WORDS * 8);
    words += TE_CHUCK_LOSS_WORDS;
    for (int64_t i = 0; i < optim->count; i++, words += TE_CHUCK_WATCH_WORDS)
        memcpy(words, optim->entries[i].watch, sizeof(te_chuck_watch));
}

te_status te_chuck_load(te_optim *optim, const uint64_t *words, int64_t count) {
    if (!optim) return TE_ERR_VALUE;
    te_chuck_memory *chuck = optim->chuck;
    te_chuck_memory read;
    if (!chuck || !words || count != te_chuck_words(optim)) goto refuse;
    memcpy(&read.losses, words, TE_CHUCK_LOSS_WORDS * 8);
    if (!te_chuck_memory_valid(&read, &chuck->set)) goto refuse;
    for (int64_t i = 0; i < optim->count; i++) {
        te_chuck_watch watch;
        memcpy(&watch, words + TE_CHUCK_LOSS_WORDS + i * TE_CHUCK_WATCH_WORDS, sizeof watch);
        if (!te_chuck_watch_valid(&watch, &chuck->set)) goto refuse;
    }
    memcpy(&chuck->losses, words, TE_CHUCK_LOSS_WORDS * 8);
    words += TE_CHUCK_LOSS_WORDS;
    for (int64_t i = 0; i < optim->count; i++, words += TE_CHUCK_WATCH_WORDS)
        memcpy(optim->entries[i].watch, words, sizeof(te_chuck_watch));
    return TE_OK;
refuse:
    te_fail(optim->ctx, TE_ERR_VALUE,
            "chuck_load: the %lld words are not a state of this optimiser, which is %lld words of "
            "finite numbers",
            (long long)count, (long long)te_chuck_words(optim));
    return TE_ERR_VALUE;
}
