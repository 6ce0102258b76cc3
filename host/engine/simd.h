/* simd.h - vectors of te_float for one instruction set, included once per set by kernels.c, which
 * defines TE_SUFFIX (of names), TE_TARGET (a function attribute) and TE_VECTOR_BYTES (0: scalars,
 * for compilers without vector extensions). Everything is written in the vector extensions that
 * GCC and clang share, which keeps <immintrin.h> and its compile time out. */

#define V(name)   TE_JOIN(name, TE_SUFFIX)
#define TE_INLINE static inline TE_TARGET TE_ALWAYS_INLINE

#if TE_VECTOR_BYTES
enum { V(lanes) = TE_VECTOR_BYTES / (int)sizeof(te_float) };
typedef te_float V(vec) __attribute__((vector_size(TE_VECTOR_BYTES)));
typedef te_float V(vec_unaligned)
    __attribute__((vector_size(TE_VECTOR_BYTES), aligned(sizeof(te_float)), may_alias));
typedef te_int V(ivec) __attribute__((vector_size(TE_VECTOR_BYTES)));
typedef te_int V(ivec_unaligned)
    __attribute__((vector_size(TE_VECTOR_BYTES), aligned(sizeof(te_int)), may_alias));
typedef uint8_t V(bytes) __attribute__((vector_size(TE_VECTOR_BYTES / sizeof(te_float))));

TE_INLINE V(vec) V(set)(te_float x) {
    return x - (V(vec)){0};
}
TE_INLINE V(vec) V(load)(const te_float *p) {
    return *(const V(vec_unaligned) *)p;
}
TE_INLINE void V(store)(te_float *p, V(vec) v) {
    *(V(vec_unaligned) *)p = v;
}

TE_INLINE V(vec) V(select)(V(ivec) mask, V(vec) yes, V(vec) no) {
    return (V(vec))((mask & (V(ivec))yes) | (~mask & (V(ivec))no));
}
/* Both keep a NaN in their first argument, and give the first of equals. */
TE_INLINE V(vec) V(max)(V(vec) a, V(vec) b) {
#if defined(TE_MAX)
    return TE_MAX(b, a);
#else
    return V(select)(b > a, b, a);
#endif
}
TE_INLINE V(vec) V(min)(V(vec) a, V(vec) b) {
#if defined(TE_MIN)
    return TE_MIN(b, a);
#else
    return V(select)(b < a, b, a);
#endif
}
TE_INLINE V(vec) V(abs)(V(vec) a) {
    return (V(vec))((V(ivec))a & ~(V(ivec))V(set)((te_float)-0.0));
}

/* Reductions: each round joins every lane with the one half, a quarter, ... of a vector away, until
 * all lanes hold the result; the order is the same on every run. */
TE_INLINE te_float V(sum)(V(vec) v) {
#define TE_PLUS(a, b) ((a) + (b))
    TE_FOLD(v, TE_PLUS);
#undef TE_PLUS
    return v[0];
}
TE_INLINE te_float V(largest)(V(vec) v) {
    TE_FOLD(v, V(max));
    return v[0];
}

/* The first n < lanes elements; the other lanes get `fill`. */
TE_INLINE V(vec) V(load_part)(const te_float *p, int64_t n, te_float fill) {
#if defined(TE_MASKED_LOAD)
    V(ivec) mask = *(const V(ivec_unaligned) *)(te_lane_mask + 8 - n);
    return V(select)(mask, (V(vec))TE_MASKED_LOAD(p, mask), V(set)(fill));
#elif defined(TE_LOAD_FIRST)
    return TE_LOAD_FIRST(p, n, V(set)(fill));
#else
    V(vec) v = V(set)(fill);
    for (int64_t i = 0; i < n; i++) v[i] = p[i];
    return v;
#endif
}
TE_INLINE void V(store_part)(te_float *p, V(vec) v, int64_t n) {
#if defined(TE_MASKED_LOAD)
    TE_MASKED_STORE(p, *(const V(ivec_unaligned) *)(te_lane_mask + 8 - n), v);
#elif defined(TE_LOAD_FIRST)
    TE_STORE_FIRST(p, n, v);
#else
    for (int64_t i = 0; i < n; i++) p[i] = v[i];
#endif
}
#else
enum { V(lanes) = 1 };
typedef te_float V(vec);

TE_INLINE V(vec) V(set)(te_float x) {
    return x;
}
TE_INLINE V(vec) V(load)(const te_float *p) {
    return *p;
}
TE_INLINE void V(store)(te_float *p, V(vec) v) {
    *p = v;
}
TE_INLINE V(vec) V(select)(int mask, V(vec) yes, V(vec) no) {
    return mask ? yes : no;
}
TE_INLINE V(vec) V(max)(V(vec) a, V(vec) b) {
    return b > a ? b : a;
}
TE_INLINE V(vec) V(min)(V(vec) a, V(vec) b) {
    return b < a ? b : a;
}
TE_INLINE V(vec) V(abs)(V(vec) a) {
    return a < 0 ? -a : a;
}
TE_INLINE te_float V(sum)(V(vec) v) {
    return v;
}
TE_INLINE te_float V(largest)(V(vec) v) {
    return v;
}
TE_INLINE V(vec) V(load_part)(const te_float *p, int64_t n, te_float fill) {
    return n > 0 ? *p : fill;
}
TE_INLINE void V(store_part)(te_float *p, V(vec) v, int64_t n) {
    if (n > 0) *p = v;
}
#endif

/* n elements from p, where n may be less than a vector (then the rest is `fill`). */
TE_INLINE V(vec) V(load_fill)(const te_float *p, int64_t n, te_float fill) {
    return n >= V(lanes) ? V(load)(p) : V(load_part)(p, n, fill);
}
TE_INLINE V(vec) V(load_n)(const te_float *p, int64_t n) {
    return V(load_fill)(p, n, 0);
}
TE_INLINE void V(store_n)(te_float *p, V(vec) v, int64_t n) {
    if (n >= V(lanes))
        V(store)(p, v);
    else
        V(store_part)(p, v, n);
}

/* a * b + c, fused where the instruction set can. */
TE_INLINE V(vec) V(fma)(V(vec) a, V(vec) b, V(vec) c) {
#if defined(TE_FUSED)
    return TE_FUSED(a, b, c);
#else
    return a * b + c;
#endif
}

/* clang makes one instruction of the loop over the lanes; GCC wants it named. */
TE_INLINE V(vec) V(sqrt)(V(vec) a) {
#if defined(TE_GCC_SQUARE_ROOT) && !defined(__clang__)
    return TE_GCC_SQUARE_ROOT(a);
#elif TE_VECTOR_BYTES
    for (int i = 0; i < V(lanes); i++) a[i] = TE_LIBM_SQRT(a[i]);
    return a;
#else
    return TE_LIBM_SQRT(a);
#endif
}

/* To the nearest integer, ties to even, for |a| below a quarter of the magic number: adding it
 * pushes the fraction out of the significand. */
TE_INLINE V(vec) V(round)(V(vec) a) {
    V(vec) magic = V(set)(TE_ROUND_MAGIC);
    return (a + magic) - magic;
}

#if TE_VECTOR_BYTES && !defined(TE_DOUBLE)
/* e^a = 2^n e^r with |r| <= ln(2)/2, for -87 <= a <= 88, clamped outside. Sets r, and 2^n as what
 * is to be added to the bits of a number. Gives c of e^r = 1 + r + c r^2 (coefficients of Cephes
 * expf).
 */
TE_INLINE V(vec) V(exp_parts)(V(vec) a, V(vec) * r, V(ivec) * power) {
    a = V(max)(V(min)(a, V(set)(88.0f)), V(set)(-87.0f));
    V(vec) shifted = V(fma)(a, V(set)(1.44269504f), V(set)(TE_ROUND_MAGIC));
    V(vec) n = shifted - V(set)(TE_ROUND_MAGIC);
    *r = V(fma)(n, V(set)(2.12194440e-4f), V(fma)(n, V(set)(-0.693359375f), a));
    /* The low bits of `shifted` hold n. */
    *power = (V(ivec))shifted << 23;
    V(vec) c = V(set)(1.9875691500e-4f);
    c = V(fma)(c, *r, V(set)(1.3981999507e-3f));
    c = V(fma)(c, *r, V(set)(8.3334519073e-3f));
    c = V(fma)(c, *r, V(set)(4.1665795894e-2f));
    c = V(fma)(c, *r, V(set)(1.6666665459e-1f));
    return V(fma)(c, *r, V(set)(5.0000001201e-1f));
}
#endif

/* e^a. float: within 2 units in the last place for -87 <= a <= 88, clamped outside. double: libm.
 */
TE_INLINE V(vec) V(vexp)(V(vec) a) {
#if TE_VECTOR_BYTES && !defined(TE_DOUBLE)
    V(ivec) power;
    V(vec) r, c = V(exp_parts)(a, &r, &power);
    return (V(vec))((V(ivec))V(fma)(c, r * r, r + V(set)(1)) + power);
#elif TE_VECTOR_BYTES
    for (int i = 0; i < V(lanes); i++) a[i] = TE_LIBM_EXP(a[i]);
    return a;
#else
    return TE_LIBM_EXP(a);
#endif
}

/* e^a - 1, as precise near 0 as elsewhere; from a = 88 on it stays what it is there. */
TE_INLINE V(vec) V(vexpm1)(V(vec) a) {
#if TE_VECTOR_BYTES && !defined(TE_DOUBLE)
    V(ivec) power;
    V(vec) one = V(set)(1), r, c = V(exp_parts)(a, &r, &power);
    V(vec) scale = (V(vec))((V(ivec))one + power);
    return V(fma)(V(fma)(c, r * r, r), scale, scale - one);
#else
    a = V(min)(a, V(set)(88));
#if TE_VECTOR_BYTES
    for (int i = 0; i < V(lanes); i++) a[i] = TE_LIBM_EXPM1(a[i]);
    return a;
#else
    return TE_LIBM_EXPM1(a);
#endif
#endif
}

/* Natural logarithm by libm, lane by lane. */
TE_INLINE V(vec) V(vlog)(V(vec) a) {
#if TE_VECTOR_BYTES
    for (int i = 0; i < V(lanes); i++) a[i] = TE_LIBM_LOG(a[i]);
    return a;
#else
    return TE_LIBM_LOG(a);
#endif
}

/* 1 / (1 + e^-a), e^-a as the square of e^(-a/2), which vexp does not clamp where e^-a is finite:
 * where it is not, this is 0. */
TE_INLINE V(vec) V(logistic)(V(vec) a) {
    V(vec) one = V(set)(1), root = V(vexp)(a * V(set)((te_float)-0.5));
    return one / V(fma)(root, root, one);
}

/* Passes over a row of n elements. For each vector: i is its first element, left the number of
 * elements from there; the last, incomplete vector is loaded with harmless values. */
#define TE_EACH_VECTOR         for (int64_t i = 0, left = n; i < n; i += V(lanes), left -= V(lanes))
#define TE_AT(pointer)         V(load_n)((pointer) + i, left)
#define TE_PUT(pointer, value) V(store_n)((pointer) + i, value, left)
