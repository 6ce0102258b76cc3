/* activations.h - activations and gated units for one instruction set, included by kernels.c after
 * layers.h. Each activation is one function that gives its value at v and sets its derivative. With
 * TE_GATES_ONLY there are those alone that transformers spend their time in. */

/* v sigmoid(v). Below, and in gelu_at, y comes first in the slope: where the sigmoid is 0 and v
 * huge, every product is 0. */
TE_INLINE V(vec) V(silu_at)(V(vec) v, V(vec) * slope) {
    V(vec) s = V(logistic)(v), y = v * s;
    *slope = V(fma)(y, V(set)(1) - s, s);
    return y;
}

/* v sigmoid(2u), u = sqrt(2/pi) (v + 0.044715 v^3): the tanh form, as 1 + tanh(u) = 2 sigmoid(2u).
 * From v^2 = 1e4 on the sigmoid is 0 or 1, and v^2 need not grow, to infinity at last. */
TE_INLINE V(vec) V(gelu_at)(V(vec) v, V(vec) * slope) {
    V(vec) c1 = V(set)(TE_GELU_LINEAR);
    V(vec) c3 = V(set)(TE_GELU_CUBIC) * V(min)(v * v, V(set)((te_float)1e4));
    V(vec) s = V(logistic)(v * (c1 + c3)), y = v * s;
    *slope = V(fma)(y * (V(set)(1) - s), c1 + V(set)(3) * c3, s);
    return y;
}

#ifndef TE_GATES_ONLY
TE_INLINE V(vec) V(relu_at)(V(vec) v, V(vec) * slope) {
    *slope = V(select)(v <= V(set)(0), V(set)(0), V(set)(1));
    return V(max)(v, V(set)(0));
}

TE_INLINE V(vec) V(sigmoid_at)(V(vec) v, V(vec) * slope) {
    V(vec) s = V(logistic)(v);
    *slope = s * (V(set)(1) - s);
    return s;
}

/* tanh(v) = m / (m + 2), m = e^2v - 1 */
TE_INLINE V(vec) V(tanh_at)(V(vec) v, V(vec) * slope) {
    V(vec) m = V(vexpm1)(v + v), t = m / (m + V(set)(2));
    *slope = V(set)(1) - t * t;
    return t;
}

/* The square of e^(v/2), which vexp does not clamp where e^v is finite: beyond come infinity and 0.
 */
TE_INLINE V(vec) V(exp_at)(V(vec) v, V(vec) * slope) {
    V(vec) root = V(vexp)(v * V(set)((te_float)0.5));
    return *slope = root * root;
}

TE_INLINE V(vec) V(log_at)(V(vec) v, V(vec) * slope) {
    *slope = V(set)(1) / v;
    return V(vlog)(v);
}
#endif

/* y = f(x), and dx (+)= dy f'(x) */
#define TE_ACTIVATION(name)                                                                        \
    static TE_TARGET void V(name)(int64_t n, const te_float *x, te_float *y) {                     \
        for (int64_t i = 0; i < n; i += V(lanes)) {                                                \
            V(vec) slope;                                                                          \
            V(store_n)(y + i, V(name##_at)(V(load_fill)(x + i, n - i, 1), &slope), n - i);         \
        }                                                                                          \
    }                                                                                              \
    static TE_TARGET void V(name##_back)(int64_t n, const te_float *x, const te_float *dy,         \
                                         te_float *dx, int accumulate) {                           \
        for (int64_t i = 0; i < n; i += V(lanes)) {                                                \
            V(vec) slope;                                                                          \
            V(name##_at)(V(load_fill)(x + i, n - i, 1), &slope);                                   \
            slope *= V(load_n)(dy + i, n - i);                                                     \
            V(store_n)(dx + i, accumulate ? slope + V(load_n)(dx + i, n - i) : slope, n - i);      \
        }                                                                                          \
    }

/* y = f(a) b;  da (+)= dy b f'(a), db (+)= dy f(a), each NULL where it is not wanted */
#define TE_GATED(name, activation)                                                                 \
    static TE_TARGET void V(name)(int64_t n, const te_float *a, const te_float *b, te_float *y) {  \
        for (int64_t i = 0; i < n; i += V(lanes)) {                                                \
            V(vec) slope, f = V(activation##_at)(V(load_n)(a + i, n - i), &slope);                 \
            V(store_n)(y + i, f * V(load_n)(b + i, n - i), n - i);                                 \
        }                                                                                          \
    }                                                                                              \
    static TE_TARGET void V(name##_back)(int64_t n, const te_float *a, const te_float *b,          \
                                         const te_float *dy, te_float *da, int accumulate_a,       \
                                         te_float *db, int accumulate_b) {                         \
        for (int64_t i = 0; i < n; i += V(lanes)) {                                                \
            const int64_t left = n - i;                                                            \
            V(vec) slope, f = V(activation##_at)(V(load_n)(a + i, left), &slope);                  \
            V(vec) d = V(load_n)(dy + i, left), to_a = d * V(load_n)(b + i, left) * slope;         \
            V(vec) to_b = d * f;                                                                   \
            if (da)                                                                                \
                V(store_n)(da + i, accumulate_a ? to_a + V(load_n)(da + i, left) : to_a, left);    \
            if (db)                                                                                \
                V(store_n)(db + i, accumulate_b ? to_b + V(load_n)(db + i, left) : to_b, left);    \
        }                                                                                          \
    }

TE_ACTIVATION(silu)
TE_ACTIVATION(gelu)
#ifndef TE_GATES_ONLY
TE_ACTIVATION(relu)
TE_ACTIVATION(sigmoid)
TE_ACTIVATION(tanh)
TE_ACTIVATION(exp)
TE_ACTIVATION(log)
#endif
TE_GATED(swiglu, silu)
TE_GATED(geglu, gelu)

#undef TE_ACTIVATION
#undef TE_GATED
