/* tensor.c - creation, reference counts, accessors and gradient buffers of tensors. */
#include "internal.h"
#include "kernels.h"

static const char *te_shape_text(const te_tensor *t, char text[TE_SHAPE_CHARS]) {
    int used = snprintf(text, TE_SHAPE_CHARS, "[");
    for (int i = 0; i < t->ndim && used < TE_SHAPE_CHARS; i++)
        used += snprintf(text + used, (size_t)(TE_SHAPE_CHARS - used), i ? ", %lld" : "%lld",
                         (long long)t->shape[i]);
    if (used < TE_SHAPE_CHARS) snprintf(text + used, (size_t)(TE_SHAPE_CHARS - used), "]");
    return text;
}

/* A tensor without data, with one reference. */
static te_tensor *te_tensor_frame(te_ctx *ctx, int dtype, int ndim, const int64_t *shape) {
    if (!ctx) return NULL;
    if (dtype != TE_DTYPE_FLOAT && dtype != TE_DTYPE_INT32)
        return te_fail(ctx, TE_ERR_TYPE, "tensor: unknown element type %d", dtype);
    if (ndim < 0 || ndim > TE_MAX_DIMS)
        return te_fail(ctx, TE_ERR_SHAPE, "tensor: %d dimensions asked for, 0 to %d are possible",
                       ndim, (int)TE_MAX_DIMS);
    if (ndim && !shape) return te_fail(ctx, TE_ERR_SHAPE, "tensor: the dimensions are NULL");
    int64_t numel = 1, span = 1; /* of all dimensions, and of those that are not 0 */
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0)
            return te_fail(ctx, TE_ERR_SHAPE, "tensor: dimension %d is %lld, which is not possible",
                           i, (long long)shape[i]);
        if (shape[i] > 0 && span > (INT64_C(1) << 36) / shape[i])
            return te_fail(ctx, TE_ERR_SHAPE,
                           "tensor: more than 2^36 elements, which is not possible (dimension %d "
                           "is %lld)",
                           i, (long long)shape[i]);
        numel *= shape[i];
        if (shape[i]) span *= shape[i];
    }
    te_tensor *t = te_alloc(ctx, sizeof *t);
    if (!t) return NULL;
    memset(t, 0, sizeof *t);
    t->ctx = ctx;
    t->id = ctx->next_id++;
    t->refs = 1;
    t->dtype = dtype;
    t->ndim = ndim;
    t->numel = numel;
    t->node = -1;
    int64_t stride = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        t->shape[i] = shape[i];
        t->stride[i] = stride;
        if (shape[i]) stride *= shape[i];
    }
    ctx->live++;
    return t;
}

static int64_t te_data_bytes(const te_tensor *t) {
    return t->numel * (int64_t)(t->dtype == TE_DTYPE_FLOAT ? sizeof(te_float) : sizeof(int32_t));
}

/* A tensor whose data is not initialised. */
static te_tensor *te_tensor_new(te_ctx *ctx, int dtype, int ndim, const int64_t *shape) {
    te_tensor *t = te_tensor_frame(ctx, dtype, ndim, shape);
    if (!t) return NULL;
    t->data = te_alloc(ctx, te_data_bytes(t));
    if (!t->data) {
        te_release(t);
        return NULL;
    }
    return t;
}

static te_tensor *te_tensor_like(te_ctx *ctx, const te_tensor *t) {
    return te_tensor_new(ctx, t->dtype, t->ndim, t->shape);
}

te_tensor *te_zeros(te_ctx *ctx, int dtype, int ndim, const int64_t *shape) {
    te_tensor *t = te_tensor_new(ctx, dtype, ndim, shape);
    if (t) memset(t->data, 0, (size_t)te_data_bytes(t));
    return t;
}

te_tensor *te_from_data(te_ctx *ctx, int dtype, int ndim, const int64_t *shape, void *data,
                        te_release_fn release, void *owner) {
    te_tensor *t = te_tensor_frame(ctx, dtype, ndim, shape);
    if (!t) return NULL;
    t->external = 1;
    if (t->numel && !data) {
        te_release(t);
        return te_fail(ctx, TE_ERR_VALUE, "tensor: the data is NULL");
    }
    t->data = data;
    t->release = release;
    t->owner = owner;
    return t;
}

te_tensor *te_retain(te_tensor *t) {
    if (t) t->refs++;
    return t;
}

void te_release(te_tensor *t) {
    if (!t || --t->refs > 0) return;
    te_ctx *ctx = t->ctx;
    te_grad_drop(t);
    te_free(ctx, t->kept);
    te_free(ctx, t->dense);
    if (!t->external) te_free(ctx, t->data);
    if (t->release) t->release(t->owner);
    te_release(t->base);
    te_free(ctx, t);
    te_ctx_drop(ctx);
}

int te_refcount(const te_tensor *t) {
    return t ? t->refs : 0;
}
int64_t te_tensor_id(const te_tensor *t) {
    return t ? t->id : 0;
}
int te_tensor_dtype(const te_tensor *t) {
    return t ? t->dtype : TE_DTYPE_FLOAT;
}
int te_ndim(const te_tensor *t) {
    return t ? t->ndim : 0;
}
const int64_t *te_shape(const te_tensor *t) {
    return t ? t->shape : NULL;
}
const int64_t *te_stride(const te_tensor *t) {
    return t ? t->stride : NULL;
}
int64_t te_numel(const te_tensor *t) {
    return t ? t->numel : 0;
}
te_float *te_data(te_tensor *t) {
    return t && t->dtype == TE_DTYPE_FLOAT ? t->data : NULL;
}
int32_t *te_data_i32(te_tensor *t) {
    return t && t->dtype == TE_DTYPE_INT32 ? t->data : NULL;
}

double te_item(const te_tensor *t) {
    if (!t || t->numel == 0) return NAN;
    return t->dtype == TE_DTYPE_FLOAT ? (double)*(te_float *)t->data : *(int32_t *)t->data;
}

int te_requires_grad(const te_tensor *t) {
    return t ? t->requires_grad : 0;
}
int te_is_leaf(const te_tensor *t) {
    return t ? t->node < 0 : 0;
}

te_status te_set_requires_grad(te_tensor *t, int on) {
    if (!t) return TE_ERR_VALUE;
    if (t->dtype != TE_DTYPE_FLOAT) {
        te_fail(t->ctx, TE_ERR_TYPE, "requires_grad: an int32 tensor has no gradient");
        return TE_ERR_TYPE;
    }
    if (t->node >= 0) {
        te_fail(t->ctx, TE_ERR_STATE, "requires_grad: can be set on leaves, not on results");
        return TE_ERR_STATE;
    }
    t->requires_grad = on != 0;
    return TE_OK;
}

/* ---- Gradient buffers ---- */

te_float *te_grad(te_tensor *t) {
    if (!t) return NULL;
    if (t->kept) return t->kept;
    return t->grad_set ? t->grad : NULL;
}

static te_float *te_grad_allocate(te_tensor *t) {
    if (!t->grad) t->grad = te_alloc(t->ctx, t->numel * (int64_t)sizeof(te_float));
    return t->grad;
}

te_float *te_grad_create(te_tensor *t) {
    if (!t) return NULL;
    if (t->dtype != TE_DTYPE_FLOAT)
        return te_fail(t->ctx, TE_ERR_TYPE, "grad: an int32 tensor has no gradient");
    if (t->kept) return t->kept;
    if (!te_grad_allocate(t)) return NULL;
    if (!t->grad_set) memset(t->grad, 0, (size_t)t->numel * sizeof(te_float));
    t->grad_set = 1;
    return t->grad;
}

void te_zero_grad(te_tensor *t) {
    if (!t) return;
    t->grad_set = 0;
    te_free(t->ctx, t->kept);
    t->kept = NULL;
}
void te_retain_grad(te_tensor *t) {
    if (t) t->keep_grad = 1;
}

/* Where a backward pass puts its share of the gradient of t: added to what is there when
 * *accumulate, written over it otherwise. NULL: no memory. Call it after everything else that can
 * fail, and write every element. */
static te_float *te_grad_buffer(te_tensor *t, int *accumulate) {
    if (!te_grad_allocate(t)) return NULL;
    *accumulate = t->grad_set;
    t->grad_set = 1;
    return t->grad;
}

static void te_grad_drop(te_tensor *t) {
    te_free(t->ctx, t->grad);
    t->grad = NULL;
    t->grad_set = 0;
}

/* A pass is done with the gradient of a result: the next one starts without it. */
static void te_grad_done(te_tensor *t) {
    if (t->keep_grad && !t->kept && t->grad_set) {
        t->kept = t->grad;
        t->grad = NULL;
    } else if (t->keep_grad && t->grad_set) {
        t->ctx->kernels->add(t->numel, t->kept, t->grad, t->kept);
    }
    te_grad_drop(t);
}
