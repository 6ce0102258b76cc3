/* context.c - life of a context, and the text of its last error. */
#include "internal.h"

/* ---- Errors ---- */

/* Keeps the first failure; returns NULL so that a caller can return the result. */
static void *te_fail(te_ctx *ctx, te_status status, const char *format, ...) {
    if (ctx && ctx->status == TE_OK) {
        va_list arguments;
        ctx->status = status;
        va_start(arguments, format);
        vsnprintf(ctx->error, sizeof ctx->error, format, arguments);
        va_end(arguments);
    }
    return NULL;
}

const char *te_status_text(int status) {
    switch (status) {
    case TE_OK:
        return "ok";
    case TE_ERR_MEMORY:
        return "out of memory";
    case TE_ERR_SHAPE:
        return "dimensions do not fit";
    case TE_ERR_TYPE:
        return "wrong element type";
    case TE_ERR_VALUE:
        return "value out of range";
    case TE_ERR_STATE:
        return "not possible in this state";
    default:
        return "unknown status";
    }
}

te_status te_last_status(const te_ctx *ctx) {
    return ctx ? ctx->status : TE_ERR_VALUE;
}
const char *te_last_error(const te_ctx *ctx) {
    return ctx ? ctx->error : "the context is NULL";
}

void te_clear_error(te_ctx *ctx) {
    if (!ctx) return;
    ctx->status = TE_OK;
    ctx->error[0] = 0;
}

/* ---- Life ---- */

te_ctx *te_ctx_new(uint64_t seed) {
    te_ctx *ctx = calloc(1, sizeof *ctx);
    if (!ctx) return NULL;
    ctx->live = 1;
    ctx->recording = 1;
    ctx->training = 1;
    ctx->fail_in = -1;
    ctx->next_id = 1;
    ctx->threads = 1;
    ctx->kernels = te_best_kernels();
    ctx->pack = te_alloc(ctx, TE_PACK_FLOATS * (int64_t)sizeof(te_float));
    if (!ctx->pack) {
        free(ctx);
        return NULL;
    }
    te_seed(ctx, seed);
    return ctx;
}

/* Gives up one reason to live; the last one frees the memory. */
static void te_ctx_drop(te_ctx *ctx) {
    if (--ctx->live > 0) return;
    te_pool_free(ctx->pool);
    te_free(ctx, ctx->pack);
    te_free(ctx, ctx->rope_table);
    te_ctx_trim(ctx);
    free(ctx->nodes);
    free(ctx->results);
    free(ctx);
}

void te_ctx_free(te_ctx *ctx) {
    if (!ctx) return;
    te_tape_reset(ctx);
    te_ctx_drop(ctx);
}

void te_set_recording(te_ctx *ctx, int on) {
    if (ctx) ctx->recording = on != 0;
}
int te_recording(const te_ctx *ctx) {
    return ctx ? ctx->recording : 0;
}
void te_set_training(te_ctx *ctx, int on) {
    if (ctx) ctx->training = on != 0;
}
int te_training(const te_ctx *ctx) {
    return ctx ? ctx->training : 0;
}
void te_set_own_results(te_ctx *ctx, int on) {
    if (ctx) ctx->own_results = on != 0;
}

void te_set_single_use(te_ctx *ctx, int on) {
    if (ctx) ctx->single_use = on != 0;
}

const char *te_simd(const te_ctx *ctx) {
    return ctx ? ctx->kernels->name : "";
}

te_status te_set_simd(te_ctx *ctx, const char *name) {
    const te_kernels *kernels = ctx && name ? te_find_kernels(name) : NULL;
    if (!kernels) {
        te_fail(ctx, TE_ERR_VALUE, "simd: this machine has no kernels \"%s\"", name ? name : "");
        return TE_ERR_VALUE;
    }
    ctx->kernels = kernels;
    return TE_OK;
}
