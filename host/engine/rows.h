/* rows.h - passes over rows of numbers for one instruction set, included by kernels.c after simd.h.
 * Each handles any n; the last, incomplete vector is loaded with harmless values. */

/* for each vector of a row: i is its first element, left the number of elements from there */
#define TE_EACH_VECTOR         for (int64_t i = 0, left = n; i < n; i += V(lanes), left -= V(lanes))
#define TE_AT(pointer)         V(load_n)((pointer) + i, left)
#define TE_PUT(pointer, value) V(store_n)((pointer) + i, value, left)

static TE_TARGET void V(add)(int64_t n, const te_float *a, const te_float *b, te_float *y) {
    TE_EACH_VECTOR TE_PUT(y, TE_AT(a) + TE_AT(b));
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
    V(vec) total = V(set)(0), m = V(set)(mean);
    TE_EACH_VECTOR {
        V(vec) d = V(load_fill)(x + i, left, mean) - m;
        total = V(fma)(d, d, total);
    }
    return V(sum)(total);
}

static TE_TARGET te_float V(total)(int64_t n, const te_float *x) {
    V(vec) total = V(set)(0);
    TE_EACH_VECTOR total += TE_AT(x);
    return V(sum)(total);
}

static TE_TARGET te_float V(max_abs)(int64_t n, const te_float *x) {
    V(vec) top = V(set)(0);
    TE_EACH_VECTOR top = V(max)(V(abs)(TE_AT(x)), top);
    return V(largest)(top);
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

/* y = clamp(round(x * factor), -limit, limit): activations to int8, kept in floats */
static TE_TARGET void V(quantize)(int64_t n, te_float factor, te_float limit, const te_float *x,
                                  te_float *y) {
    V(vec) f = V(set)(factor), top = V(set)(limit), bottom = V(set)(-limit);
    TE_EACH_VECTOR TE_PUT(y, V(max)(V(min)(V(round)(TE_AT(x) * f), top), bottom));
}

/* y = clamp(round(x / divisor), -1, 1): weights to trits, kept in floats. The quotient is clamped
 * before it is rounded, which changes nothing but keeps it in the range of V(round). */
static TE_TARGET void V(ternarize)(int64_t n, te_float divisor, const te_float *x, te_float *y) {
    V(vec) d = V(set)(divisor), one = V(set)(1);
    TE_EACH_VECTOR TE_PUT(y, V(round)(V(max)(V(min)(TE_AT(x) / d, one), -one)));
}

/* y = exp(factor * (x - *largest)), the terms of a softmax; returns their sum. factor > 0 */
static TE_TARGET te_float V(exp_row)(int64_t n, te_float factor, const te_float *x, te_float *y,
                                     te_float *largest) {
    V(vec) f = V(set)(factor), top = V(set)(-TE_HUGE), total = V(set)(0);
    TE_EACH_VECTOR top = V(max)(V(load_fill)(x + i, left, -TE_HUGE), top);
    *largest = V(largest)(top);
    V(vec) offset = V(set)(*largest);
    TE_EACH_VECTOR {
        V(vec) e = V(vexp)((V(load_fill)(x + i, left, -TE_HUGE) - offset) * f);
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

/* y = (x - mean) * rstd * gain + bias; bias may be NULL */
static TE_TARGET void V(normalize)(int64_t n, te_float mean, te_float rstd, const te_float *x,
                                   const te_float *gain, const te_float *bias, te_float *y) {
    V(vec) m = V(set)(mean), r = V(set)(rstd);
    TE_EACH_VECTOR {
        V(vec) v = (TE_AT(x) - m) * r * TE_AT(gain);
        TE_PUT(y, bias ? v + TE_AT(bias) : v);
    }
}

/* dx (+)= rstd * (gain * dy - offset - (x - mean) * slope): backward of a normalisation */
static TE_TARGET void V(normalize_back)(int64_t n, const te_norm_back *c, const te_float *x,
                                        const te_float *gain, const te_float *dy, te_float *dx,
                                        int accumulate) {
    V(vec) m = V(set)(c->mean), r = V(set)(c->rstd);
    V(vec) offset = V(set)(c->offset), slope = V(set)(c->slope);
    TE_EACH_VECTOR {
        V(vec) d = r * (TE_AT(gain) * TE_AT(dy) - offset - (TE_AT(x) - m) * slope);
        TE_PUT(dx, accumulate ? d + TE_AT(dx) : d);
    }
}

/* *with_gain = sum(gain * dy), *with_x = sum(gain * dy * (x - mean)) */
static TE_TARGET void V(norm_sums)(int64_t n, te_float mean, const te_float *x,
                                   const te_float *gain, const te_float *dy, te_float *with_gain,
                                   te_float *with_x) {
    V(vec) m = V(set)(mean), total = V(set)(0), total_x = V(set)(0);
    TE_EACH_VECTOR {
        V(vec) d = TE_AT(gain) * TE_AT(dy);
        total += d;
        total_x = V(fma)(d, TE_AT(x) - m, total_x);
    }
    *with_gain = V(sum)(total);
    *with_x = V(sum)(total_x);
}

/* dgain += dy * (x - mean) * rstd */
static TE_TARGET void V(gain_back)(int64_t n, te_float mean, te_float rstd, const te_float *x,
                                   const te_float *dy, te_float *dgain) {
    V(vec) m = V(set)(mean), r = V(set)(rstd);
    TE_EACH_VECTOR TE_PUT(dgain, V(fma)(TE_AT(dy), (TE_AT(x) - m) * r, TE_AT(dgain)));
}

/* Turns the pairs (first, second) by the angles with cosine c and sine s; `direction` 1 or -1. */
static TE_TARGET void V(rotate)(int64_t n, te_float direction, const te_float *c, const te_float *s,
                                const te_float *first, const te_float *second, te_float *y_first,
                                te_float *y_second, int accumulate) {
    V(vec) d = V(set)(direction);
    TE_EACH_VECTOR {
        V(vec) cosine = TE_AT(c), sine = TE_AT(s) * d, u = TE_AT(first), v = TE_AT(second);
        V(vec) a = u * cosine - v * sine, b = u * sine + v * cosine;
        TE_PUT(y_first, accumulate ? a + TE_AT(y_first) : a);
        TE_PUT(y_second, accumulate ? b + TE_AT(y_second) : b);
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
