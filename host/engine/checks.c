/* checks.c - what operations ask of their inputs, and small helpers that they share. */
#include "internal.h"
#include "kernels.h"

/* Each check returns 1, or records the failure and returns 0. */

static int te_check_owner(te_ctx *ctx, const char *op, const char *name, const te_tensor *t) {
    if (!ctx || !t) {
        te_fail(ctx, TE_ERR_VALUE, "%s: %s is NULL", op, name);
        return 0;
    }
    if (t->ctx != ctx) {
        te_fail(ctx, TE_ERR_VALUE, "%s: %s belongs to another context", op, name);
        return 0;
    }
    return 1;
}

/* Also brings what te_values or te_integers will give up to date. */
static int te_check(te_ctx *ctx, const char *op, const char *name, te_tensor *t, int dtype) {
    static const char *const names[] = {"float", "int32"};
    if (!te_check_owner(ctx, op, name, t)) return 0;
    if (t->dtype != dtype) {
        te_fail(ctx, TE_ERR_TYPE, "%s: %s must be %s, got %s", op, name, names[dtype],
                names[t->dtype]);
        return 0;
    }
    return te_make_dense(t);
}

static int te_check_float(te_ctx *ctx, const char *op, const char *name, te_tensor *t) {
    return te_check(ctx, op, name, t, TE_DTYPE_FLOAT);
}

/* An input that may be NULL; but a NULL after a failure is that failure passed on. */
static int te_check_optional(te_ctx *ctx, const char *op, const char *name, te_tensor *t) {
    if (!t) return ctx && ctx->status == TE_OK;
    return te_check_float(ctx, op, name, t);
}

static int te_check_dims(te_ctx *ctx, const char *op, const char *name, const te_tensor *t,
                         int at_least) {
    char text[TE_SHAPE_CHARS];
    if (t->ndim >= at_least) return 1;
    te_fail(ctx, TE_ERR_SHAPE, "%s: %s needs %d dimensions or more, got %s", op, name, at_least,
            te_shape_text(t, text));
    return 0;
}

static int te_same_shape(const te_tensor *a, const te_tensor *b) {
    return a->ndim == b->ndim && !memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof a->shape[0]);
}

/* Two inputs whose shapes do not go together. */
static void *te_fail_shapes(te_ctx *ctx, const char *op, const char *a_name, const te_tensor *a,
                            const char *b_name, const te_tensor *b, const char *rule) {
    char a_text[TE_SHAPE_CHARS], b_text[TE_SHAPE_CHARS];
    return te_fail(ctx, TE_ERR_SHAPE, "%s: %s %s and %s %s do not fit (%s)", op, a_name,
                   te_shape_text(a, a_text), b_name, te_shape_text(b, b_text), rule);
}

/* A vector [n] that goes with the last dimension of x. */
static int te_check_vector(te_ctx *ctx, const char *op, const char *name, const te_tensor *t,
                           const te_tensor *x) {
    if (t->ndim == 1 && x->ndim >= 1 && t->shape[0] == x->shape[x->ndim - 1]) return 1;
    te_fail_shapes(ctx, op, "x", x, name, t, "needs [..., n] and [n]");
    return 0;
}

/* Size of the last dimension, and how many such rows there are. */
static int64_t te_width(const te_tensor *t) {
    return t->shape[t->ndim - 1];
}
static int64_t te_rows(const te_tensor *t) {
    return te_width(t) ? t->numel / te_width(t) : 0;
}

/* Elements in row-major order, of an input as it was when its operation checked it. */
static te_float *te_values(const te_tensor *t) {
    return t->strided ? t->dense : t->data;
}
static const int32_t *te_integers(const te_tensor *t) {
    return t->strided ? t->dense : t->data;
}

/* Uninitialised memory for n floats. */
static te_float *te_alloc_floats(te_ctx *ctx, int64_t n) {
    return te_alloc(ctx, n * (int64_t)sizeof(te_float));
}

static void te_clear_floats(te_float *values, int64_t n) {
    memset(values, 0, (size_t)n * sizeof *values);
}

/* Operations on arrays are shared among threads from about this many elements each. */
enum { TE_SHARE_FLOATS = 8192 };

static int64_t te_share_rows(int64_t width) {
    return 1 + TE_SHARE_FLOATS / (width + 1);
}

typedef struct {
    te_ctx *ctx;
    const te_gemm *gemm;
    int columns; /* columns of c are shared, in units of TE_SHARE_COLUMNS; else its rows */
} te_product_work;

enum {
    TE_SHARE_COLUMNS = 16,
    TE_SHARE_PRODUCTS = 1 << 19,
    TE_SHARE_ROWS = 512,
    TE_SHARE_WIDE = 128
};

static void te_product_range(void *argument, int thread, int64_t first, int64_t last) {
    const te_product_work *work = argument;
    te_gemm part = *work->gemm;
    if (work->columns) {
        first *= TE_SHARE_COLUMNS;
        last *= TE_SHARE_COLUMNS;
        part.n = (last < part.n ? last : part.n) - first;
        part.b += first * part.b_col;
        part.c += first;
        part.bias += part.bias ? first : 0;
    } else {
        part.m = last - first;
        part.a += first * part.a_row;
        part.c += first * part.c_row;
        part.row_scale += part.row_scale ? first : 0;
    }
    work->ctx->kernels->gemm(&part, te_pack_of(work->ctx, thread));
}

static void te_product(te_ctx *ctx, const te_gemm *g) {
    if (te_blas_product(ctx, g)) return;
    /* Each part of the rows would pack b again, which few rows do not repay. */
    te_product_work work = {ctx, g,
                            g->n >= g->m || (g->m < TE_SHARE_ROWS && g->n >= TE_SHARE_WIDE)};
    const int64_t units = work.columns ? (g->n + TE_SHARE_COLUMNS - 1) / TE_SHARE_COLUMNS : g->m;
    const int64_t cost = g->m * g->n * g->k / (units > 0 ? units : 1);
    te_share(ctx, units, 1 + TE_SHARE_PRODUCTS / (cost + 1), te_product_range, &work);
}

/* The gradient buffer of t, zeroed where it holds nothing yet, so that a pass may add to it. */
static te_float *te_grad_sum_buffer(te_tensor *t) {
    int accumulate = 0;
    te_float *grad = te_grad_buffer(t, &accumulate);
    if (grad && !accumulate) te_clear_floats(grad, t->numel);
    return grad;
}

typedef struct {
    const te_kernels *kernels;
    const te_float *from;
    te_float *to;
    int accumulate;
} te_pass_work;

static void te_pass_range(void *argument, int thread, int64_t i, int64_t end) {
    const te_pass_work *w = argument;
    (void)thread;
    w->kernels->move(1, end - i, w->from + i, 0, w->to + i, 0, w->accumulate);
}

/* Adds the n values at dy to the gradient of t, where t requires one. */
static int te_pass_grad(te_ctx *ctx, te_tensor *t, const te_float *dy) {
    int accumulate = 0;
    if (!t->requires_grad) return 1;
    te_float *grad = te_grad_buffer(t, &accumulate);
    if (!grad) return 0;
    te_pass_work work = {ctx->kernels, dy, grad, accumulate};
    te_share(ctx, t->numel, TE_SHARE_FLOATS, te_pass_range, &work);
    return 1;
}

/* Whether the buffer of the gradient of `out`, which its operation alone still needs, can become
 * that of t: both are intermediate results of one size, and t has none yet. */
static int te_may_hand_grad(const te_tensor *out, const te_tensor *t) {
    return t->requires_grad && !t->grad_set && t->node >= 0 && !out->keep_grad;
}

/* As te_pass_grad with all of the gradient of `out`, by changing hands where that is possible. */
static int te_hand_grad(te_ctx *ctx, te_tensor *out, te_tensor *t) {
    if (!te_may_hand_grad(out, t)) return te_pass_grad(ctx, t, out->grad);
    te_float *spare = t->grad;
    t->grad = out->grad;
    t->grad_set = 1;
    out->grad = spare;
    out->grad_set = 0;
    return 1;
}

/* sums[j] += x[0][j] + ... + x[rows - 1][j] for x [rows, n], on any number of threads and any
 * instruction set the same. Sixteen rows make a sum, sixteen sums one of the next level, so that
 * rounding errors grow with the levels and not with the rows (Higham 1993, pairwise summation). */
static void te_add_columns(te_ctx *ctx, int64_t rows, int64_t n, const te_float *x,
                           te_float *sums) {
    enum { CHUNK = 64, FAN = 16, LEVELS = 10 /* 16^10 rows and more than there can be */ };
    te_float level[LEVELS][CHUNK];
    const int64_t beside = n ? CHUNK / n : 0;
    if (beside > 1 && rows >= 2 * beside) { /* short rows: as many beside each other as go */
        te_float folded[CHUNK] = {0};
        te_add_columns(ctx, rows / beside, beside * n, x, folded);
        te_add_columns(ctx, beside, n, folded, sums);
        x += rows / beside * beside * n;
        rows %= beside;
    }
    for (int64_t j = 0; j < n; j += CHUNK) {
        const int64_t width = n - j < CHUNK ? n - j : CHUNK;
        for (int64_t i = 0; i < rows; i++) {
            const te_float *from = x + i * n + j;
            int64_t place = i; /* of `from` in its level */
            for (int l = 0; l < LEVELS; l++, place /= FAN) {
                if (place % FAN)
                    ctx->kernels->add(width, level[l], from, level[l]);
                else
                    memcpy(level[l], from, (size_t)width * sizeof *from);
                from = level[l];
                if (place % FAN != FAN - 1) break;
            }
        }
        for (int64_t l = 0, rest = rows; rest; l++, rest /= FAN)
            if (rest % FAN) ctx->kernels->add(width, sums + j, level[l], sums + j);
    }
}
