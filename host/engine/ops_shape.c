/* ops_shape.c - reshape, broadcast, slice, concatenation, transposition, gather. */
#include "internal.h"
#include "kernels.h"

/* Dimension `dim` of t, counted from the end when negative; -1 and a failure when out of range. */
static int te_dimension(te_ctx *ctx, const char *op, const te_tensor *t, int dim) {
    char text[TE_SHAPE_CHARS];
    const int resolved = dim < 0 ? dim + t->ndim : dim;
    if (resolved >= 0 && resolved < t->ndim) return resolved;
    te_fail(ctx, TE_ERR_VALUE, "%s: there is no dimension %d in %s", op, dim,
            te_shape_text(t, text));
    return -1;
}

/* Product of the dimensions from `first` up to, not including, `end`. */
static int64_t te_span(const te_tensor *t, int first, int end) {
    int64_t product = 1;
    for (int i = first; i < end; i++) product *= t->shape[i];
    return product;
}

/* Copies `blocks` blocks of `size` floats, or adds them to what is there. */
static void te_move_blocks(te_ctx *ctx, int64_t blocks, int64_t size, const te_float *from,
                           int64_t from_stride, te_float *to, int64_t to_stride, int add) {
    for (int64_t i = 0; i < blocks; i++, from += from_stride, to += to_stride) {
        if (add)
            ctx->kernels->add(size, to, from, to);
        else
            memcpy(to, from, (size_t)size * sizeof *to);
    }
}

/* ---- Reshape ---- */

static te_tensor *te_record_reshape(te_ctx *ctx, te_tensor *x, te_tensor *y) {
    if (!y) return NULL;
    te_node node = {.op = TE_OP_RESHAPE, .n_in = 1, .in = {x}, .n_int = y->ndim};
    memcpy(node.ints, y->shape, sizeof y->shape);
    return te_record(ctx, &node, y);
}

static te_tensor *te_dense_copy(te_tensor *x, int ndim, const int64_t *shape) {
    te_tensor *y = te_tensor_new(x->ctx, x->dtype, ndim, shape);
    if (y) te_copy_strided(x, y->data, 0);
    return y;
}

/* A view where strides can express it; a copy of, say, a transposed matrix made flat. */
static te_tensor *te_reshape_to(te_ctx *ctx, te_tensor *x, int ndim, const int64_t *shape) {
    int64_t stride[TE_MAX_DIMS];
    te_tensor *y;
    if (!x->strided)
        y = te_tensor_view(x, ndim, shape, NULL, 0);
    else if (te_strides_of_shape(x, ndim, shape, stride))
        y = te_tensor_view(x, ndim, shape, stride, 0);
    else
        y = te_dense_copy(x, ndim, shape);
    return te_record_reshape(ctx, x, y);
}

te_tensor *te_reshape(te_ctx *ctx, te_tensor *x, int ndim, const int64_t *shape) {
    char from[TE_SHAPE_CHARS];
    int64_t known = 1, dims[TE_MAX_DIMS] = {0};
    int open = -1, valid = ndim >= 0 && ndim <= TE_MAX_DIMS && (shape || !ndim);
    if (!te_check_owner(ctx, "reshape", "x", x)) return NULL;
    for (int i = 0; valid && i < ndim; i++) {
        dims[i] = shape[i];
        if (shape[i] == -1 && open < 0)
            open = i;
        else if (shape[i] < 0 || (shape[i] && known > (INT64_C(1) << 36) / shape[i]))
            valid = 0;
        else
            known *= shape[i];
    }
    if (valid && open >= 0) {
        valid = known > 0 && x->numel % known == 0;
        dims[open] = valid ? x->numel / known : 0;
        known = x->numel;
    }
    if (!valid || known != x->numel)
        return te_fail(ctx, TE_ERR_SHAPE,
                       "reshape: x %s has %lld elements, which do not fill the %d dimensions asked "
                       "for",
                       te_shape_text(x, from), (long long)x->numel, ndim);
    return te_reshape_to(ctx, x, ndim, dims);
}

/* x itself where it is dense, else a copy that is; on the tape a reshape to its own dimensions. */
te_tensor *te_contiguous(te_ctx *ctx, te_tensor *x) {
    if (!te_check_owner(ctx, "contiguous", "x", x)) return NULL;
    if (x->strided) return te_record_reshape(ctx, x, te_dense_copy(x, x->ndim, x->shape));
    return ctx->own_results ? te_retain(x) : x;
}

static int te_reshape_backward(te_ctx *ctx, te_node *node) {
    return te_hand_grad(ctx, node->out, node->in[0]);
}

/* ---- Broadcast: dimensions of 1, and new ones in front, repeated; a view of stride 0 ---- */

/* Strides by which the dimensions `shape` walk through the elements of x, which have the strides
 * `own`; 0 when they do not go together. */
static int te_broadcast_strides(const te_tensor *x, const int64_t *own, int ndim,
                                const int64_t *shape, int64_t *stride) {
    if (ndim < x->ndim || ndim > TE_MAX_DIMS || (ndim && !shape)) return 0;
    const int added = ndim - x->ndim;
    for (int i = 0; i < ndim; i++) {
        const int repeated = i < added || (x->shape[i - added] == 1 && shape[i] != 1);
        if (!repeated && x->shape[i - added] != shape[i]) return 0;
        stride[i] = repeated ? 0 : own[i - added];
    }
    return 1;
}

te_tensor *te_broadcast(te_ctx *ctx, te_tensor *x, int ndim, const int64_t *shape) {
    int64_t stride[TE_MAX_DIMS];
    char text[TE_SHAPE_CHARS];
    if (!te_check_owner(ctx, "broadcast", "x", x)) return NULL;
    if (!te_broadcast_strides(x, x->stride, ndim, shape, stride))
        return te_fail(
            ctx, TE_ERR_SHAPE,
            "broadcast: x %s does not go with the %d dimensions asked for (from the last "
            "on, each has to be equal to that of x, or x has 1 there)",
            te_shape_text(x, text), ndim);
    te_tensor *y = te_tensor_view(x, ndim, shape, stride, 0);
    if (!y) return NULL;
    te_node node = {.op = TE_OP_BROADCAST, .n_in = 1, .in = {x}, .n_int = ndim};
    memcpy(node.ints, y->shape, sizeof y->shape);
    return te_record(ctx, &node, y);
}

/* dx = the sum of dy over what was repeated */
static int te_broadcast_backward(te_ctx *ctx, te_node *node) {
    te_tensor *x = node->in[0], *y = node->out;
    int64_t own[TE_MAX_DIMS], stride[TE_MAX_DIMS], at[TE_MAX_DIMS] = {0}, place = 0;
    te_float *dx = te_grad_sum_buffer(x);
    if (!dx) return 0;
    for (int i = 0; i < x->ndim; i++) own[i] = te_span(x, i + 1, x->ndim);
    te_broadcast_strides(x, own, y->ndim, y->shape, stride);
    const int last = y->ndim - 1;
    int front = 0;
    while (front <= last && stride[front] == 0) front++;
    if (x->numel && te_span(y, front, y->ndim) == x->numel) { /* nothing repeated behind these */
        te_add_columns(ctx, y->numel / x->numel, x->numel, y->grad, dx);
        return 1;
    }
    const int64_t n = y->ndim ? y->shape[last] : 1;
    for (int64_t i = 0; i < y->numel; i += n) {
        if (y->ndim && stride[last])
            ctx->kernels->add(n, dx + place, y->grad + i, dx + place);
        else
            dx[place] += ctx->kernels->total(n, y->grad + i);
        for (int d = last - 1; d >= 0; d--) {
            place += stride[d];
            if (++at[d] < y->shape[d]) break;
            place -= stride[d] * y->shape[d];
            at[d] = 0;
        }
    }
    return 1;
}

/* ---- Slice: elements start to start + length of one dimension, a view ---- */

te_tensor *te_slice(te_ctx *ctx, te_tensor *x, int dim, int64_t start, int64_t length) {
    int64_t shape[TE_MAX_DIMS];
    char text[TE_SHAPE_CHARS];
    if (!te_check_owner(ctx, "slice", "x", x) || (dim = te_dimension(ctx, "slice", x, dim)) < 0)
        return NULL;
    if (start < 0 || length < 0 || start > x->shape[dim] - length)
        return te_fail(ctx, TE_ERR_VALUE,
                       "slice: %lld elements from %lld are not in dimension %d of %s",
                       (long long)length, (long long)start, dim, te_shape_text(x, text));
    memcpy(shape, x->shape, sizeof shape);
    shape[dim] = length;
    te_tensor *y = te_tensor_view(x, x->ndim, shape, x->stride, start * x->stride[dim]);
    if (!y) return NULL;
    te_node node = {
        .op = TE_OP_SLICE, .n_in = 1, .in = {x}, .n_int = 3, .ints = {dim, start, length}};
    return te_record(ctx, &node, y);
}

static int te_slice_backward(te_ctx *ctx, te_node *node) {
    te_tensor *x = node->in[0];
    const int dim = (int)node->ints[0];
    const int64_t inner = te_span(x, dim + 1, x->ndim), size = node->ints[2] * inner;
    te_float *dx = te_grad_sum_buffer(x);
    if (!dx) return 0;
    te_move_blocks(ctx, te_span(x, 0, dim), size, node->out->grad, size, dx + node->ints[1] * inner,
                   x->shape[dim] * inner, 1);
    return 1;
}

/* ---- Concatenation along one dimension ---- */

te_tensor *te_concat(te_ctx *ctx, int count, te_tensor *const *parts, int dim) {
    int64_t shape[TE_MAX_DIMS];
    if (count < 1 || count > TE_MAX_INPUTS || !parts)
        return te_fail(ctx, TE_ERR_VALUE, "concat: %d parts, 1 to %d are possible", count,
                       (int)TE_MAX_INPUTS);
    for (int k = 0; k < count; k++)
        if (!te_check_float(ctx, "concat", "a part", parts[k])) return NULL;
    if ((dim = te_dimension(ctx, "concat", parts[0], dim)) < 0) return NULL;
    memcpy(shape, parts[0]->shape, sizeof shape);
    for (int k = 1; k < count; k++) {
        const te_tensor *first = parts[0], *part = parts[k];
        int fits = part->ndim == first->ndim;
        for (int i = 0; fits && i < first->ndim; i++)
            fits = i == dim || part->shape[i] == first->shape[i];
        if (!fits)
            return te_fail_shapes(ctx, "concat", "the first part", first, "another part", part,
                                  "needs equal dimensions but for the one that is joined");
        shape[dim] += part->shape[dim];
    }
    te_tensor *y = te_tensor_new(ctx, TE_DTYPE_FLOAT, parts[0]->ndim, shape);
    if (!y) return NULL;
    te_node node = {.op = TE_OP_CONCAT, .n_in = count, .n_int = 1, .ints = {dim}};
    const int64_t stride = te_span(y, dim, y->ndim);
    te_float *to = te_values(y);
    for (int k = 0; k < count; k++) {
        const int64_t size = te_span(parts[k], dim, y->ndim);
        te_move_blocks(ctx, te_span(y, 0, dim), size, te_values(parts[k]), size, to, stride, 0);
        to += size;
        node.in[k] = parts[k];
    }
    return te_record(ctx, &node, y);
}

static int te_concat_backward(te_ctx *ctx, te_node *node) {
    const te_tensor *y = node->out;
    const int dim = (int)node->ints[0];
    const te_float *from = y->grad;
    for (int k = 0; k < node->n_in; k++) {
        te_tensor *part = node->in[k];
        const int64_t size = te_span(part, dim, y->ndim);
        if (part->requires_grad) {
            te_float *grad = te_grad_sum_buffer(part);
            if (!grad) return 0;
            te_move_blocks(ctx, te_span(y, 0, dim), size, from, te_span(y, dim, y->ndim), grad,
                           size, 1);
        }
        from += size;
    }
    return 1;
}

/* ---- Transposition of two dimensions, a view ---- */

/* from [outer, a, middle, b, inner] -> to [outer, b, middle, a, inner] */
static void te_swap_dimensions(te_ctx *ctx, const te_tensor *from_shape, int first, int second,
                               const te_float *from, te_float *to, int add) {
    const int64_t outer = te_span(from_shape, 0, first), a = from_shape->shape[first];
    const int64_t middle = te_span(from_shape, first + 1, second), b = from_shape->shape[second];
    const int64_t inner = te_span(from_shape, second + 1, from_shape->ndim);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < a; i++)
            for (int64_t m = 0; m < middle; m++)
                te_move_blocks(ctx, b, inner, from + (((o * a + i) * middle + m) * b) * inner,
                               inner, to + ((o * b * middle + m) * a + i) * inner,
                               middle * a * inner, add);
}

te_tensor *te_transpose(te_ctx *ctx, te_tensor *x, int first, int second) {
    int64_t shape[TE_MAX_DIMS], stride[TE_MAX_DIMS];
    if (!te_check_owner(ctx, "transpose", "x", x) ||
        (first = te_dimension(ctx, "transpose", x, first)) < 0 ||
        (second = te_dimension(ctx, "transpose", x, second)) < 0)
        return NULL;
    if (first == second)
        return te_fail(ctx, TE_ERR_VALUE, "transpose: dimension %d is named twice", first);
    const int low = first < second ? first : second, high = first < second ? second : first;
    memcpy(shape, x->shape, sizeof shape);
    memcpy(stride, x->stride, sizeof stride);
    shape[low] = x->shape[high];
    shape[high] = x->shape[low];
    stride[low] = x->stride[high];
    stride[high] = x->stride[low];
    te_tensor *y = te_tensor_view(x, x->ndim, shape, stride, 0);
    if (!y) return NULL;
    te_node node = {.op = TE_OP_TRANSPOSE, .n_in = 1, .in = {x}, .n_int = 2, .ints = {low, high}};
    return te_record(ctx, &node, y);
}

static int te_transpose_backward(te_ctx *ctx, te_node *node) {
    te_float *dx = te_grad_sum_buffer(node->in[0]);
    if (!dx) return 0;
    te_swap_dimensions(ctx, node->out, (int)node->ints[0], (int)node->ints[1], node->out->grad, dx,
                       1);
    return 1;
}

/* ---- Gather: one element of each row ---- */

te_tensor *te_gather(te_ctx *ctx, te_tensor *x, te_tensor *index) {
    if (!te_check_float(ctx, "gather", "x", x) || !te_check_dims(ctx, "gather", "x", x, 1) ||
        !te_check(ctx, "gather", "index", index, TE_DTYPE_INT32))
        return NULL;
    if (index->ndim != x->ndim - 1 ||
        memcmp(index->shape, x->shape, (size_t)index->ndim * sizeof x->shape[0]))
        return te_fail_shapes(ctx, "gather", "x", x, "index", index, "needs [..., n] and [...]");
    const int32_t *at = te_integers(index);
    const int64_t n = te_width(x);
    for (int64_t i = 0; i < index->numel; i++)
        if (at[i] < 0 || at[i] >= n)
            return te_fail(ctx, TE_ERR_VALUE, "gather: index %d at position %lld, 0 to %lld exist",
                           (int)at[i], (long long)i, (long long)n - 1);
    te_tensor *y = te_tensor_new(ctx, TE_DTYPE_FLOAT, index->ndim, index->shape);
    if (!y) return NULL;
    for (int64_t i = 0; i < index->numel; i++) te_values(y)[i] = te_values(x)[i * n + at[i]];
    te_node node = {.op = TE_OP_GATHER, .n_in = 2, .in = {x, index}};
    return te_record(ctx, &node, y);
}

static int te_gather_backward(te_ctx *ctx, te_node *node) {
    te_tensor *x = node->in[0], *index = node->in[1];
    const int32_t *at = te_integers(index);
    te_float *dx = te_grad_sum_buffer(x);
    (void)ctx;
    if (!dx) return 0;
    for (int64_t i = 0; i < index->numel; i++) dx[i * te_width(x) + at[i]] += node->out->grad[i];
    return 1;
}
