/* pool.c - memory of a context. Tensors live in regions that come from malloc; what they give up is
 * joined with free neighbours and used again for any size. A training step asks for the same sizes
 * as the one before, so that after the first step nothing comes from the system. */
#include "internal.h"

/* With the address sanitizer every block is a region of its own and ends when it is freed, so that
 * the sanitizer sees what is touched beyond it or after it. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TE_PLAIN_POOL
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define TE_PLAIN_POOL
#endif
#ifdef TE_PLAIN_POOL
enum { TE_POOL_SHARED = 0 };
#else
enum { TE_POOL_SHARED = 1 };
#endif

/* Sizes are multiples of the unit, and so are the addresses of blocks and of what is in them. A
 * block starts with a header of one unit. */
enum { TE_POOL_UNIT = 64, TE_POOL_REGION = 1 << 16, TE_POOL_TRIES = 8 };

struct te_block {
    int64_t size;              /* with this header */
    te_block *before;          /* in memory; NULL for the first of its region */
    te_block *next, *previous; /* in the bin, while free */
    int used, last;            /* last of its region */
};

struct te_region {
    te_region *next;
    void *raw; /* what malloc returned */
    int64_t size;
};

static te_block *te_block_after(te_block *b) {
    return b->last ? NULL : (te_block *)((char *)b + b->size);
}

static te_block *te_region_first(te_region *region) {
    return (te_block *)((char *)region + TE_POOL_UNIT);
}

/* ---- Bins of free blocks: four for each power of two ---- */

/* The bin of blocks of this size, which are at least as large as the smallest of the bin. */
static int te_bin_of(int64_t size) {
    const uint64_t units = (uint64_t)size / TE_POOL_UNIT;
    int power = 0;
    while (units >> power > 1) power++;
    const int bin = 4 * power + (int)((units << 2 >> power) & 3);
    return bin < TE_SIZE_CLASSES ? bin : TE_SIZE_CLASSES - 1;
}

static void te_bin_put(te_ctx *ctx, te_block *b) {
    const int bin = te_bin_of(b->size);
    b->used = 0;
    b->previous = NULL;
    b->next = ctx->bins[bin];
    if (b->next) b->next->previous = b;
    ctx->bins[bin] = b;
    ctx->bins_used[bin / 64] |= UINT64_C(1) << bin % 64;
}

static void te_bin_take(te_ctx *ctx, te_block *b) {
    const int bin = te_bin_of(b->size);
    if (b->next) b->next->previous = b->previous;
    if (b->previous)
        b->previous->next = b->next;
    else
        ctx->bins[bin] = b->next;
    if (!ctx->bins[bin]) ctx->bins_used[bin / 64] &= ~(UINT64_C(1) << bin % 64);
}

/* A free block of at least `size`, nearly the smallest; NULL when there is none. */
static te_block *te_bin_find(te_ctx *ctx, int64_t size) {
    int bin = te_bin_of(size), tries = TE_POOL_TRIES;
    for (te_block *b = ctx->bins[bin]; b && tries-- > 0; b = b->next)
        if (b->size >= size) return b;
    for (bin++; bin < TE_SIZE_CLASSES; bin++) {
        const uint64_t left = ctx->bins_used[bin / 64] >> bin % 64;
        if (left & 1) return ctx->bins[bin];
        if (!left) bin |= 63; /* nothing more in this word */
    }
    return NULL;
}

/* ---- Regions ---- */

/* A new free block of at least `size`, in a region that grows with what there is already. */
static te_block *te_region_new(te_ctx *ctx, int64_t size) {
    const int64_t extra = 2 * TE_POOL_UNIT; /* the region's own header, and alignment */
    int64_t wanted = size;
    if (TE_POOL_SHARED && wanted < TE_POOL_REGION) wanted = TE_POOL_REGION;
    if (TE_POOL_SHARED && wanted < ctx->bytes_held / 8)
        wanted = ctx->bytes_held / 8 / TE_POOL_UNIT * TE_POOL_UNIT;
    void *raw = malloc((size_t)(wanted + extra));
    if (!raw && wanted > size) raw = malloc((size_t)((wanted = size) + extra));
    if (!raw) return te_fail(ctx, TE_ERR_MEMORY, "out of memory: %lld bytes", (long long)size);
    const uintptr_t unit = TE_POOL_UNIT;
    te_region *region = (te_region *)(((uintptr_t)raw + unit - 1) / unit * unit);
    *region = (te_region){ctx->regions, raw, wanted};
    ctx->regions = region;
    ctx->bytes_held += wanted;
    if (ctx->bytes_held > ctx->bytes_peak) ctx->bytes_peak = ctx->bytes_held;
    te_block *b = te_region_first(region);
    *b = (te_block){.size = wanted, .last = 1};
    te_bin_put(ctx, b);
    return b;
}

void te_ctx_trim(te_ctx *ctx) {
    if (!ctx) return;
    te_region **link = &ctx->regions;
    while (*link) {
        te_region *region = *link;
        te_block *b = te_region_first(region);
        if (b->used || !b->last) {
            link = &region->next;
            continue;
        }
        te_bin_take(ctx, b);
        *link = region->next;
        ctx->bytes_held -= region->size;
        free(region->raw);
    }
}

/* ---- Blocks ---- */

/* Whether this allocation is the one that a test wants to fail. */
static int te_injected_failure(te_ctx *ctx) {
    if (ctx->fail_in < 0 || ctx->fail_in-- > 0) return 0;
    te_fail(ctx, TE_ERR_MEMORY, "out of memory (failure injected by a test)");
    return 1;
}

static void *te_alloc(te_ctx *ctx, int64_t bytes) {
    if (te_injected_failure(ctx)) return NULL;
    if (bytes < 0 || bytes > INT64_C(1) << 40)
        return te_fail(ctx, TE_ERR_MEMORY, "out of memory: %lld bytes asked for", (long long)bytes);
    const int64_t size = (bytes + 2 * TE_POOL_UNIT - 1) / TE_POOL_UNIT * TE_POOL_UNIT;
    te_block *b = TE_POOL_SHARED ? te_bin_find(ctx, size) : NULL;
    if (!b) b = te_region_new(ctx, size);
    if (!b) return NULL;
    te_bin_take(ctx, b);
    if (b->size >= size + 2 * TE_POOL_UNIT) { /* the rest is a block too */
        te_block *after = te_block_after(b), *rest = (te_block *)((char *)b + size);
        *rest = (te_block){.size = b->size - size, .before = b, .last = b->last};
        if (after) after->before = rest;
        b->size = size;
        b->last = 0;
        te_bin_put(ctx, rest);
    }
    b->used = 1;
    ctx->bytes_used += b->size;
    return (char *)b + TE_POOL_UNIT;
}

/* Makes one block of b and the free block after it. */
static void te_block_join(te_block *b, te_block *after) {
    te_block *next = te_block_after(after);
    b->size += after->size;
    b->last = after->last;
    if (next) next->before = b;
}

static void te_free(te_ctx *ctx, void *payload) {
    if (!payload) return;
    te_block *b = (te_block *)((char *)payload - TE_POOL_UNIT), *after = te_block_after(b);
    ctx->bytes_used -= b->size;
    if (after && !after->used) {
        te_bin_take(ctx, after);
        te_block_join(b, after);
    }
    if (b->before && !b->before->used) {
        te_block *before = b->before;
        te_bin_take(ctx, before);
        te_block_join(before, b);
        b = before;
    }
    te_bin_put(ctx, b);
    if (!TE_POOL_SHARED) te_ctx_trim(ctx);
}

int64_t te_bytes_used(const te_ctx *ctx) {
    return ctx ? ctx->bytes_used : 0;
}
int64_t te_bytes_held(const te_ctx *ctx) {
    return ctx ? ctx->bytes_held : 0;
}
int64_t te_bytes_peak(const te_ctx *ctx) {
    return ctx ? ctx->bytes_peak : 0;
}
void te_fail_allocation(te_ctx *ctx, int64_t n) {
    if (ctx) ctx->fail_in = n;
}
