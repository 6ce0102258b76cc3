/* layers.h - the passes of attention's softmax and of norms, which compute more than they move, for
 * one instruction set, included by kernels.c after rows.h. */

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
