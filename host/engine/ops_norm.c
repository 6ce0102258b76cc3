/* ops_norm.c - RMSNorm (arXiv 1910.07467) and LayerNorm (arXiv 1607.06450) over the last dimension.
 * RMSNorm is LayerNorm with the mean taken as zero, so both share the passes over a row. */
#include "internal.h"
#include "kernels.h"

/* y = (x - mean) * rstd * gain + bias per row; stats [rows, 2] = mean and rstd */
static te_tensor *te_norm(te_ctx *ctx, int op, const char *name, te_tensor *x, te_tensor *gain,
                          te_tensor *bias, double eps) {
    if (!te_check_float(ctx, name, "x", x) || !te_check_float(ctx, name, "gain", gain) ||
        !te_check_dims(ctx, name, "x", x, 1) || !te_check_vector(ctx, name, "gain", gain, x) ||
        (bias && !te_check_vector(ctx, name, "bias", bias, x)))
        return NULL;
    if (!(eps >= 0))
        return te_fail(ctx, TE_ERR_VALUE, "%s: eps %g must not be negative", name, eps);
    const te_kernels *kernels = ctx->kernels;
    const int64_t n = te_width(x), rows = te_rows(x);
    te_tensor *y = te_tensor_like(ctx, x);
    te_float *stats = te_alloc_floats(ctx, 2 * rows);
    if (!y || !stats) {
        te_release(y);
        te_free(ctx, stats);
        return NULL;
    }
    for (int64_t i = 0; i < rows; i++) {
        const te_float *row = te_values(x) + i * n;
        te_float mean = op == TE_OP_LAYERNORM ? kernels->total(n, row) / (te_float)n : 0;
        te_float variance = kernels->sum_squares(n, mean, row) / (te_float)n;
        te_float rstd = (te_float)1 / TE_LIBM_SQRT(variance + (te_float)eps);
        kernels->normalize(n, mean, rstd, row, te_values(gain), bias ? te_values(bias) : NULL,
                           te_values(y) + i * n);
        stats[2 * i] = mean;
        stats[2 * i + 1] = rstd;
    }
    te_node node = {.op = op,
                    .n_in = bias ? 3 : 2,
                    .in = {x, gain, bias},
                    .n_float = 1,
                    .floats = {eps},
                    .saved = {stats}};
    return te_record(ctx, &node, y);
}

/* With g = gain * dy and z = (x - mean) * rstd:
 * dx = rstd * (g - mean(g) - z * mean(g z)), where RMSNorm has no mean(g);
 * dgain = sum of dy * z over rows, dbias = sum of dy. */
static int te_norm_backward(te_ctx *ctx, te_node *node) {
    te_tensor *x = node->in[0], *gain = node->in[1], *bias = node->n_in == 3 ? node->in[2] : NULL;
    const te_kernels *kernels = ctx->kernels;
    const int64_t n = te_width(x), rows = te_rows(x);
    const te_float *dy = node->out->grad, *stats = node->saved[0];
    te_float *dx = NULL, *dgain = NULL, *dbias = NULL;
    int accumulate = 0;
    if ((gain->requires_grad && !(dgain = te_grad_sum_buffer(gain))) ||
        (bias && bias->requires_grad && !(dbias = te_grad_sum_buffer(bias))) ||
        (x->requires_grad && !(dx = te_grad_buffer(x, &accumulate))))
        return 0;
    for (int64_t i = 0; i < rows; i++) {
        const te_float *row = te_values(x) + i * n, *dy_row = dy + i * n;
        te_norm_back c = {.mean = stats[2 * i], .rstd = stats[2 * i + 1]};
        if (dgain) kernels->gain_back(n, c.mean, c.rstd, row, dy_row, dgain);
        if (dbias) kernels->add(n, dbias, dy_row, dbias);
        if (dx) {
            te_float with_gain, with_x;
            kernels->norm_sums(n, c.mean, row, te_values(gain), dy_row, &with_gain, &with_x);
            c.offset = node->op == TE_OP_LAYERNORM ? with_gain / (te_float)n : 0;
            c.slope = with_x * c.rstd * c.rstd / (te_float)n;
            kernels->normalize_back(n, &c, row, te_values(gain), dy_row, dx + i * n, accumulate);
        }
    }
    return 1;
}

te_tensor *te_rmsnorm(te_ctx *ctx, te_tensor *x, te_tensor *gain, double eps) {
    return te_norm(ctx, TE_OP_RMSNORM, "rmsnorm", x, gain, NULL, eps);
}

te_tensor *te_layernorm(te_ctx *ctx, te_tensor *x, te_tensor *gain, te_tensor *bias, double eps) {
    if (!te_check_optional(ctx, "layernorm", "bias", bias)) return NULL;
    return te_norm(ctx, TE_OP_LAYERNORM, "layernorm", x, gain, bias, eps);
}
