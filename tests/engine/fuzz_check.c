/* fuzz_check.c - operations on random shapes, with dimensions of 0 and 1 and views of views,
 * forward and backward. Most calls do not fit and have to say so; built with sanitizers, none may
 * crash or leak. Prints how many fitted and how many were refused. */
#include <stdio.h>
#include <stdlib.h>

#include "te.h"

enum { POOL = 12, CALLS = 40 };

static te_ctx *ctx;
static te_tensor *pool[POOL];

static int64_t pick(int64_t n) {
    return (int64_t)(te_random_u64(ctx) % (uint64_t)n);
}

/* A dimension: often one that others have too, so that shapes fit. */
static int64_t size(void) {
    static const int64_t sizes[] = {4, 4, 4, 4, 2, 2, 8, 1, 1, 0, 3, 17};
    return sizes[pick(12)];
}

static te_tensor *fresh(int ids) {
    int64_t shape[TE_MAX_DIMS];
    const int ndim = (int)pick(pick(8) ? 4 : TE_MAX_DIMS + 1);
    for (int i = 0; i < ndim; i++) shape[i] = ndim > 4 ? pick(3) : size();
    te_tensor *t = te_zeros(ctx, ids ? TE_DTYPE_INT32 : TE_DTYPE_FLOAT, ndim, shape);
    if (ids) {
        for (int64_t i = 0; i < te_numel(t); i++) te_data_i32(t)[i] = (int32_t)pick(3) - (i == 7);
    } else {
        te_fill_normal(t, 0, 1);
        te_set_requires_grad(t, pick(3) > 0);
    }
    return t;
}

/* Any of the pool; some are NULL now and then. */
static te_tensor *some(void) {
    return pick(60) ? pool[pick(POOL)] : NULL;
}

/* Weights for x, where their shapes could fit: [out, width]. */
static te_tensor *weight(te_tensor *x, int64_t out) {
    const int ndim = x ? te_ndim(x) : 0;
    te_tensor *w =
        te_zeros(ctx, TE_DTYPE_FLOAT, 2, (int64_t[]){out, ndim ? te_shape(x)[ndim - 1] : 3});
    te_fill_normal(w, 0, 1);
    te_set_requires_grad(w, 1);
    return w;
}

static te_tensor *call_shape(int op, te_tensor *x, te_tensor *y) {
    int64_t shape[TE_MAX_DIMS + 1] = {pick(2) ? -1 : size(), size(), size(), 4, 4};
    te_tensor *parts[] = {x, y, x};
    switch (op) {
    case 0:
        return te_reshape(ctx, x, (int)pick(5), shape);
    case 1:
        return te_slice(ctx, x, (int)pick(5) - 2, pick(4), pick(5));
    case 2:
        return te_transpose(ctx, x, (int)pick(5) - 2, (int)pick(5) - 2);
    case 3:
        return te_contiguous(ctx, x);
    case 4:
        return te_concat(ctx, 1 + (int)pick(3), parts, (int)pick(4) - 1);
    case 5:
        return te_gather(ctx, x, y);
    case 6:
        return te_broadcast(ctx, x, (int)pick(5), shape + 1 - pick(2));
    default:
        return te_embedding(ctx, x, y);
    }
}

static te_tensor *call_layer(int op, te_tensor *x, te_tensor *y) {
    te_tensor *w = weight(x, size()), *result;
    switch (op) {
    case 0:
        result = te_linear(ctx, x, w, pick(2) ? y : NULL);
        break;
    case 1:
        result = te_bitlinear(ctx, x, w);
        break;
    case 2: {
        te_tensor *b = te_zeros(ctx, TE_DTYPE_FLOAT, 2, (int64_t[]){size(), te_shape(w)[0]});
        result = te_lora(ctx, y, x, w, b, 0.5);
        te_release(b);
        break;
    }
    case 3:
        result = te_conv1d(ctx, x, y, NULL, 1 + pick(3), pick(3), pick(3));
        break;
    case 4:
        result = te_attention(ctx, x, y, y, 1 + pick(3), 1 + pick(2), (int)pick(2));
        break;
    case 5:
        result = te_rope(ctx, x, 2 + 2 * pick(2), (int)pick(2), 100.0, pick(3));
        break;
    case 6:
        result = te_rmsnorm(ctx, x, y, 1e-3);
        break;
    default:
        result = te_layernorm(ctx, x, y, pick(2) ? y : NULL, 1e-3);
    }
    te_release(w);
    return result;
}

static te_tensor *call_pointwise(int op, te_tensor *x, te_tensor *y) {
    switch (op) {
    case 0:
        return te_add(ctx, x, y);
    case 1:
        return te_mul(ctx, x, y);
    case 2:
        return te_swiglu(ctx, x, y);
    case 3:
        return te_geglu(ctx, x, x);
    case 4:
        return te_minimum(ctx, x, y);
    case 5:
        return te_clip(ctx, x, -1, 1);
    case 6:
        return te_dropout(ctx, x, 0.5);
    case 7:
        return te_silu(ctx, te_gelu(ctx, x));
    case 8:
        return te_sigmoid(ctx, te_relu(ctx, x));
    case 9:
        return te_tanh(ctx, te_scale(ctx, x, -2));
    default:
        return te_exp(ctx, te_clip(ctx, x, -9, 9));
    }
}

static te_tensor *call_reduction(int op, te_tensor *x, te_tensor *y) {
    switch (op) {
    case 0:
        return te_mean_pool(ctx, x);
    case 1:
        return te_max_pool(ctx, x);
    case 2:
        return te_softmax(ctx, x);
    case 3:
        return te_log_softmax(ctx, x);
    case 4:
        return te_mse(ctx, x, y);
    case 5:
        return te_cross_entropy(ctx, x, y, -1);
    default:
        return te_cross_entropy_masked(ctx, x, y, some(), 0);
    }
}

int main(int argc, char **argv) {
    const int rounds = argc > 1 ? atoi(argv[1]) : 1000;
    long fitted = 0, refused = 0;
    for (int round = 0; round < rounds; round++) {
        ctx = te_ctx_new((uint64_t)round);
        te_set_single_use(ctx, round % 3 == 0);
        if (round % 50 == 0) te_set_threads(ctx, 2);
        for (int i = 0; i < POOL; i++) pool[i] = fresh(i % 4 == 3);
        for (int i = 0; i < CALLS; i++) {
            te_tensor *x = some(), *y = some(), *result;
            switch (pick(4)) {
            case 0:
                result = call_shape((int)pick(8), x, y);
                break;
            case 1:
                result = call_layer((int)pick(8), x, y);
                break;
            case 2:
                result = call_pointwise((int)pick(11), x, y);
                break;
            default:
                result = call_reduction((int)pick(7), x, y);
            }
            if (!result) {
                if (te_last_status(ctx) == TE_OK || !te_last_error(ctx)[0]) return 1;
                te_clear_error(ctx);
                refused++;
                continue;
            }
            fitted++;
            const int place = (int)pick(POOL);
            te_retain(result);
            te_release(pool[place]);
            pool[place] = result;
            if (te_requires_grad(result) && !te_is_leaf(result) && pick(4) == 0) {
                te_float *ones = calloc((size_t)te_numel(result) + 1, sizeof *ones);
                /* an operation that gives x itself may give one of an earlier tape */
                const te_status status = te_backward_from(ctx, result, ones);
                free(ones);
                if (status != TE_OK && status != TE_ERR_STATE) return 2;
                te_clear_error(ctx);
                if (round % 3 == 0) te_tape_reset(ctx);
            }
        }
        for (int i = 0; i < POOL; i++) te_release(pool[i]);
        te_ctx_free(ctx);
    }
    printf("%ld %ld\n", fitted, refused);
    return 0;
}
