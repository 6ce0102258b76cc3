/* ops_norm.c - RMSNorm (arXiv 1910.07467) and LayerNorm (arXiv 1607.06450) over the last dimension.
 * RMSNorm is LayerNorm with the mean taken as zero, so both share the passes over a row. */
#include "internal.h"
#include "kernels.h"

/* Rows are taken in blocks of this many, by one thread each. A block sums up its own dgain and
 * dbias, and these are added up in order, so that results do not depend on the threads. */
enum { TE_NORM_BLOCK = 64 };

typedef struct {
    const te_kernels *kernels;
    int64_t rows, n;
    int centred;
    te_float eps;
    const te_float *x, *gain, *bias;
    te_float *y, *stats; /* stats [rows, 2] = mean and rstd */
    te_norm_back back;   /* of the first row */
    te_float *parts;     /* [blocks, 2, n]: dgain and dbias of each block */
} te_norm_work;

static int64_t te_norm_blocks(int64_t rows) {
    return (rows + TE_NORM_BLOCK - 1) / TE_NORM_BLOCK;
}

static void te_norm_range(void *argument, int thread, int64_t first, int64_t last) {
    const te_norm_work *w = argument;
    const int64_t i = first * TE_NORM_BLOCK, end = last * TE_NORM_BLOCK;
    (void)thread;
    w->kernels->norm((end < w->rows ? end : w->rows) - i, w->n, w->centred, w->eps, w->x + i * w->n,
                     w->gain, w->bias, w->y + i * w->n, w->stats + 2 * i);
}

static te_tensor *te_norm(te_ctx *ctx, int op, const char *name, te_tensor *x, te_tensor *gain,
                          te_tensor *bias, double eps) {
    if (!te_check_float(ctx, name, "x", x) || !te_check_float(ctx, name, "gain", gain) ||
        !te_check_dims(ctx, name, "x", x, 1) || !te_check_vector(ctx, name, "gain", gain, x) ||
        (bias && !te_check_vector(ctx, name, "bias", bias, x)))
        return NULL;
    if (!(eps >= 0))
        return te_fail(ctx, TE_ERR_VALUE, "%s: eps %g must not be negative", name, eps);
    te_tensor *y = te_tensor_like(ctx, x);
    te_float *stats = te_alloc_floats(ctx, 2 * te_rows(x));
    if (!y || !stats) {
        te_release(y);
        te_free(ctx, stats);
        return NULL;
    }
    te_norm_work work = {.kernels = ctx->kernels,
                         .rows = te_rows(x),
                         .n = te_width(x),
                         .centred = op == TE_OP_LAYERNORM,
                         .eps = (te_float)eps,
                         .x = te_values(x),
                         .gain = te_values(gain),
                         .bias = bias ? te_values(bias) : NULL,
                         .y = te_values(y),
                         .stats = stats};
    te_share(ctx, te_norm_blocks(work.rows), te_share_rows(work.n * TE_NORM_BLOCK), te_norm_range,
             &work);
    te_node node = {.op = op,
                    .n_in = bias ? 3 : 2,
                    .in = {x, gain, bias},
                    .n_float = 1,
                    .floats = {eps},
                    .saved = {stats}};
    return te_record(ctx, &node, y);
}

static void te_norm_back_range(void *argument, int thread, int64_t first, int64_t last) {
    const te_norm_work *w = argument;
    (void)thread;
    for (int64_t block = first; block < last; block++) {
        const int64_t i = block * TE_NORM_BLOCK, left = w->rows - i;
        te_norm_back c = w->back;
        te_float *part = w->parts + 2 * block * w->n;
        te_clear_floats(part, 2 * w->n);
        c.x += i * w->n;
        c.dy += i * w->n;
        c.stats += 2 * i;
        c.dx += c.dx ? i * w->n : 0;
        c.dgain = c.dgain ? part : NULL;
        c.dbias = c.dbias ? part + w->n : NULL;
        w->kernels->norm_back(left < TE_NORM_BLOCK ? left : TE_NORM_BLOCK, &c);
    }
}

/* The formulas are at norm_back in layers.h. */
static int te_norm_backward(te_ctx *ctx, te_node *node) {
    te_tensor *x = node->in[0], *gain = node->in[1], *bias = node->n_in == 3 ? node->in[2] : NULL;
    te_norm_work work = {.kernels = ctx->kernels, .rows = te_rows(x), .n = te_width(x)};
    const int64_t n = work.n, blocks = te_norm_blocks(work.rows);
    te_norm_back *c = &work.back;
    *c = (te_norm_back){.n = n,
                        .centred = node->op == TE_OP_LAYERNORM,
                        .x = te_values(x),
                        .dy = node->out->grad,
                        .gain = te_values(gain),
                        .stats = node->saved[0]};
    work.parts = te_alloc_floats(ctx, 2 * blocks * n);
    const int done = work.parts &&
                     (!gain->requires_grad || (c->dgain = te_grad_sum_buffer(gain))) &&
                     (!bias || !bias->requires_grad || (c->dbias = te_grad_sum_buffer(bias))) &&
                     (!x->requires_grad || (c->dx = te_grad_buffer(x, &c->accumulate)));
    if (done) {
        te_share(ctx, blocks, te_share_rows(n * TE_NORM_BLOCK), te_norm_back_range, &work);
        for (int64_t i = 0; i < blocks; i++) {
            const te_float *part = work.parts + 2 * i * n;
            if (c->dgain) ctx->kernels->add(n, c->dgain, part, c->dgain);
            if (c->dbias) ctx->kernels->add(n, c->dbias, part + n, c->dbias);
        }
    }
    te_free(ctx, work.parts);
    return done;
}

te_tensor *te_rmsnorm(te_ctx *ctx, te_tensor *x, te_tensor *gain, double eps) {
    return te_norm(ctx, TE_OP_RMSNORM, "rmsnorm", x, gain, NULL, eps);
}

te_tensor *te_layernorm(te_ctx *ctx, te_tensor *x, te_tensor *gain, te_tensor *bias, double eps) {
    if (!te_check_optional(ctx, "layernorm", "bias", bias)) return NULL;
    return te_norm(ctx, TE_OP_LAYERNORM, "layernorm", x, gain, bias, eps);
}
