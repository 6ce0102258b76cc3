/* ops_pointwise.c - element by element: sum, product, scaling, activations, gated units. */
#include "internal.h"
#include "kernels.h"

/* ---- Sum and product; b is repeated over the leading dimensions of a ---- */

static int te_check_repeated(te_ctx *ctx, const char *op, te_tensor *a, te_tensor *b) {
    if (!te_check_float(ctx, op, "a", a) || !te_check_float(ctx, op, "b", b)) return 0;
    if (b->ndim <= a->ndim &&
        !memcmp(a->shape + (a->ndim - b->ndim), b->shape, (size_t)b->ndim * sizeof b->shape[0]))
        return 1;
    te_fail_shapes(ctx, op, "a", a, "b", b, "b needs the shape of a or its last dimensions");
    return 0;
}

/* Elements of a sum or product that a thread makes. */
typedef struct {
    void (*kernel)(int64_t n, const te_float *a, const te_float *b, te_float *y);
    const te_float *a, *b;
    te_float *y;
} te_pair_work;

static void te_pair_range(void *argument, int thread, int64_t i, int64_t end) {
    const te_pair_work *w = argument;
    (void)thread;
    w->kernel(end - i, w->a + i, w->b + i, w->y + i);
}

static te_tensor *te_pointwise_pair(te_ctx *ctx, int op, te_tensor *a, te_tensor *b) {
    if (!te_check_repeated(ctx, te_op_name(op), a, b)) return NULL;
    te_tensor *y = te_tensor_like(ctx, a);
    if (!y) return NULL;
    te_pair_work work = {.kernel = op == TE_OP_ADD ? ctx->kernels->add : ctx->kernels->mul,
                         .b = te_values(b)};
    for (int64_t i = 0; i < a->numel; i += b->numel) {
        work.a = te_values(a) + i;
        work.y = te_values(y) + i;
        te_share(ctx, b->numel, TE_SHARE_FLOATS, te_pair_range, &work);
    }
    te_node node = {.op = op, .n_in = 2, .in = {a, b}};
    return te_record(ctx, &node, y);
}

te_tensor *te_add(te_ctx *ctx, te_tensor *a, te_tensor *b) {
    return te_pointwise_pair(ctx, TE_OP_ADD, a, b);
}

static int te_add_backward(te_ctx *ctx, te_node *node) {
    te_tensor *a = node->in[0], *b = node->in[1];
    const te_float *dy = node->out->grad;
    if (a->numel == b->numel) {
        if (!te_pass_grad(ctx, b, dy)) return 0;
    } else if (b->requires_grad) {
        te_float *db = te_grad_sum_buffer(b);
        if (!db) return 0;
        te_add_columns(ctx, a->numel / b->numel, b->numel, dy, db);
    }
    return te_hand_grad(ctx, node->out, a);
}

te_tensor *te_mul(te_ctx *ctx, te_tensor *a, te_tensor *b) {
    return te_pointwise_pair(ctx, TE_OP_MUL, a, b);
}

/* da = dy b, db = dy a */
static int te_mul_backward(te_ctx *ctx, te_node *node) {
    te_tensor *a = node->in[0], *b = node->in[1];
    const te_float *dy = node->out->grad;
    te_float *da = NULL, *db = NULL;
    if ((a->requires_grad && !(da = te_grad_sum_buffer(a))) ||
        (b->requires_grad && !(db = te_grad_sum_buffer(b))))
        return 0;
    for (int64_t i = 0; i < a->numel; i += b->numel) {
        if (da) ctx->kernels->mul_add(b->numel, dy + i, te_values(b), da + i);
        if (db) ctx->kernels->mul_add(b->numel, dy + i, te_values(a) + i, db);
    }
    return 1;
}

/* ---- One input ---- */

te_tensor *te_scale(te_ctx *ctx, te_tensor *x, double factor) {
    te_tensor *y = te_check_float(ctx, "scale", "x", x) ? te_tensor_like(ctx, x) : NULL;
    if (!y) return NULL;
    ctx->kernels->scale(x->numel, (te_float)factor, te_values(x), te_values(y));
    te_node node = {.op = TE_OP_SCALE, .n_in = 1, .in = {x}, .n_float = 1, .floats = {factor}};
    return te_record(ctx, &node, y);
}

static int te_scale_backward(te_ctx *ctx, te_node *node) {
    te_float *dx = te_grad_sum_buffer(node->in[0]);
    if (!dx) return 0;
    ctx->kernels->axpy(node->out->numel, (te_float)node->floats[0], node->out->grad, dx);
    return 1;
}

/* min(max(x, low), high); the gradient passes where low <= x <= high */
te_tensor *te_clip(te_ctx *ctx, te_tensor *x, double low, double high) {
    if (!(low <= high))
        return te_fail(ctx, TE_ERR_VALUE, "clip: low %g must not exceed high %g", low, high);
    te_tensor *y = te_check_float(ctx, "clip", "x", x) ? te_tensor_like(ctx, x) : NULL;
    if (!y) return NULL;
    for (int64_t i = 0; i < x->numel; i++) {
        const te_float v = te_values(x)[i];
        te_values(y)[i] = v < (te_float)low    ? (te_float)low
                          : v > (te_float)high ? (te_float)high
                                               : v;
    }
    te_node node = {.op = TE_OP_CLIP, .n_in = 1, .in = {x}, .n_float = 2, .floats = {low, high}};
    return te_record(ctx, &node, y);
}

static int te_clip_backward(te_ctx *ctx, te_node *node) {
    te_tensor *x = node->in[0];
    te_float *dx = te_grad_sum_buffer(x);
    (void)ctx;
    if (!dx) return 0;
    for (int64_t i = 0; i < x->numel; i++)
        if (te_values(node->out)[i] == te_values(x)[i]) dx[i] += node->out->grad[i];
    return 1;
}

/* The smaller of two elements, which also gets the gradient; of equal ones each gets half. A NaN in
 * either makes one. */
te_tensor *te_minimum(te_ctx *ctx, te_tensor *a, te_tensor *b) {
    if (!te_check_float(ctx, "minimum", "a", a) || !te_check_float(ctx, "minimum", "b", b))
        return NULL;
    if (!te_same_shape(a, b))
        return te_fail_shapes(ctx, "minimum", "a", a, "b", b, "needs equal shapes");
    te_tensor *y = te_tensor_like(ctx, a);
    if (!y) return NULL;
    for (int64_t i = 0; i < a->numel; i++) {
        const te_float u = te_values(a)[i], v = te_values(b)[i];
        te_values(y)[i] = v < u || isnan(v) ? v : u;
    }
    te_node node = {.op = TE_OP_MINIMUM, .n_in = 2, .in = {a, b}};
    return te_record(ctx, &node, y);
}

static int te_minimum_backward(te_ctx *ctx, te_node *node) {
    te_tensor *a = node->in[0], *b = node->in[1];
    te_float *da = NULL, *db = NULL;
    (void)ctx;
    if ((a->requires_grad && !(da = te_grad_sum_buffer(a))) ||
        (b->requires_grad && !(db = te_grad_sum_buffer(b))))
        return 0;
    for (int64_t i = 0; i < a->numel; i++) {
        const te_float u = te_values(a)[i], v = te_values(b)[i], dy = node->out->grad[i];
        const te_float share = u == v ? dy / 2 : dy;
        if (da && !(u > v)) da[i] += share;
        if (db && !(v > u)) db[i] += share;
    }
    return 1;
}

/* Dropout (Srivastava et al. 2014), scaled so that evaluation needs no change: there x itself is
 * the result and nothing is recorded. saved[0] holds the factors, 0 or 1 / (1 - p). */
te_tensor *te_dropout(te_ctx *ctx, te_tensor *x, double p) {
    if (!te_check_float(ctx, "dropout", "x", x)) return NULL;
    if (!(p >= 0 && p < 1))
        return te_fail(ctx, TE_ERR_VALUE, "dropout: p %g must be at least 0 and below 1", p);
    if (!ctx->training || p == 0) return ctx->own_results ? te_retain(x) : x;
    te_tensor *y = te_tensor_like(ctx, x);
    te_float *factors = te_alloc_floats(ctx, x->numel);
    if (!y || !factors) {
        te_release(y);
        te_free(ctx, factors);
        return NULL;
    }
    for (int64_t i = 0; i < x->numel; i++)
        factors[i] = te_random_uniform(ctx) < p ? 0 : (te_float)(1 / (1 - p));
    ctx->kernels->mul(x->numel, te_values(x), factors, te_values(y));
    te_node node = {
        .op = TE_OP_DROPOUT, .n_in = 1, .in = {x}, .n_float = 1, .floats = {p}, .saved = {factors}};
    return te_record(ctx, &node, y);
}

static int te_dropout_backward(te_ctx *ctx, te_node *node) {
    te_float *dx = te_grad_sum_buffer(node->in[0]);
    if (!dx) return 0;
    ctx->kernels->mul_add(node->out->numel, node->out->grad, node->saved[0], dx);
    return 1;
}

/* ---- Activations and gated units: which kernel belongs to which operation ---- */

static int te_activation_index(int op) {
    switch (op) {
    case TE_OP_RELU:
        return TE_ACT_RELU;
    case TE_OP_SIGMOID:
        return TE_ACT_SIGMOID;
    case TE_OP_TANH:
        return TE_ACT_TANH;
    case TE_OP_SILU:
        return TE_ACT_SILU;
    case TE_OP_GELU:
        return TE_ACT_GELU;
    case TE_OP_EXP:
        return TE_ACT_EXP;
    default:
        return TE_ACT_LOG;
    }
}

/* Which elements of which arrays a thread takes; b, dy, da, db where an operation has them. */
typedef struct {
    te_ctx *ctx;
    int op;
    const te_float *a, *b, *dy;
    te_float *y, *da, *db;
    int accumulate_a, accumulate_b;
} te_pointwise_work;

static void te_activation_range(void *argument, int thread, int64_t i, int64_t end) {
    const te_pointwise_work *w = argument;
    const te_activation_kernel *kernel = &w->ctx->kernels->activation[te_activation_index(w->op)];
    (void)thread;
    if (w->dy)
        kernel->back(end - i, w->a + i, w->dy + i, w->da + i, w->accumulate_a);
    else
        kernel->forward(end - i, w->a + i, w->y + i);
}

static te_tensor *te_activation(te_ctx *ctx, int op, te_tensor *x) {
    te_tensor *y = te_check_float(ctx, te_op_name(op), "x", x) ? te_tensor_like(ctx, x) : NULL;
    if (!y) return NULL;
    te_pointwise_work work = {.ctx = ctx, .op = op, .a = te_values(x), .y = te_values(y)};
    te_share(ctx, x->numel, TE_SHARE_FLOATS, te_activation_range, &work);
    te_node node = {.op = op, .n_in = 1, .in = {x}};
    return te_record(ctx, &node, y);
}

static int te_activation_backward(te_ctx *ctx, te_node *node) {
    te_tensor *x = node->in[0];
    int accumulate = 0;
    te_float *dx = te_grad_buffer(x, &accumulate);
    if (!dx) return 0;
    te_pointwise_work work = {.ctx = ctx,
                              .op = node->op,
                              .a = te_values(x),
                              .dy = node->out->grad,
                              .da = dx,
                              .accumulate_a = accumulate};
    te_share(ctx, x->numel, TE_SHARE_FLOATS, te_activation_range, &work);
    return 1;
}

te_tensor *te_relu(te_ctx *ctx, te_tensor *x) {
    return te_activation(ctx, TE_OP_RELU, x);
}
te_tensor *te_sigmoid(te_ctx *ctx, te_tensor *x) {
    return te_activation(ctx, TE_OP_SIGMOID, x);
}
te_tensor *te_tanh(te_ctx *ctx, te_tensor *x) {
    return te_activation(ctx, TE_OP_TANH, x);
}
te_tensor *te_silu(te_ctx *ctx, te_tensor *x) {
    return te_activation(ctx, TE_OP_SILU, x);
}
te_tensor *te_gelu(te_ctx *ctx, te_tensor *x) {
    return te_activation(ctx, TE_OP_GELU, x);
}
te_tensor *te_exp(te_ctx *ctx, te_tensor *x) {
    return te_activation(ctx, TE_OP_EXP, x);
}
te_tensor *te_log(te_ctx *ctx, te_tensor *x) {
    return te_activation(ctx, TE_OP_LOG, x);
}

static int te_gated_index(int op) {
    return op == TE_OP_SWIGLU ? TE_GATED_SWIGLU : TE_GATED_GEGLU;
}

static void te_gated_range(void *argument, int thread, int64_t i, int64_t end) {
    const te_pointwise_work *w = argument;
    const te_gated_kernel *kernel = &w->ctx->kernels->gated[te_gated_index(w->op)];
    (void)thread;
    if (w->dy)
        kernel->back(end - i, w->a + i, w->b + i, w->dy + i, w->da ? w->da + i : NULL,
                     w->accumulate_a, w->db ? w->db + i : NULL, w->accumulate_b);
    else
        kernel->forward(end - i, w->a + i, w->b + i, w->y + i);
}

static te_tensor *te_gated(te_ctx *ctx, int op, te_tensor *a, te_tensor *b) {
    const char *name = te_op_name(op);
    if (!te_check_float(ctx, name, "a", a) || !te_check_float(ctx, name, "b", b)) return NULL;
    if (!te_same_shape(a, b))
        return te_fail_shapes(ctx, name, "a", a, "b", b, "needs equal shapes");
    te_tensor *y = te_tensor_like(ctx, a);
    if (!y) return NULL;
    te_pointwise_work work = {
        .ctx = ctx, .op = op, .a = te_values(a), .b = te_values(b), .y = te_values(y)};
    te_share(ctx, a->numel, TE_SHARE_FLOATS, te_gated_range, &work);
    te_node node = {.op = op, .n_in = 2, .in = {a, b}};
    return te_record(ctx, &node, y);
}

static int te_gated_backward(te_ctx *ctx, te_node *node) {
    te_tensor *a = node->in[0], *b = node->in[1];
    te_float *da = NULL, *db = NULL;
    int accumulate_a = 0, accumulate_b = 0;
    if ((a->requires_grad && !(da = te_grad_buffer(a, &accumulate_a))) ||
        (b->requires_grad && !(db = te_grad_buffer(b, &accumulate_b))))
        return 0;
    te_pointwise_work work = {.ctx = ctx,
                              .op = node->op,
                              .a = te_values(a),
                              .b = te_values(b),
                              .dy = node->out->grad,
                              .da = da,
                              .db = db,
                              .accumulate_a = accumulate_a,
                              .accumulate_b = accumulate_b};
    te_share(ctx, a->numel, TE_SHARE_FLOATS, te_gated_range, &work);
    return 1;
}

te_tensor *te_swiglu(te_ctx *ctx, te_tensor *a, te_tensor *b) {
    return te_gated(ctx, TE_OP_SWIGLU, a, b);
}

te_tensor *te_geglu(te_ctx *ctx, te_tensor *a, te_tensor *b) {
    return te_gated(ctx, TE_OP_GEGLU, a, b);
}
