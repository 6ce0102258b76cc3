/* random.c - the seeded generator (xoshiro256++ by Blackman and Vigna, seeded by splitmix64),
 * distributions, and initialisation of weights. */
#include "internal.h"

void te_seed(te_ctx *ctx, uint64_t seed) {
    if (!ctx) return;
    for (int i = 0; i < 4; i++) {
        seed += UINT64_C(0x9E3779B97F4A7C15);
        uint64_t z = seed;
        z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
        ctx->rng[i] = z ^ (z >> 31);
    }
}

void te_rng_state(const te_ctx *ctx, uint64_t state[4]) {
    if (ctx && state) memcpy(state, ctx->rng, 32);
}
void te_rng_set_state(te_ctx *ctx, const uint64_t state[4]) {
    if (ctx && state && (state[0] | state[1] | state[2] | state[3])) memcpy(ctx->rng, state, 32);
}

static uint64_t te_rotate_left(uint64_t x, int bits) {
    return (x << bits) | (x >> (64 - bits));
}

uint64_t te_random_u64(te_ctx *ctx) {
    if (!ctx) return 0;
    uint64_t *s = ctx->rng;
    uint64_t result = te_rotate_left(s[0] + s[3], 23) + s[0];
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = te_rotate_left(s[3], 45);
    return result;
}

double te_random_uniform(te_ctx *ctx) {
    return (double)(te_random_u64(ctx) >> 11) * (1.0 / 9007199254740992.0);
}

/* Box-Muller; the second value is not kept, so that the state of the generator is all there is. */
double te_random_normal(te_ctx *ctx) {
    const double two_pi = 6.283185307179586;
    double u = 1.0 - te_random_uniform(ctx);
    double v = te_random_uniform(ctx);
    return sqrt(-2.0 * log(u)) * cos(two_pi * v);
}

static te_status te_expect_float(te_tensor *t, const char *what) {
    if (!t) return TE_ERR_VALUE;
    if (t->dtype == TE_DTYPE_FLOAT) return TE_OK;
    te_fail(t->ctx, TE_ERR_TYPE, "%s: needs a float tensor, got int32", what);
    return TE_ERR_TYPE;
}

/* Where to write the elements of t in row-major order: te_written puts them in place. */
static void *te_writable(te_tensor *t) {
    if (!t->strided) return t->data;
    return te_make_dense(t) ? t->dense : NULL;
}

static te_status te_written(te_tensor *t) {
    if (t->strided) te_copy_strided(t, t->dense, 1);
    return TE_OK;
}

te_status te_fill(te_tensor *t, double value) {
    if (!t) return TE_ERR_VALUE;
    if (t->dtype == TE_DTYPE_INT32 && !(value > -2147483649.0 && value < 2147483648.0)) {
        te_fail(t->ctx, TE_ERR_VALUE, "fill: %g is not an int32", value);
        return TE_ERR_VALUE;
    }
    void *data = te_writable(t);
    if (!data) return t->ctx->status;
    for (int64_t i = 0; i < t->numel; i++) {
        if (t->dtype == TE_DTYPE_FLOAT)
            ((te_float *)data)[i] = (te_float)value;
        else
            ((int32_t *)data)[i] = (int32_t)value;
    }
    return te_written(t);
}

te_status te_fill_uniform(te_tensor *t, double low, double high) {
    te_status status = te_expect_float(t, "fill_uniform");
    if (status != TE_OK) return status;
    te_float *data = te_writable(t);
    if (!data) return t->ctx->status;
    for (int64_t i = 0; i < t->numel; i++)
        data[i] = (te_float)(low + (high - low) * te_random_uniform(t->ctx));
    return te_written(t);
}

te_status te_fill_normal(te_tensor *t, double mean, double deviation) {
    te_status status = te_expect_float(t, "fill_normal");
    if (status != TE_OK) return status;
    te_float *data = te_writable(t);
    if (!data) return t->ctx->status;
    for (int64_t i = 0; i < t->numel; i++)
        data[i] = (te_float)(mean + deviation * te_random_normal(t->ctx));
    return te_written(t);
}

/* Fans of a weight [out, in, ...]. */
static te_status te_fans(te_tensor *t, const char *what, double *fan_in, double *fan_out) {
    char text[TE_SHAPE_CHARS];
    if (!t) return TE_ERR_VALUE;
    if (t->ndim < 2 || t->numel == 0) {
        te_fail(t->ctx, TE_ERR_SHAPE, "%s: needs a weight [out, in, ...], got %s", what,
                te_shape_text(t, text));
        return TE_ERR_SHAPE;
    }
    *fan_in = (double)(t->numel / t->shape[0]);
    *fan_out = (double)(t->numel / t->shape[1]);
    return TE_OK;
}

te_status te_init_kaiming(te_tensor *t, double gain) {
    double fan_in = 1, fan_out = 1;
    te_status status = te_fans(t, "init_kaiming", &fan_in, &fan_out);
    if (status != TE_OK) return status;
    double bound = gain * sqrt(3.0 / fan_in);
    return te_fill_uniform(t, -bound, bound);
}

te_status te_init_xavier(te_tensor *t, double gain) {
    double fan_in = 1, fan_out = 1;
    te_status status = te_fans(t, "init_xavier", &fan_in, &fan_out);
    if (status != TE_OK) return status;
    double bound = gain * sqrt(6.0 / (fan_in + fan_out));
    return te_fill_uniform(t, -bound, bound);
}
