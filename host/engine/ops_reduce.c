/* ops_reduce.c - sums and pooling over time, softmax and its logarithm, losses. */
#include "internal.h"
#include "kernels.h"

/* ---- Sum and mean over time: [..., time, width] -> [..., width] ---- */

static te_tensor *te_pool(te_ctx *ctx, int op, te_tensor *x) {
    const char *name = te_op_name(op);
    int64_t shape[TE_MAX_DIMS];
    char text[TE_SHAPE_CHARS];
    if (!te_check_float(ctx, name, "x", x) || !te_check_dims(ctx, name, "x", x, 2)) return NULL;
    const int64_t time = x->shape[x->ndim - 2], width = te_width(x);
    if (op == TE_OP_MEAN_POOL && x->numel == 0)
        return te_fail(ctx, TE_ERR_SHAPE, "mean_pool: x %s is empty", te_shape_text(x, text));
    memcpy(shape, x->shape, sizeof shape);
    shape[x->ndim - 2] = width;
    te_tensor *y = te_zeros(ctx, TE_DTYPE_FLOAT, x->ndim - 1, shape);
    if (!y) return NULL;
    for (int64_t i = 0; x->numel && i < te_rows(y); i++)
        te_add_columns(ctx, time, width, te_values(x) + i * time * width, te_values(y) + i * width);
    if (op == TE_OP_MEAN_POOL)
        ctx->kernels->scale(y->numel, (te_float)1 / (te_float)time, te_values(y), te_values(y));
    te_node node = {.op = op, .n_in = 1, .in = {x}};
    return te_record(ctx, &node, y);
}

te_tensor *te_sum_pool(te_ctx *ctx, te_tensor *x) {
    return te_pool(ctx, TE_OP_SUM_POOL, x);
}

te_tensor *te_mean_pool(te_ctx *ctx, te_tensor *x) {
    return te_pool(ctx, TE_OP_MEAN_POOL, x);
}

/* dx[t] = dy, over the time where it was a mean */
static int te_pool_backward(te_ctx *ctx, te_node *node) {
    te_tensor *x = node->in[0];
    const int64_t time = x->shape[x->ndim - 2], width = te_width(x);
    const te_float share = node->op == TE_OP_MEAN_POOL ? (te_float)1 / (te_float)time : 1;
    te_float *dx = te_grad_sum_buffer(x);
    if (!dx) return 0;
    for (int64_t i = 0; i < te_rows(x); i++)
        ctx->kernels->axpy(width, share, node->out->grad + i / time * width, dx + i * width);
    return 1;
}

/* ---- Largest over time: [..., time, width] -> [..., width] ---- */

/* saved[0] holds, per result, the time (int32) that it came from: the first of equals, or of NaNs,
 * which count as the largest */
te_tensor *te_max_pool(te_ctx *ctx, te_tensor *x) {
    int64_t shape[TE_MAX_DIMS];
    char text[TE_SHAPE_CHARS];
    if (!te_check_float(ctx, "max_pool", "x", x) || !te_check_dims(ctx, "max_pool", "x", x, 2))
        return NULL;
    const int64_t time = x->shape[x->ndim - 2], width = te_width(x);
    if (x->numel == 0)
        return te_fail(ctx, TE_ERR_SHAPE, "max_pool: x %s is empty", te_shape_text(x, text));
    memcpy(shape, x->shape, sizeof shape);
    shape[x->ndim - 2] = width;
    te_tensor *y = te_tensor_new(ctx, TE_DTYPE_FLOAT, x->ndim - 1, shape);
    int32_t *from = te_alloc(ctx, x->numel / time * (int64_t)sizeof *from);
    if (!y || !from) {
        te_release(y);
        te_free(ctx, from);
        return NULL;
    }
    for (int64_t i = 0; i < y->numel; i++) {
        const te_float *column = te_values(x) + i / width * time * width + i % width;
        from[i] = 0;
        for (int64_t t = 1; t < time && !isnan(column[from[i] * width]); t++)
            if (!(column[t * width] <= column[from[i] * width])) from[i] = (int32_t)t;
        te_values(y)[i] = column[from[i] * width];
    }
    te_node node = {.op = TE_OP_MAX_POOL, .n_in = 1, .in = {x}, .saved = {from}};
    return te_record(ctx, &node, y);
}

static int te_max_pool_backward(te_ctx *ctx, te_node *node) {
    te_tensor *x = node->in[0];
    const int64_t time = x->shape[x->ndim - 2], width = te_width(x);
    const int32_t *from = node->saved[0];
    te_float *dx = te_grad_sum_buffer(x);
    (void)ctx;
    if (!dx) return 0;
    for (int64_t i = 0; i < node->out->numel; i++)
        dx[(i / width * time + from[i]) * width + i % width] += node->out->grad[i];
    return 1;
}

/* ---- Softmax over the last dimension ---- */

te_tensor *te_softmax(te_ctx *ctx, te_tensor *x) {
    if (!te_check_float(ctx, "softmax", "x", x) || !te_check_dims(ctx, "softmax", "x", x, 1))
        return NULL;
    te_tensor *y = te_tensor_like(ctx, x);
    if (!y) return NULL;
    const int64_t n = te_width(x);
    for (int64_t i = 0; i < te_rows(x); i++) {
        te_float *row = te_values(y) + i * n, largest;
        te_float total = ctx->kernels->exp_row(n, 1, te_values(x) + i * n, row, &largest);
        ctx->kernels->scale(n, (te_float)1 / total, row, row);
    }
    te_node node = {.op = TE_OP_SOFTMAX, .n_in = 1, .in = {x}};
    return te_record(ctx, &node, y);
}

/* dx = y (dy - sum(y dy)) */
static int te_softmax_backward(te_ctx *ctx, te_node *node) {
    te_tensor *x = node->in[0];
    const int64_t n = te_width(x);
    int accumulate = 0;
    te_float *dx = te_grad_buffer(x, &accumulate);
    if (!dx) return 0;
    for (int64_t i = 0; i < te_rows(x); i++) {
        const te_float *y = te_values(node->out) + i * n, *dy = node->out->grad + i * n;
        te_float inner = ctx->kernels->dot(n, y, dy);
        ctx->kernels->softmax_back(n, 1, inner, y, dy, dx + i * n, accumulate);
    }
    return 1;
}

/* y = x - max - log(sum(exp(x - max))) */
te_tensor *te_log_softmax(te_ctx *ctx, te_tensor *x) {
    if (!te_check_float(ctx, "log_softmax", "x", x) ||
        !te_check_dims(ctx, "log_softmax", "x", x, 1))
        return NULL;
    te_tensor *y = te_tensor_like(ctx, x);
    if (!y) return NULL;
    const int64_t n = te_width(x);
    for (int64_t i = 0; i < te_rows(x); i++) {
        const te_float *row = te_values(x) + i * n;
        te_float *out = te_values(y) + i * n, largest;
        te_float total = ctx->kernels->exp_row(n, 1, row, out, &largest);
        const te_float share = TE_LIBM_LOG(total);
        for (int64_t j = 0; j < n; j++) out[j] = row[j] - largest - share;
    }
    te_node node = {.op = TE_OP_LOG_SOFTMAX, .n_in = 1, .in = {x}};
    return te_record(ctx, &node, y);
}

/* dx = dy - exp(y) sum(dy) */
static int te_log_softmax_backward(te_ctx *ctx, te_node *node) {
    te_tensor *x = node->in[0];
    const int64_t n = te_width(x);
    te_float *p = te_alloc_floats(ctx, n);
    te_float *dx = p ? te_grad_sum_buffer(x) : NULL;
    for (int64_t i = 0; dx && i < te_rows(x); i++) {
        const te_float *dy = node->out->grad + i * n;
        ctx->kernels->activation[TE_ACT_EXP].forward(n, te_values(node->out) + i * n, p);
        ctx->kernels->add(n, dx + i * n, dy, dx + i * n);
        ctx->kernels->axpy(n, -ctx->kernels->total(n, dy), p, dx + i * n);
    }
    te_free(ctx, p);
    return dx != NULL;
}

/* ---- Cross-entropy: weighted mean of -log softmax(logits)[label] ---- */

static int te_check_labels(te_ctx *ctx, te_tensor *logits, te_tensor *labels,
                           int64_t ignore_index) {
    if (!te_check_float(ctx, "cross_entropy", "logits", logits) ||
        !te_check(ctx, "cross_entropy", "labels", labels, TE_DTYPE_INT32) ||
        !te_check_dims(ctx, "cross_entropy", "logits", logits, 1))
        return 0;
    if (labels->numel != te_rows(logits)) {
        te_fail_shapes(ctx, "cross_entropy", "logits", logits, "labels", labels,
                       "needs [..., classes] and [...]");
        return 0;
    }
    const int32_t *label = te_integers(labels);
    for (int64_t i = 0; i < labels->numel; i++) {
        if (label[i] != ignore_index && (label[i] < 0 || label[i] >= te_width(logits))) {
            te_fail(ctx, TE_ERR_VALUE, "cross_entropy: label %d at position %lld, 0 to %lld exist",
                    (int)label[i], (long long)i, (long long)te_width(logits) - 1);
            return 0;
        }
    }
    return 1;
}

static int te_check_mask(te_ctx *ctx, te_tensor *mask, te_tensor *labels) {
    if (!te_check_float(ctx, "cross_entropy", "mask", mask)) return 0;
    if (mask->numel != labels->numel) {
        te_fail_shapes(ctx, "cross_entropy", "labels", labels, "mask", mask,
                       "needs as many elements of each");
        return 0;
    }
    if (mask->requires_grad) {
        te_fail(ctx, TE_ERR_VALUE, "cross_entropy: the mask gets no gradient, and requires one");
        return 0;
    }
    const te_float *weight = te_values(mask);
    for (int64_t i = 0; i < mask->numel; i++) {
        if (!(weight[i] >= 0) || !isfinite(weight[i])) {
            te_fail(ctx, TE_ERR_VALUE,
                    "cross_entropy: mask %g at position %lld, must be finite and not negative",
                    (double)weight[i], (long long)i);
            return 0;
        }
    }
    return 1;
}

/* What row i counts: nothing where it is ignored, else its weight in the mask, or 1. */
static double te_row_weight(const te_node *node, int64_t i) {
    if (te_integers(node->in[1])[i] == node->ints[0]) return 0;
    return node->n_in == 3 ? (double)te_values(node->in[2])[i] : 1;
}

/* saved[0] holds the probabilities [..., classes]. */
te_tensor *te_cross_entropy_masked(te_ctx *ctx, te_tensor *logits, te_tensor *labels,
                                   te_tensor *mask, int64_t ignore_index) {
    if (!mask && te_last_status(ctx) != TE_OK) return NULL;
    if (!te_check_labels(ctx, logits, labels, ignore_index) ||
        (mask && !te_check_mask(ctx, mask, labels)))
        return NULL;
    const int64_t n = te_width(logits);
    te_tensor *loss = te_tensor_new(ctx, TE_DTYPE_FLOAT, 0, NULL);
    te_float *p = te_alloc_floats(ctx, logits->numel);
    if (!loss || !p) {
        te_release(loss);
        te_free(ctx, p);
        return NULL;
    }
    te_node node = {.op = TE_OP_CROSS_ENTROPY,
                    .n_in = mask ? 3 : 2,
                    .in = {logits, labels, mask},
                    .n_int = 1,
                    .ints = {ignore_index},
                    .saved = {p}};
    double total = 0, weights = 0;
    for (int64_t i = 0; i < labels->numel; i++) {
        const double weight = te_row_weight(&node, i);
        const te_float *row = te_values(logits) + i * n;
        if (weight == 0) continue;
        te_float largest, sum = ctx->kernels->exp_row(n, 1, row, p + i * n, &largest);
        ctx->kernels->scale(n, (te_float)1 / sum, p + i * n, p + i * n);
        total +=
            weight * ((double)largest - (double)row[te_integers(labels)[i]] + log((double)sum));
        weights += weight;
    }
    te_values(loss)[0] = (te_float)(weights > 0 ? total / weights : 0);
    return te_record(ctx, &node, loss);
}

te_tensor *te_cross_entropy(te_ctx *ctx, te_tensor *logits, te_tensor *labels,
                            int64_t ignore_index) {
    return te_cross_entropy_masked(ctx, logits, labels, NULL, ignore_index);
}

/* dlogits = weight / total weight * (softmax - one_hot(label)) */
static int te_cross_entropy_backward(te_ctx *ctx, te_node *node) {
    te_tensor *logits = node->in[0], *labels = node->in[1];
    const int64_t n = te_width(logits);
    const te_float *p = node->saved[0];
    double weights = 0;
    for (int64_t i = 0; i < labels->numel; i++) weights += te_row_weight(node, i);
    te_float *grad = te_grad_sum_buffer(logits);
    if (!grad) return 0;
    for (int64_t i = 0; i < labels->numel; i++) {
        const double weight = te_row_weight(node, i);
        if (weight == 0) continue;
        const te_float share = (te_float)((double)node->out->grad[0] * weight / weights);
        ctx->kernels->axpy(n, share, p + i * n, grad + i * n);
        grad[i * n + te_integers(labels)[i]] -= share;
    }
    return 1;
}

/* ---- Mean squared error ---- */

te_tensor *te_mse(te_ctx *ctx, te_tensor *a, te_tensor *b) {
    if (!te_check_float(ctx, "mse", "a", a) || !te_check_float(ctx, "mse", "b", b)) return NULL;
    if (!te_same_shape(a, b) || a->numel == 0)
        return te_fail_shapes(ctx, "mse", "a", a, "b", b, "needs equal shapes that are not empty");
    te_tensor *loss = te_tensor_new(ctx, TE_DTYPE_FLOAT, 0, NULL);
    if (!loss) return NULL;
    double total = 0;
    for (int64_t i = 0; i < a->numel; i++) {
        double difference = (double)te_values(a)[i] - (double)te_values(b)[i];
        total += difference * difference;
    }
    te_values(loss)[0] = (te_float)(total / (double)a->numel);
    te_node node = {.op = TE_OP_MSE, .n_in = 2, .in = {a, b}};
    return te_record(ctx, &node, loss);
}

/* da = 2 (a - b) / n = -db */
static int te_mse_backward(te_ctx *ctx, te_node *node) {
    (void)ctx;
    te_tensor *a = node->in[0], *b = node->in[1];
    const te_float share = 2 * node->out->grad[0] / (te_float)a->numel;
    for (int side = 0; side < 2; side++) {
        te_tensor *t = side ? b : a;
        const te_float factor = side ? -share : share;
        if (!t->requires_grad) continue;
        te_float *grad = te_grad_sum_buffer(t);
        if (!grad) return 0;
        for (int64_t i = 0; i < a->numel; i++)
            grad[i] += factor * (te_values(a)[i] - te_values(b)[i]);
    }
    return 1;
}
