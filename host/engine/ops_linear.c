/* ops_linear.c - linear and LoRA layers, and embedding. */
#include "internal.h"
#include "kernels.h"

/* ---- Products shared by the layers; x [rows, in], w [out, in], y [rows, out] ---- */

/* y = x w^T */
static void te_forward_product(te_ctx *ctx, int64_t rows, int64_t in, int64_t out,
                               const te_float *x, const te_float *w, te_float *y,
                               const te_float *row_scale, const te_float *bias) {
    te_gemm g = {.m = rows,
                 .n = out,
                 .k = in,
                 .a = x,
                 .a_row = in,
                 .a_col = 1,
                 .b = w,
                 .b_row = 1,
                 .b_col = in,
                 .c = y,
                 .c_row = out,
                 .row_scale = row_scale,
                 .bias = bias};
    te_product(ctx, &g);
}

/* dx (+)= dy w */
static void te_input_grad(te_ctx *ctx, int64_t rows, int64_t in, int64_t out, const te_float *dy,
                          const te_float *w, te_float *dx, int accumulate) {
    te_gemm g = {.m = rows,
                 .n = in,
                 .k = out,
                 .a = dy,
                 .a_row = out,
                 .a_col = 1,
                 .b = w,
                 .b_row = in,
                 .b_col = 1,
                 .c = dx,
                 .c_row = in,
                 .accumulate = accumulate};
    te_product(ctx, &g);
}

/* dw (+)= dy^T x */
static void te_weight_grad(te_ctx *ctx, int64_t rows, int64_t in, int64_t out, const te_float *dy,
                           const te_float *x, te_float *dw, int accumulate) {
    te_gemm g = {.m = out,
                 .n = in,
                 .k = rows,
                 .a = dy,
                 .a_row = 1,
                 .a_col = out,
                 .b = x,
                 .b_row = in,
                 .b_col = 1,
                 .c = dw,
                 .c_row = in,
                 .accumulate = accumulate};
    te_product(ctx, &g);
}

/* Gradients of y = x w^T for the two inputs, from the values that took part in the product. */
static int te_product_backward(te_ctx *ctx, te_tensor *x, te_tensor *w, const te_float *x_values,
                               const te_float *w_values, const te_float *dy) {
    const int64_t in = w->shape[1], out = w->shape[0], rows = x->numel / (in ? in : 1);
    int accumulate = 0;
    if (x->requires_grad) {
        te_float *dx = te_grad_buffer(x, &accumulate);
        if (!dx) return 0;
        te_input_grad(ctx, rows, in, out, dy, w_values, dx, accumulate);
    }
    if (w->requires_grad) {
        te_float *dw = te_grad_buffer(w, &accumulate);
        if (!dw) return 0;
        te_weight_grad(ctx, rows, in, out, dy, x_values, dw, accumulate);
    }
    return 1;
}

/* Checks x [..., in] and w [out, in]; a new tensor [..., out]. */
static te_tensor *te_linear_result(te_ctx *ctx, const char *op, te_tensor *x, te_tensor *w) {
    int64_t shape[TE_MAX_DIMS];
    if (!te_check_float(ctx, op, "x", x) || !te_check_float(ctx, op, "w", w) ||
        !te_check_dims(ctx, op, "x", x, 1))
        return NULL;
    if (w->ndim != 2 || w->shape[1] != te_width(x) || w->numel == 0)
        return te_fail_shapes(ctx, op, "x", x, "w", w, "needs [..., in] and [out, in]");
    memcpy(shape, x->shape, sizeof shape);
    shape[x->ndim - 1] = w->shape[0];
    return te_tensor_new(ctx, TE_DTYPE_FLOAT, x->ndim, shape);
}

/* ---- Linear: y = x w^T + b ---- */

te_tensor *te_linear(te_ctx *ctx, te_tensor *x, te_tensor *w, te_tensor *b) {
    if (!te_check_optional(ctx, "linear", "b", b)) return NULL;
    te_tensor *y = te_linear_result(ctx, "linear", x, w);
    if (!y) return NULL;
    if (b && !te_check_vector(ctx, "linear", "b", b, y)) {
        te_release(y);
        return NULL;
    }
    te_forward_product(ctx, te_rows(x), w->shape[1], w->shape[0], te_values(x), te_values(w),
                       te_values(y), NULL, b ? te_values(b) : NULL);
    te_node node = {.op = TE_OP_LINEAR, .n_in = b ? 3 : 2, .in = {x, w, b}};
    return te_record(ctx, &node, y);
}

static int te_linear_backward(te_ctx *ctx, te_node *node) {
    te_tensor *x = node->in[0], *w = node->in[1], *b = node->n_in == 3 ? node->in[2] : NULL;
    const te_float *dy = node->out->grad;
    if (b && b->requires_grad) {
        te_float *db = te_grad_sum_buffer(b);
        if (!db) return 0;
        te_add_columns(ctx, te_rows(node->out), b->numel, dy, db);
    }
    return te_product_backward(ctx, x, w, te_values(x), te_values(w), dy);
}

/* ---- LoRA (arXiv 2106.09685): y + scale * (x a^T) b^T ---- */

te_tensor *te_lora(te_ctx *ctx, te_tensor *y, te_tensor *x, te_tensor *a, te_tensor *b,
                   double scale) {
    if (!te_check_float(ctx, "lora", "y", y) || !te_check_float(ctx, "lora", "x", x) ||
        !te_check_float(ctx, "lora", "a", a) || !te_check_float(ctx, "lora", "b", b) ||
        !te_check_dims(ctx, "lora", "y", y, 1) || !te_check_dims(ctx, "lora", "x", x, 1))
        return NULL;
    if (a->ndim != 2 || a->shape[1] != te_width(x) || a->numel == 0)
        return te_fail_shapes(ctx, "lora", "x", x, "a", a, "needs [..., in] and [rank, in]");
    if (b->ndim != 2 || b->shape[0] != te_width(y) || b->shape[1] != a->shape[0] || b->numel == 0)
        return te_fail_shapes(ctx, "lora", "a", a, "b", b, "needs [rank, in] and [out, rank]");
    if (te_rows(x) != te_rows(y))
        return te_fail_shapes(ctx, "lora", "y", y, "x", x, "needs as many rows of each");

    const int64_t rows = te_rows(x), rank = a->shape[0], in = a->shape[1], out = b->shape[0];
    te_tensor *z = te_tensor_like(ctx, y);
    te_float *hidden = te_alloc_floats(ctx, rows * rank); /* scale * x a^T, kept for db */
    if (!z || !hidden) {
        te_release(z);
        te_free(ctx, hidden);
        return NULL;
    }
    te_forward_product(ctx, rows, in, rank, te_values(x), te_values(a), hidden, NULL, NULL);
    ctx->kernels->scale(rows * rank, (te_float)scale, hidden, hidden);
    memcpy(z->data, te_values(y), (size_t)y->numel * sizeof(te_float));
    te_gemm g = {.m = rows,
                 .n = out,
                 .k = rank,
                 .a = hidden,
                 .a_row = rank,
                 .a_col = 1,
                 .b = te_values(b),
                 .b_row = 1,
                 .b_col = rank,
                 .c = te_values(z),
                 .c_row = out,
                 .accumulate = 1};
    te_product(ctx, &g);
    te_node node = {.op = TE_OP_LORA,
                    .n_in = 4,
                    .in = {y, x, a, b},
                    .n_float = 1,
                    .floats = {scale},
                    .saved = {hidden}};
    return te_record(ctx, &node, z);
}

/* dh = scale * dz b;  db = dz^T hidden;  da = dh^T x;  dx = dh a;  dy = dz */
static int te_lora_backward(te_ctx *ctx, te_node *node) {
    te_tensor *y = node->in[0], *x = node->in[1], *a = node->in[2], *b = node->in[3];
    const int64_t rows = te_rows(x), rank = a->shape[0], in = a->shape[1], out = b->shape[0];
    const te_float *dz = node->out->grad;
    int accumulate = 0, done = 0;
    te_float *dh = te_alloc_floats(ctx, rows * rank), *target;
    if (!dh || !te_pass_grad(ctx, y, dz)) goto end;
    te_input_grad(ctx, rows, rank, out, dz, te_values(b), dh, 0);
    ctx->kernels->scale(rows * rank, (te_float)node->floats[0], dh, dh);
    if (b->requires_grad) {
        if (!(target = te_grad_buffer(b, &accumulate))) goto end;
        te_weight_grad(ctx, rows, rank, out, dz, node->saved[0], target, accumulate);
    }
    if (a->requires_grad) {
        if (!(target = te_grad_buffer(a, &accumulate))) goto end;
        te_weight_grad(ctx, rows, in, rank, dh, te_values(x), target, accumulate);
    }
    if (x->requires_grad) {
        if (!(target = te_grad_buffer(x, &accumulate))) goto end;
        te_input_grad(ctx, rows, in, rank, dh, te_values(a), target, accumulate);
    }
    done = 1;
end:
    te_free(ctx, dh);
    return done;
}

/* ---- Embedding: rows of a table ---- */

te_tensor *te_embedding(te_ctx *ctx, te_tensor *table, te_tensor *ids) {
    int64_t shape[TE_MAX_DIMS];
    if (!te_check_float(ctx, "embedding", "table", table) ||
        !te_check(ctx, "embedding", "ids", ids, TE_DTYPE_INT32))
        return NULL;
    if (table->ndim != 2 || ids->ndim >= TE_MAX_DIMS)
        return te_fail_shapes(ctx, "embedding", "table", table, "ids", ids,
                              "needs [rows, width] and at most 7 dimensions");
    const int32_t *id = te_integers(ids);
    const int64_t width = table->shape[1];
    for (int64_t i = 0; i < ids->numel; i++)
        if (id[i] < 0 || id[i] >= table->shape[0])
            return te_fail(ctx, TE_ERR_VALUE, "embedding: id %d at position %lld, 0 to %lld exist",
                           (int)id[i], (long long)i, (long long)table->shape[0] - 1);
    memcpy(shape, ids->shape, sizeof shape);
    shape[ids->ndim] = width;
    te_tensor *y = te_tensor_new(ctx, TE_DTYPE_FLOAT, ids->ndim + 1, shape);
    if (!y) return NULL;
    for (int64_t i = 0; i < ids->numel; i++)
        memcpy(te_values(y) + i * width, te_values(table) + id[i] * width,
               (size_t)width * sizeof(te_float));
    te_node node = {.op = TE_OP_EMBEDDING, .n_in = 2, .in = {table, ids}};
    return te_record(ctx, &node, y);
}

static int te_embedding_backward(te_ctx *ctx, te_node *node) {
    te_tensor *table = node->in[0], *ids = node->in[1];
    const int64_t width = table->shape[1];
    const int32_t *id = te_integers(ids);
    te_float *grad = te_grad_sum_buffer(table);
    if (!grad) return 0;
    for (int64_t i = 0; i < ids->numel; i++)
        ctx->kernels->add(width, grad + id[i] * width, node->out->grad + i * width,
                          grad + id[i] * width);
    return 1;
}
