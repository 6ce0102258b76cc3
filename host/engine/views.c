/* views.c - tensors that see memory through strides: over the memory of another tensor, which they
 * keep alive, or of the caller. Operations work on dense rows, so an input that is not dense is
 * copied once, when an operation takes it; gradients are dense for every tensor. */
#include "internal.h"

static int64_t te_element_bytes(const te_tensor *t) {
    return t->dtype == TE_DTYPE_FLOAT ? (int64_t)sizeof(te_float) : (int64_t)sizeof(int32_t);
}

/* Gives t these strides. Row-major ones without gaps make it dense; a dimension of 1 has none that
 * matters, and neither has a tensor without elements. */
static void te_set_strides(te_tensor *t, const int64_t *stride) {
    int64_t dense = 1;
    for (int i = t->ndim - 1; i >= 0; i--) {
        if (t->shape[i] != 1 && stride[i] != dense && t->numel) t->strided = 1;
        if (t->shape[i]) dense *= t->shape[i];
        t->stride[i] = stride[i];
    }
}

/* A tensor over the data of `base` from element `offset` of its memory on; without strides it is
 * dense. */
static te_tensor *te_tensor_view(te_tensor *base, int ndim, const int64_t *shape,
                                 const int64_t *stride, int64_t offset) {
    te_tensor *t = te_tensor_frame(base->ctx, base->dtype, ndim, shape);
    if (!t) return NULL;
    t->external = 1;
    t->data = (char *)base->data + offset * te_element_bytes(base);
    t->base = te_retain(base->base ? base->base : base);
    if (stride) te_set_strides(t, stride);
    return t;
}

te_tensor *te_from_strided(te_ctx *ctx, int dtype, int ndim, const int64_t *shape,
                           const int64_t *stride, void *data, te_release_fn release, void *owner) {
    if (ndim > 0 && !stride) return te_fail(ctx, TE_ERR_VALUE, "tensor: the strides are NULL");
    te_tensor *t = te_from_data(ctx, dtype, ndim, shape, data, release, owner);
    if (t) te_set_strides(t, stride);
    return t;
}

int te_is_contiguous(const te_tensor *t) {
    return t ? !t->strided : 0;
}

/* Copies n elements of `size` bytes that lie `stride` elements apart, on one side or the other. */
static void te_copy_column(int64_t n, int64_t size, char *to, int64_t to_stride, const char *from,
                           int64_t from_stride) {
    if (size == 4)
        for (int64_t i = 0; i < n; i++)
            memcpy(to + i * to_stride * 4, from + i * from_stride * 4, 4);
    else
        for (int64_t i = 0; i < n; i++)
            memcpy(to + i * to_stride * 8, from + i * from_stride * 8, 8);
}

/* Copies the elements of t to `dense` in row-major order, or back from there. */
static void te_copy_strided(const te_tensor *t, void *dense, int back) {
    const int64_t size = te_element_bytes(t);
    char *packed = dense, *place = t->data;
    int64_t run = 1, at[TE_MAX_DIMS] = {0};
    int outer = t->ndim; /* dimensions from here on lie together: runs of so many elements */
    while (outer > 0 && (t->shape[outer - 1] == 1 || t->stride[outer - 1] == run))
        run *= t->shape[--outer];
    int64_t stride = 1;
    if (run == 1 && outer > 0) { /* columns along the last dimension instead */
        run = t->shape[--outer];
        stride = t->stride[outer];
    }
    for (int64_t done = 0; done < t->numel; done += run, packed += run * size) {
        if (stride == 1)
            memcpy(back ? place : packed, back ? packed : place, (size_t)(run * size));
        else if (back)
            te_copy_column(run, size, place, stride, packed, 1);
        else
            te_copy_column(run, size, packed, 1, place, stride);
        for (int d = outer - 1; d >= 0; d--) {
            place += t->stride[d] * size;
            if (++at[d] < t->shape[d]) break;
            place -= t->stride[d] * t->shape[d] * size;
            at[d] = 0;
        }
    }
}

/* Brings the dense copy of a strided tensor up to date; 0 when there is no memory for it. It stays
 * until the tensor goes: the backward pass reads it again. */
static int te_make_dense(te_tensor *t) {
    if (!t->strided) return 1;
    if (!t->dense) t->dense = te_alloc(t->ctx, t->numel * te_element_bytes(t));
    if (t->dense) te_copy_strided(t, t->dense, 0);
    return t->dense != NULL;
}

/* Strides that show the elements of t, in their order, as `shape` (of as many elements); 0 when
 * there are none. Dimensions of t that lie together in memory may be divided anew; each such group
 * has to hold whole dimensions of the new shape. */
static int te_strides_of_shape(const te_tensor *t, int ndim, const int64_t *shape,
                               int64_t *stride) {
    int open = ndim - 1; /* the dimension of the new shape that is next */
    for (int last = t->ndim - 1, first; last >= 0; last = first - 1) {
        int64_t count = t->shape[last], filled = 1;
        const int64_t step = t->stride[last];
        for (first = last; first > 0; first--) {
            if (t->shape[first - 1] != 1 && t->stride[first - 1] != count * step) break;
            count *= t->shape[first - 1];
        }
        for (; open >= 0 && (filled < count || shape[open] == 1); open--) {
            stride[open] = filled * step;
            filled *= shape[open];
        }
        if (filled != count) return 0;
    }
    return open < 0;
}
