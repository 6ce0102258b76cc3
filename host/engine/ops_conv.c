/* ops_conv.c - 1-D convolution over time. Time is followed by channels in memory, so a window of
 * the input is contiguous and a convolution is one product whose rows overlap. */
#include "internal.h"
#include "kernels.h"

typedef struct {
    int64_t batch, time, channels, out_channels, kernel, stride, left, right;
    int64_t padded_time, out_time, window; /* window = kernel * channels */
} te_conv_dims;

static te_conv_dims te_conv_layout(const te_tensor *x, const te_tensor *w, const int64_t ints[3]) {
    te_conv_dims d = {.batch = 1,
                      .time = x->shape[x->ndim - 2],
                      .channels = te_width(x),
                      .out_channels = w->shape[0],
                      .kernel = w->shape[1],
                      .stride = ints[0],
                      .left = ints[1],
                      .right = ints[2]};
    for (int i = 0; i < x->ndim - 2; i++) d.batch *= x->shape[i];
    d.padded_time = d.time + d.left + d.right;
    d.out_time = d.padded_time < d.kernel ? 0 : (d.padded_time - d.kernel) / d.stride + 1;
    d.window = d.kernel * d.channels;
    return d;
}

/* y[t] = w . x[t * stride - left : ... + kernel] + b */
te_tensor *te_conv1d(te_ctx *ctx, te_tensor *x, te_tensor *w, te_tensor *b, int64_t stride,
                     int64_t left, int64_t right) {
    int64_t shape[TE_MAX_DIMS];
    if (!te_check_float(ctx, "conv1d", "x", x) || !te_check_float(ctx, "conv1d", "w", w) ||
        !te_check_optional(ctx, "conv1d", "b", b) || !te_check_dims(ctx, "conv1d", "x", x, 2))
        return NULL;
    if (w->ndim != 3 || w->shape[2] != te_width(x) || w->numel == 0)
        return te_fail_shapes(ctx, "conv1d", "x", x, "w", w,
                              "needs [..., time, in] and [out, kernel, in]");
    if (stride < 1 || left < 0 || right < 0 || stride > INT32_MAX || left > INT32_MAX ||
        right > INT32_MAX)
        return te_fail(ctx, TE_ERR_VALUE,
                       "conv1d: stride %lld must be positive, padding %lld and %lld not negative, "
                       "all below 2^31",
                       (long long)stride, (long long)left, (long long)right);
    te_node node = {.op = TE_OP_CONV1D,
                    .n_in = b ? 3 : 2,
                    .in = {x, w, b},
                    .n_int = 3,
                    .ints = {stride, left, right}};
    te_conv_dims d = te_conv_layout(x, w, node.ints);
    if (d.padded_time > (INT64_C(1) << 36) / (d.batch * d.channels + 1))
        return te_fail_shapes(ctx, "conv1d", "x", x, "w", w, "more than 2^36 elements when padded");
    if (d.out_time < 1)
        return te_fail_shapes(ctx, "conv1d", "x", x, "w", w, "the kernel is longer than the time");
    memcpy(shape, x->shape, sizeof shape);
    shape[x->ndim - 2] = d.out_time;
    shape[x->ndim - 1] = d.out_channels;
    te_tensor *y = te_tensor_new(ctx, TE_DTYPE_FLOAT, x->ndim, shape);
    te_float *padded = te_alloc_floats(ctx, d.batch * d.padded_time * d.channels);
    node.saved[0] = padded;
    if (!y || !padded || (b && !te_check_vector(ctx, "conv1d", "b", b, y))) {
        te_release(y);
        te_free(ctx, padded);
        return NULL;
    }
    te_clear_floats(padded, d.batch * d.padded_time * d.channels);
    for (int64_t i = 0; i < d.batch; i++) {
        te_float *sequence = padded + i * d.padded_time * d.channels;
        memcpy(sequence + d.left * d.channels, te_values(x) + i * d.time * d.channels,
               (size_t)(d.time * d.channels) * sizeof(te_float));
        te_gemm g = {.m = d.out_time,
                     .n = d.out_channels,
                     .k = d.window,
                     .a = sequence,
                     .a_row = d.stride * d.channels,
                     .a_col = 1,
                     .b = te_values(w),
                     .b_row = 1,
                     .b_col = d.window,
                     .c = te_values(y) + i * d.out_time * d.out_channels,
                     .c_row = d.out_channels,
                     .bias = b ? te_values(b) : NULL};
        te_product(ctx, &g);
    }
    return te_record(ctx, &node, y);
}

/* Gradient of the input: the windows' gradients dy w are added where the windows lay. */
static int te_conv1d_input_grad(te_ctx *ctx, const te_conv_dims *d, const te_node *node) {
    te_tensor *x = node->in[0];
    te_float *windows = te_alloc_floats(ctx, d->out_time * d->window);
    te_float *padded = te_alloc_floats(ctx, d->padded_time * d->channels);
    te_float *dx = windows && padded ? te_grad_sum_buffer(x) : NULL;
    for (int64_t i = 0; dx && i < d->batch; i++) {
        te_input_grad(ctx, d->out_time, d->window, d->out_channels,
                      node->out->grad + i * d->out_time * d->out_channels, te_values(node->in[1]),
                      windows, 0);
        te_clear_floats(padded, d->padded_time * d->channels);
        for (int64_t t = 0; t < d->out_time; t++) {
            te_float *at = padded + t * d->stride * d->channels;
            ctx->kernels->add(d->window, at, windows + t * d->window, at);
        }
        te_float *target = dx + i * d->time * d->channels;
        ctx->kernels->add(d->time * d->channels, target, padded + d->left * d->channels, target);
    }
    te_free(ctx, windows);
    te_free(ctx, padded);
    return dx != NULL;
}

static int te_conv1d_backward(te_ctx *ctx, te_node *node) {
    te_tensor *x = node->in[0], *w = node->in[1], *b = node->n_in == 3 ? node->in[2] : NULL;
    const te_conv_dims d = te_conv_layout(x, w, node->ints);
    const te_float *padded = node->saved[0], *dy = node->out->grad;
    te_float *dw = NULL, *db = NULL;
    if ((w->requires_grad && !(dw = te_grad_sum_buffer(w))) ||
        (b && b->requires_grad && !(db = te_grad_sum_buffer(b))))
        return 0;
    for (int64_t i = 0; dw && i < d.batch; i++) {
        te_gemm g = {.m = d.out_channels,
                     .n = d.window,
                     .k = d.out_time,
                     .a = dy + i * d.out_time * d.out_channels,
                     .a_row = 1,
                     .a_col = d.out_channels,
                     .b = padded + i * d.padded_time * d.channels,
                     .b_row = d.stride * d.channels,
                     .b_col = 1,
                     .c = dw,
                     .c_row = d.window,
                     .accumulate = 1};
        te_product(ctx, &g);
    }
    if (db) te_add_columns(ctx, d.batch * d.out_time, d.out_channels, dy, db);
    return x->requires_grad ? te_conv1d_input_grad(ctx, &d, node) : 1;
}
