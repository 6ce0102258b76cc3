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

static te_tensor *te_pointwise_pair(te_ctx *ctx, int op, const char *name,
                                    void (*kernel)(int64_t, const te_float *, const te_float *,
                                                   te_float *),
                                    te_tensor *a, te_tensor *b) {
    if (!te_check_repeated(ctx, name, a, b)) return NULL;
    te_tensor *y = te_tensor_like(ctx, a);
    if (!y) return NULL;
    for (int64_t i = 0; i < a->numel; i += b->numel)
        kernel(b->numel, te_values(a) + i, te_values(b), te_values(y) + i);
    te_node node = {.op = op, .n_in = 2, .in = {a, b}};
    return te_record(ctx, &node, y);
}

te_tensor *te_add(te_ctx *ctx, te_tensor *a, te_tensor *b) {
    return te_pointwise_pair(ctx, TE_OP_ADD, "add", ctx->kernels->add, a, b);
}

static int te_add_backward(te_ctx *ctx, te_node *node) {
    te_tensor *a = node->in[0], *b = node->in[1];
    const te_float *dy = node->out->grad;
    if (a->numel == b->numel) {
        if (!te_pass_grad(ctx, b, dy)) return 0;
    } else if (b->requires_grad) {
        te_float *db = te_grad_sum_buffer(b);
        if (!db) return 0;
        for (int64_t i = 0; i < a->numel; i += b->numel)
            ctx->kernels->add(b->numel, db, dy + i, db);
    }
    return te_hand_grad(ctx, node->out, a);
}

te_tensor *te_mul(te_ctx *ctx, te_tensor *a, te_tensor *b) {
    return te_pointwise_pair(ctx, TE_OP_MUL, "mul", ctx->kernels->mul, a, b);
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

static te_tensor *te_activation(te_ctx *ctx, int op, const char *name,
                                void (*kernel)(int64_t, const te_float *, te_float *),
                                te_tensor *x) {
    te_tensor *y = te_check_float(ctx, name, "x", x) ? te_tensor_like(ctx, x) : NULL;
    if (!y) return NULL;
    kernel(x->numel, te_values(x), te_values(y));
    te_node node = {.op = op, .n_in = 1, .in = {x}};
    return te_record(ctx, &node, y);
}

static int te_activation_backward(te_ctx *ctx, te_node *node) {
    te_tensor *x = node->in[0];
    int accumulate = 0;
    te_float *dx = te_grad_buffer(x, &accumulate);
    if (!dx) return 0;
    switch (node->op) {
    case TE_OP_RELU:
        ctx->kernels->relu_back(x->numel, te_values(x), node->out->grad, dx, accumulate);
        break;
    case TE_OP_SILU:
        ctx->kernels->silu_back(x->numel, te_values(x), node->out->grad, dx, accumulate);
        break;
    default:
        ctx->kernels->gelu_back(x->numel, te_values(x), node->out->grad, dx, accumulate);
    }
    return 1;
}

te_tensor *te_relu(te_ctx *ctx, te_tensor *x) {
    return te_activation(ctx, TE_OP_RELU, "relu", ctx->kernels->relu, x);
}

te_tensor *te_silu(te_ctx *ctx, te_tensor *x) {
    return te_activation(ctx, TE_OP_SILU, "silu", ctx->kernels->silu, x);
}

te_tensor *te_gelu(te_ctx *ctx, te_tensor *x) {
    return te_activation(ctx, TE_OP_GELU, "gelu", ctx->kernels->gelu, x);
}

/* ---- SwiGLU (arXiv 2002.05202): silu(a) * b ---- */

te_tensor *te_swiglu(te_ctx *ctx, te_tensor *a, te_tensor *b) {
    if (!te_check_float(ctx, "swiglu", "a", a) || !te_check_float(ctx, "swiglu", "b", b))
        return NULL;
    if (!te_same_shape(a, b))
        return te_fail_shapes(ctx, "swiglu", "a", a, "b", b, "needs equal shapes");
    te_tensor *y = te_tensor_like(ctx, a);
    if (!y) return NULL;
    ctx->kernels->swiglu(a->numel, te_values(a), te_values(b), te_values(y));
    te_node node = {.op = TE_OP_SWIGLU, .n_in = 2, .in = {a, b}};
    return te_record(ctx, &node, y);
}

static int te_swiglu_backward(te_ctx *ctx, te_node *node) {
    te_tensor *a = node->in[0], *b = node->in[1];
    te_float *da = NULL, *db = NULL;
    int accumulate_a = 0, accumulate_b = 0;
    if ((a->requires_grad && !(da = te_grad_buffer(a, &accumulate_a))) ||
        (b->requires_grad && !(db = te_grad_buffer(b, &accumulate_b))))
        return 0;
    ctx->kernels->swiglu_back(a->numel, te_values(a), te_values(b), node->out->grad, da,
                              accumulate_a, db, accumulate_b);
    return 1;
}
