/* context.c - life of a context, its memory pool, and the text of its last error. */
#include "internal.h"

/* ---- Memory pool ----
 * Blocks come in size classes, four per power of two, and return to the list of their class when
 * a tensor goes. A training step asks for the same sizes as the one before, so that after the first
 * step nothing is allocated, while a tensor that is kept longer simply keeps its block. */

static int te_size_class(int64_t bytes, int64_t *class_bytes) {
    int64_t size = 64;
    int index = 0;
    while (size + size < bytes) {
        size += size;
        index += 4;
    }
    for (int quarter = 0; quarter <= 4; quarter++) {
        int64_t candidate = size + size / 4 * quarter;
        if (bytes <= candidate) {
            *class_bytes = candidate;
            return index + quarter;
        }
    }
    return TE_SIZE_CLASSES; /* not reached: size + size >= bytes */
}

static void *te_alloc(te_ctx *ctx, int64_t bytes) {
    const int64_t header = 64, slack = 64;
    int64_t class_bytes = 0;
    if (ctx->fail_in >= 0 && ctx->fail_in-- == 0)
        return te_fail(ctx, TE_ERR_MEMORY, "out of memory (failure injected by a test)");
    if (bytes < 0 || bytes > INT64_C(1) << 40)
        return te_fail(ctx, TE_ERR_MEMORY, "out of memory: %lld bytes asked for", (long long)bytes);
    int index = te_size_class(bytes, &class_bytes);
    te_block *block = ctx->free_blocks[index];
    if (block) {
        ctx->free_blocks[index] = block->next;
    } else {
        void *raw = malloc((size_t)(class_bytes + header + slack));
        if (!raw)
            return te_fail(ctx, TE_ERR_MEMORY, "out of memory: %lld bytes asked for",
                           (long long)bytes);
        uintptr_t payload = ((uintptr_t)raw + (uintptr_t)(header + slack) - 1) & ~(uintptr_t)63;
        block = (te_block *)(payload - (uintptr_t)header);
        block->raw = raw;
        block->size_class = index;
        ctx->bytes_held += class_bytes;
        if (ctx->bytes_held > ctx->bytes_peak) ctx->bytes_peak = ctx->bytes_held;
    }
    ctx->bytes_used += class_bytes;
    return (char *)block + header;
}

static int64_t te_class_bytes(int size_class) {
    return ((int64_t)64 << (size_class / 4)) / 4 * (4 + size_class % 4);
}

static void te_free(te_ctx *ctx, void *payload) {
    if (!payload) return;
    te_block *block = (te_block *)((char *)payload - 64);
    block->next = ctx->free_blocks[block->size_class];
    ctx->free_blocks[block->size_class] = block;
    ctx->bytes_used -= te_class_bytes(block->size_class);
}

void te_ctx_trim(te_ctx *ctx) {
    for (int i = 0; i < TE_SIZE_CLASSES; i++) {
        while (ctx->free_blocks[i]) {
            te_block *block = ctx->free_blocks[i];
            ctx->free_blocks[i] = block->next;
            ctx->bytes_held -= te_class_bytes(i);
            free(block->raw);
        }
    }
}

int64_t te_bytes_used(const te_ctx *ctx) {
    return ctx->bytes_used;
}
int64_t te_bytes_held(const te_ctx *ctx) {
    return ctx->bytes_held;
}
int64_t te_bytes_peak(const te_ctx *ctx) {
    return ctx->bytes_peak;
}
void te_fail_allocation(te_ctx *ctx, int64_t n) {
    ctx->fail_in = n;
}

/* ---- Errors ---- */

/* Keeps the first failure; returns NULL so that a caller can return the result. */
static void *te_fail(te_ctx *ctx, te_status status, const char *format, ...) {
    if (ctx->status == TE_OK) {
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
    return ctx->status;
}
const char *te_last_error(const te_ctx *ctx) {
    return ctx->error;
}

void te_clear_error(te_ctx *ctx) {
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
    ctx->recording = on != 0;
}
int te_recording(const te_ctx *ctx) {
    return ctx->recording;
}
void te_set_training(te_ctx *ctx, int on) {
    ctx->training = on != 0;
}
int te_training(const te_ctx *ctx) {
    return ctx->training;
}
void te_set_own_results(te_ctx *ctx, int on) {
    ctx->own_results = on != 0;
}

const char *te_simd(const te_ctx *ctx) {
    return ctx->kernels->name;
}

te_status te_set_simd(te_ctx *ctx, const char *name) {
    const te_kernels *kernels = te_find_kernels(name);
    if (!kernels) {
        te_fail(ctx, TE_ERR_VALUE, "simd: this machine has no kernels \"%s\"", name);
        return TE_ERR_VALUE;
    }
    ctx->kernels = kernels;
    return TE_OK;
}
