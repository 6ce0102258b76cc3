/* threads.c - helper threads of a context that share out loops. Every element is computed by one
 * thread in one order, so that results do not depend on how many there are. */
#include "internal.h"

/* Work on items first to last - 1; `thread` numbers who does it, from 0. */
typedef void (*te_range_fn)(void *work, int thread, int64_t first, int64_t last);

enum { TE_MAX_THREADS = 64, TE_SPINS = 4000, TE_PARTS = 2 };

#if !defined(TE_NO_THREADS) && (defined(__unix__) || defined(__APPLE__)) &&                        \
    !defined(__STDC_NO_ATOMICS__)
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

/* A loop is cut into parts that threads take one by one, so that the caller ends up with the parts
 * of a helper that the system lets wait, and waits only for parts that have been begun. */
struct te_pool {
    int helpers; /* threads besides the caller's */
    int forks;   /* te_forks when they began */
    pthread_t threads[TE_MAX_THREADS];
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_ullong ticket; /* number of the loop << 32 | end << 16 | start of the parts to take */
    atomic_int begun;     /* parts that are not done yet */
    atomic_int stop;
    te_range_fn function;
    void *work;
    int64_t count, parts;
};

typedef struct {
    struct te_pool *pool;
    int thread;
} te_helper;

/* The child of a fork() has a copy of the pool, and no helpers. */
static atomic_int te_forks;
static pthread_once_t te_forks_once = PTHREAD_ONCE_INIT;

static void te_count_fork(void) {
    atomic_fetch_add(&te_forks, 1);
}

static void te_watch_forks(void) {
    pthread_atfork(NULL, NULL, te_count_fork);
}

static int te_pool_works(const struct te_pool *pool) {
    return pool && pool->forks == atomic_load(&te_forks);
}

/* Does one part of the loop in hand; 0 when there is none left to take. The caller begins with the
 * first, helpers with the last, so that each finds most of what it made in the loop before in its
 * own cache. Whoever has a part may read the loop's description, which stays until all are done. */
static int te_take_part(struct te_pool *pool, int thread) {
    unsigned long long ticket = atomic_load(&pool->ticket);
    int64_t part, end;
    do {
        part = (int64_t)(ticket & 0xffff);
        end = (int64_t)(ticket >> 16 & 0xffff);
        if (part >= end) return 0;
    } while (!atomic_compare_exchange_weak(&pool->ticket, &ticket,
                                           thread ? ticket - (1 << 16) : ticket + 1));
    if (thread) part = end - 1;
    pool->function(pool->work, thread, pool->count * part / pool->parts,
                   pool->count * (part + 1) / pool->parts);
    atomic_fetch_sub(&pool->begun, 1);
    return 1;
}

static int te_idle(struct te_pool *pool) {
    const unsigned long long ticket = atomic_load(&pool->ticket);
    return (ticket & 0xffff) >= (ticket >> 16 & 0xffff) && !atomic_load(&pool->stop);
}

static void te_relax(void) {
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_ia32_pause();
#endif
}

/* Waits for the next loop: awake for a while, as loops follow each other closely, then asleep. */
static void *te_helper_main(void *argument) {
    te_helper self = *(te_helper *)argument;
    struct te_pool *pool = self.pool;
    free(argument);
    while (!atomic_load(&pool->stop)) {
        for (int spin = 0; spin < TE_SPINS && te_idle(pool); spin++) te_relax();
        if (te_idle(pool)) {
            pthread_mutex_lock(&pool->lock);
            while (te_idle(pool)) pthread_cond_wait(&pool->wake, &pool->lock);
            pthread_mutex_unlock(&pool->lock);
        }
        while (te_take_part(pool, self.thread)) continue;
    }
    return NULL;
}

static void te_pool_free(struct te_pool *pool) {
    if (!te_pool_works(pool)) {
        free(pool);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->stop, 1);
    pthread_mutex_unlock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    for (int i = 0; i < pool->helpers; i++) pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* NULL when the system gives no memory or no thread. */
static struct te_pool *te_pool_new(int threads) {
    struct te_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return NULL;
    pthread_once(&te_forks_once, te_watch_forks);
    pool->forks = atomic_load(&te_forks);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    while (pool->helpers < threads - 1) {
        te_helper *helper = malloc(sizeof *helper);
        if (helper) *helper = (te_helper){pool, pool->helpers + 1};
        if (!helper ||
            pthread_create(&pool->threads[pool->helpers], NULL, te_helper_main, helper)) {
            free(helper);
            te_pool_free(pool);
            return NULL;
        }
        pool->helpers++;
    }
    return pool;
}

/* Calls `function` for all of `count` items, in parts of at least `grain`. */
static void te_share(te_ctx *ctx, int64_t count, int64_t grain, te_range_fn function, void *work) {
    struct te_pool *pool = te_pool_works(ctx->pool) ? ctx->pool : NULL;
    int64_t parts = pool ? TE_PARTS * (pool->helpers + 1) : 1;
    if (count / grain < parts) parts = count / grain;
    /* as many for each thread */
    if (pool && parts > pool->helpers) parts -= parts % (pool->helpers + 1);
    if (parts < 2) {
        function(work, 0, 0, count);
        return;
    }
    pool->function = function;
    pool->work = work;
    pool->count = count;
    pool->parts = parts;
    atomic_store(&pool->begun, (int)parts);
    pthread_mutex_lock(&pool->lock);
    const unsigned long long loop = (atomic_load(&pool->ticket) >> 32) + 1;
    atomic_store(&pool->ticket, loop << 32 | (unsigned long long)parts << 16);
    pthread_mutex_unlock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    while (te_take_part(pool, 0)) continue;
    for (int spin = 0; atomic_load(&pool->begun); spin++) {
        te_relax();
        if (spin >= TE_SPINS) sched_yield();
    }
}
#else
static int te_pool_works(const struct te_pool *pool) {
    (void)pool;
    return 0;
}
static void te_pool_free(struct te_pool *pool) {
    (void)pool;
}
static struct te_pool *te_pool_new(int threads) {
    (void)threads;
    return NULL;
}
static void te_share(te_ctx *ctx, int64_t count, int64_t grain, te_range_fn function, void *work) {
    (void)ctx;
    (void)grain;
    function(work, 0, 0, count);
}
#endif

int te_threads(const te_ctx *ctx) {
    return ctx ? ctx->threads : 0;
}

te_status te_set_threads(te_ctx *ctx, int threads) {
    struct te_pool *pool = NULL;
    if (!ctx) return TE_ERR_VALUE;
    if (threads < 1 || threads > TE_MAX_THREADS) {
        te_fail(ctx, TE_ERR_VALUE, "threads: %d asked for, 1 to %d are possible", threads,
                (int)TE_MAX_THREADS);
        return TE_ERR_VALUE;
    }
    if (threads == ctx->threads && (threads == 1 || te_pool_works(ctx->pool))) return TE_OK;
    te_float *pack = te_alloc(ctx, threads * TE_PACK_FLOATS * (int64_t)sizeof(te_float));
    if (!pack) return ctx->status;
    if (threads > 1 && (te_injected_failure(ctx) || !(pool = te_pool_new(threads)))) {
        te_free(ctx, pack);
        te_fail(ctx, TE_ERR_STATE, "threads: this system gives no %d threads", threads);
        return ctx->status;
    }
    te_pool_free(ctx->pool);
    te_free(ctx, ctx->pack);
    ctx->pool = pool;
    ctx->pack = pack;
    ctx->threads = threads;
    return TE_OK;
}

/* Workspace of matrix products for one thread. */
static te_float *te_pack_of(const te_ctx *ctx, int thread) {
    return ctx->pack + (int64_t)thread * TE_PACK_FLOATS;
}
