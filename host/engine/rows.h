/* rows.h - passes over rows of numbers for one instruction set, included by kernels.c after simd.h.
 * Each handles any n. */

static TE_TARGET void V(add)(int64_t n, const te_float *a, const te_float *b, te_float *y) {
    TE_EACH_VECTOR TE_PUT(y, TE_AT(a) + TE_AT(b));
}

/* Copies rows, or adds them, from one distance of rows to another. */
static TE_TARGET void V(move)(int64_t rows, int64_t n, const te_float *x, int64_t x_row,
                              te_float *y, int64_t y_row, int accumulate) {
    for (; rows > 0; rows--, x += x_row, y += y_row) {
        for (int64_t i = 0; i < n; i += 16) TE_PREFETCH(x + 16 * x_row + i);
        TE_EACH_VECTOR TE_PUT(y, accumulate ? TE_AT(x) + TE_AT(y) : TE_AT(x));
    }
}

static TE_TARGET void V(mul)(int64_t n, const te_float *a, const te_float *b, te_float *y) {
    TE_EACH_VECTOR TE_PUT(y, TE_AT(a) * TE_AT(b));
}

static TE_TARGET void V(scale)(int64_t n, te_float factor, const te_float *x, te_float *y) {
    TE_EACH_VECTOR TE_PUT(y, TE_AT(x) * V(set)(factor));
}

/* y += factor * x */
static TE_TARGET void V(axpy)(int64_t n, te_float factor, const te_float *x, te_float *y) {
    TE_EACH_VECTOR TE_PUT(y, V(fma)(V(set)(factor), TE_AT(x), TE_AT(y)));
}

/* y += a * b */
static TE_TARGET void V(mul_add)(int64_t n, const te_float *a, const te_float *b, te_float *y) {
    TE_EACH_VECTOR TE_PUT(y, V(fma)(TE_AT(a), TE_AT(b), TE_AT(y)));
}

static TE_TARGET te_float V(dot)(int64_t n, const te_float *a, const te_float *b) {
    V(vec) total = V(set)(0);
    TE_EACH_VECTOR total = V(fma)(TE_AT(a), TE_AT(b), total);
    return V(sum)(total);
}

/* Sum of |x| in eight double lanes, n / 8 elements each, so that every set of kernels gives the
 * same value. */
static TE_TARGET double V(total_abs)(int64_t n, const te_float *x) {
    double lanes[8] = {0};
    int64_t i = 0;
#if TE_VECTOR_BYTES
    te_double4 low = {0}, high = {0};
    for (; i + 8 <= n; i += 8) {
        te_double4 a = __builtin_convertvector(*(const te_float4 *)(x + i), te_double4);
        te_double4 b = __builtin_convertvector(*(const te_float4 *)(x + i + 4), te_double4);
        low += (te_double4)((te_long4)a & INT64_MAX);
        high += (te_double4)((te_long4)b & INT64_MAX);
    }
    for (int k = 0; k < 4; k++) {
        lanes[k] = low[k];
        lanes[4 + k] = high[k];
    }
#else
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) lanes[k] += fabs((double)x[i + k]);
#endif
    for (int k = 0; i < n; i++, k++) lanes[k] += fabs((double)x[i]);
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
           ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

/* Stores round(v) + 128 as bytes, for -128 <= v <= 127. */
TE_INLINE void V(put_bytes)(uint8_t *q, V(vec) v, int64_t n) {
#if TE_VECTOR_BYTES
    /* Adding the magic number rounds, and leaves the result in the low bits. */
    V(bytes) bytes = TE_TO_BYTES((V(ivec))(v + V(set)(TE_ROUND_MAGIC + 128)), V(bytes));
    if (n >= V(lanes))
        memcpy(q, &bytes, sizeof bytes);
    else
        memcpy(q, &bytes, (size_t)n);
#else
    if (n > 0) *q = (uint8_t)(V(round)(v) + 128);
#endif
}

/* Rows of activations to bytes 128 + round(x * 127 / s), with s = max(max |x|, eps) in `scales`; s
 * is a NaN where some x of the row is none or infinite. Rows of q are `stride` apart. */
static TE_TARGET void V(codes)(int64_t rows, int64_t n, int64_t stride, te_float eps,
                               const te_float *x, uint8_t *q, te_float *scales) {
    for (; rows > 0; rows--, x += n, q += stride) {
        V(vec) top = V(set)(eps), odd = V(set)(0);
        TE_EACH_VECTOR {
            V(vec) v = TE_AT(x);
            top = V(max)(V(abs)(v), top);
            odd += v - v;
        }
        const te_float s = V(largest)(top);
        V(vec) f = V(set)(127 / s);
        TE_EACH_VECTOR V(put_bytes)(q + i, TE_AT(x) * f, left);
        *scales++ = s + V(sum)(odd);
    }
}

/* Weights to bytes 128 + clamp(round(x / divisor), -1, 1). The quotient is clamped before it is
 * rounded, which changes nothing but keeps it in range. */
static TE_TARGET void V(trits)(int64_t n, te_float divisor, const te_float *x, uint8_t *q) {
    V(vec) d = V(set)(divisor), one = V(set)(1);
    TE_EACH_VECTOR V(put_bytes)(q + i, V(max)(V(min)(TE_AT(x) / d, one), -one), left);
}

/* y = factor * (q - 128) */
static TE_TARGET void V(dequantize)(int64_t n, te_float factor, const uint8_t *q, te_float *y) {
    V(vec) f = V(set)(factor), zero = V(set)(128);
    TE_EACH_VECTOR {
#if TE_VECTOR_BYTES
        V(bytes) bytes = {0};
        if (left >= V(lanes))
            memcpy(&bytes, q + i, sizeof bytes);
        else
            memcpy(&bytes, q + i, (size_t)left);
        TE_PUT(y, (TE_FROM_BYTES(bytes, V(vec)) - zero) * f);
#else
        TE_PUT(y, ((te_float)q[i] - zero) * f);
#endif
    }
}

/* y = exp(factor * (x - *largest)), the terms of a softmax; returns their sum. factor > 0. Terms
 * below e^-87, where vexp ends, are 0; a NaN, an infinity or nothing but -infinity makes NaNs. */
static TE_TARGET te_float V(exp_row)(int64_t n, te_float factor, const te_float *x, te_float *y,
                                     te_float *largest) {
    V(vec) f = V(set)(factor), top = V(set)(-INFINITY), total = V(set)(0);
    V(vec) least = V(set)(-87), zero = V(set)(0);
    TE_EACH_VECTOR top = V(max)(V(load_fill)(x + i, left, -INFINITY), top);
    *largest = V(largest)(top);
    V(vec) offset = V(set)(*largest);
    TE_EACH_VECTOR {
        V(vec) d = (V(load_fill)(x + i, left, -INFINITY) - offset) * f;
        V(vec) e = V(select)(d < least, zero, V(vexp)(d));
        total += e;
        TE_PUT(y, e);
    }
    return V(sum)(total);
}

/* dx (+)= p * (dp - inner) * factor: backward of a softmax with output p */
static TE_TARGET void V(softmax_back)(int64_t n, te_float factor, te_float inner, const te_float *p,
                                      const te_float *dp, te_float *dx, int accumulate) {
    V(vec) f = V(set)(factor), mean = V(set)(inner);
    TE_EACH_VECTOR {
        V(vec) d = TE_AT(p) * (TE_AT(dp) - mean) * f;
        TE_PUT(dx, accumulate ? d + TE_AT(dx) : d);
    }
}

/* Turns one row of heads [heads, 2, n] by the angles with cosines c and sines s [n], the halves of
 * a head being the pairs; `direction` 1 or -1. x and y may be the same. */
static TE_TARGET void V(rotate)(int64_t heads, int64_t n, te_float direction, const te_float *c,
                                const te_float *s, const te_float *x, te_float *y, int accumulate) {
    V(vec) d = V(set)(direction);
    TE_EACH_VECTOR {
        V(vec) cosine = TE_AT(c), sine = TE_AT(s) * d;
        for (int64_t h = 0; h < 2 * n * heads; h += 2 * n) {
            V(vec) u = TE_AT(x + h), v = TE_AT(x + h + n);
            V(vec) a = u * cosine - v * sine, b = u * sine + v * cosine;
            TE_PUT(y + h, accumulate ? a + TE_AT(y + h) : a);
            TE_PUT(y + h + n, accumulate ? b + TE_AT(y + h + n) : b);
        }
    }
}

/* Adam and AdamW on one parameter; see optim.c for the constants. */
static TE_TARGET void V(adam)(int64_t n, const te_adam_step *s, const te_float *grad,
                              te_float *param, te_float *m, te_float *v) {
    V(vec) b1 = V(set)(s->beta1), c1 = V(set)(s->rest1);
    V(vec) b2 = V(set)(s->beta2), c2 = V(set)(s->rest2);
    V(vec) rate = V(set)(s->rate), root = V(set)(s->root_correction), eps = V(set)(s->eps);
    V(vec) keep = V(set)(s->keep), l2 = V(set)(s->l2);
    TE_EACH_VECTOR {
        V(vec) p = TE_AT(param);
        V(vec) g = V(fma)(l2, p, TE_AT(grad));
        V(vec) first = b1 * TE_AT(m) + c1 * g;
        V(vec) second = b2 * TE_AT(v) + c2 * g * g;
        TE_PUT(m, first);
        TE_PUT(v, second);
        TE_PUT(param, p * keep - rate * first / (V(sqrt)(second) * root + eps));
    }
}
