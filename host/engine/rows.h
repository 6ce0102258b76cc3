/* rows.h - passes over rows of numbers for one instruction set, included by kernels.c after simd.h.
 * Each handles any n; the last, incomplete vector is loaded with harmless values. */

/* for each vector of a row: i is its first element, left the number of elements from there */
#define TE_EACH_VECTOR         for (int64_t i = 0, left = n; i < n; i += V(lanes), left -= V(lanes))
#define TE_AT(pointer)         V(load_n)((pointer) + i, left)
#define TE_PUT(pointer, value) V(store_n)((pointer) + i, value, left)

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

/* Sum of (x - mean)^2 */
static TE_TARGET te_float V(sum_squares)(int64_t n, te_float mean, const te_float *x) {
    V(vec) total[4] = {V(set)(0), V(set)(0), V(set)(0), V(set)(0)}, m = V(set)(mean);
    int64_t whole = 0; /* four sums, as one would wait for itself */
    for (; whole + 4 * V(lanes) <= n; whole += 4 * V(lanes)) {
        TE_UNROLL
        for (int k = 0; k < 4; k++) {
            V(vec) d = V(load)(x + whole + k * V(lanes)) - m;
            total[k] = V(fma)(d, d, total[k]);
        }
    }
    for (; whole < n; whole += V(lanes)) {
        V(vec) d = V(load_fill)(x + whole, n - whole, mean) - m;
        total[0] = V(fma)(d, d, total[0]);
    }
    return V(sum)((total[0] + total[1]) + (total[2] + total[3]));
}

static TE_TARGET te_float V(total)(int64_t n, const te_float *x) {
    V(vec) total = V(set)(0);
    TE_EACH_VECTOR total += TE_AT(x);
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

/* Attention's softmax, down the columns of s [keys, columns]: exp(factor * s) over its sum, where
 * column t is a query that sees `seen` + t keys and gets 0 for the others. */
static TE_TARGET void V(softmax_columns)(int64_t keys, int64_t columns, int64_t seen,
                                         te_float factor, te_float *s) {
    V(vec) f = V(set)(factor), zero = V(set)(0), none = V(set)(-INFINITY);
    for (int64_t t = 0; t < columns; t += V(lanes), s += V(lanes)) {
        const int64_t all = seen + t < keys ? seen + t : keys; /* keys that all lanes see */
        const V(vec) last = V(load)(te_count) + V(set)((te_float)(seen + t));
        V(vec) top = none, total = zero;
        for (int64_t j = 0; j < all; j++) top = V(max)(V(load)(s + j * columns), top);
        for (int64_t j = all; j < keys; j++)
            top =
                V(max)(V(select)(V(set)((te_float)j) < last, V(load)(s + j * columns), none), top);
        for (int64_t j = 0; j < keys; j++) {
            V(vec) e = V(vexp)((V(load)(s + j * columns) - top) * f);
            if (j >= all) e = V(select)(V(set)((te_float)j) < last, e, zero);
            total += e;
            V(store)(s + j * columns, e);
        }
        V(vec) share = V(set)(1) / total;
        for (int64_t j = 0; j < keys; j++)
            V(store)(s + j * columns, V(load)(s + j * columns) * share);
    }
}

/* Its backward: dp becomes p * (dp - sum of p * dp) * factor. */
static TE_TARGET void V(softmax_columns_back)(int64_t keys, int64_t columns, te_float factor,
                                              const te_float *p, te_float *dp) {
    V(vec) f = V(set)(factor);
    for (int64_t t = 0; t < columns; t += V(lanes), p += V(lanes), dp += V(lanes)) {
        V(vec) even = V(set)(0), odd = V(set)(0);
        for (int64_t i = 0; i < keys * columns; i += columns) {
            V(vec) term = V(fma)(V(load)(p + i), V(load)(dp + i), even);
            even = odd;
            odd = term;
        }
        even += odd;
        for (int64_t i = 0; i < keys * columns; i += columns)
            V(store)(dp + i, V(load)(p + i) * (V(load)(dp + i) - even) * f);
    }
}

/* Rows of RMSNorm, or of LayerNorm when `centred`: stats [rows, 2] = mean and rstd,
 * y = (x - mean) * rstd * gain + bias; bias may be NULL. */
static TE_TARGET void V(norm)(int64_t rows, int64_t n, int centred, te_float eps, const te_float *x,
                              const te_float *gain, const te_float *bias, te_float *y,
                              te_float *stats) {
    for (; rows > 0; rows--, x += n, y += n, stats += 2) {
        const te_float mean = centred ? V(total)(n, x) / (te_float)n : 0;
        const te_float variance = V(sum_squares)(n, mean, x) / (te_float)n;
        const te_float rstd = (te_float)1 / TE_LIBM_SQRT(variance + eps);
        V(vec) m = V(set)(mean), r = V(set)(rstd);
        stats[0] = mean;
        stats[1] = rstd;
        TE_EACH_VECTOR {
            V(vec) v = (TE_AT(x) - m) * r * TE_AT(gain);
            TE_PUT(y, bias ? v + TE_AT(bias) : v);
        }
    }
}

/* Backward of rows of norms. With z = (x - mean) * rstd and g = gain * dy:
 * dgain += dy * z, dbias += dy, dx (+)= rstd * (g - offset - z * mean(g * z)), where offset is
 * mean(g) when centred. dx, dgain and dbias may be NULL. */
static TE_TARGET void V(norm_back)(int64_t rows, const te_norm_back *c) {
    const int64_t n = c->n;
    const te_float *x = c->x, *dy = c->dy, *gain = c->gain, *stats = c->stats;
    te_float *dx = c->dx, *dgain = c->dgain, *dbias = c->dbias;
    for (; rows > 0; rows--, x += n, dy += n, stats += 2) {
        V(vec) m = V(set)(stats[0]), r = V(set)(stats[1]);
        V(vec) total = V(set)(0), total_x = V(set)(0);
        TE_EACH_VECTOR {
            V(vec) d = TE_AT(dy), z = (TE_AT(x) - m) * r, g = d * TE_AT(gain);
            if (dgain) TE_PUT(dgain, V(fma)(d, z, TE_AT(dgain)));
            if (dbias) TE_PUT(dbias, TE_AT(dbias) + d);
            total += g;
            total_x = V(fma)(g, z, total_x);
        }
        if (!dx) continue;
        V(vec) offset = V(set)(c->centred ? V(sum)(total) / (te_float)n : 0);
        V(vec) slope = V(set)(V(sum)(total_x) / (te_float)n);
        TE_EACH_VECTOR {
            V(vec) z = (TE_AT(x) - m) * r;
            V(vec) d = r * (TE_AT(gain) * TE_AT(dy) - offset - z * slope);
            TE_PUT(dx, c->accumulate ? d + TE_AT(dx) : d);
        }
        dx += n;
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

#undef TE_EACH_VECTOR
#undef TE_AT
#undef TE_PUT
