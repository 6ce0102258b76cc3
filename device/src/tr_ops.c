/* tr_ops.c - input, element-wise and row-wise operations, forward and backward side by side. Row
 * widths are in the comments; every sum runs from the first element to the last in one accumulator.
 */
#include "tr_math.h"
#include "tr_weights.h"

/* ---- moving and pointwise arithmetic ---- */

/* dst[n0] = a(int16[n0]) * b[ch] + c[ch], zero from element imm of the window on */
void tr_input(const tr_call *call) {
    uint32_t width = call->i->n0, channels = call->i->n1, end = call->i->imm;
    uint32_t element = call->t * width, channel = element % channels;
    const tr_i16 *a = call->a;
    float *dst = call->dst;
    const float *gain = tr_weights_of(call, call->b).data,
                *shift = tr_weights_of(call, call->c).data;
    for (uint32_t k = 0; k < width; ++k, ++element) {
        dst[k] = element < end ? (float)a[k] * gain[channel] + shift[channel] : 0.0f;
        if (++channel == channels) channel = 0;
    }
}

void tr_zero(const tr_call *call) {
    memset(call->dst, 0, (size_t)call->i->n0 * call->i->n1 * sizeof(float));
}

void tr_copy(const tr_call *call) {
    const float *a = call->a;
    float *dst = call->dst;
    uint32_t n = call->i->n0;
    for (uint32_t k = 0; k < n; ++k) tr_put(&dst[k], a[k], tr_acc(call));
}

void tr_add(const tr_call *call) {
    const float *a = call->a, *b = call->b;
    float *dst = call->dst;
    uint32_t n = call->i->n0;
#if defined(__GNUC__) && defined(__arm__) && defined(__ARM_FP)
    for (; n >= 4; n -= 4)
        __asm__ volatile("vldmia %1!, {s8-s11}\n\t"
                         "vldmia %2!, {s12-s15}\n\t"
                         "vadd.f32 s8, s8, s12\n\t"
                         "vadd.f32 s9, s9, s13\n\t"
                         "vadd.f32 s10, s10, s14\n\t"
                         "vadd.f32 s11, s11, s15\n\t"
                         "vstmia %0!, {s8-s11}"
                         : "+r"(dst), "+r"(a), "+r"(b)
                         :
                         : "s8", "s9", "s10", "s11", "s12", "s13", "s14", "s15", "memory");
#endif
    for (; n; --n) *dst++ = *a++ + *b++;
}

void tr_mul(const tr_call *call) {
    const float *a = call->a, *b = call->b;
    float *dst = call->dst;
    uint32_t n = call->i->n0;
    for (uint32_t k = 0; k < n; ++k) dst[k] = a[k] * b[k];
}

void tr_scale(const tr_call *call) {
    const float *a = call->a;
    float *dst = call->dst, scale = tr_imm(call);
    uint32_t n = call->i->n0;
    for (uint32_t k = 0; k < n; ++k) tr_put(&dst[k], a[k] * scale, tr_acc(call));
}

/* dst[n0] = mean over the rows of the loop of a[n0]; its backward is SCALE by 1 / T */
void tr_meanpool(const tr_call *call) {
    const float *a = call->a;
    float *dst = call->dst, scale = 1.0f / (float)call->rows;
    int first = call->turn == 0, last = call->turn + 1 == call->rows;
    uint32_t n = call->i->n0;
    for (uint32_t k = 0; k < n; ++k) {
        float sum = (first ? 0.0f : dst[k]) + a[k];
        dst[k] = last ? sum * scale : sum;
    }
}

/* ---- activations ---- */

static float sigmoid(float x) {
    return 1.0f / (1.0f + tr_exp(-x));
}

TR_SMALL static float silu(float x) {
    return x / (1.0f + tr_exp(-x));
}

static float silu_slope(float x) {
    float s = sigmoid(x);
    return s * (1.0f + x * (1.0f - s));
}

/* Hendrycks and Gimpel 2016 (arXiv 1606.08415), tanh form; sqrt(2 / pi) = 0.79788456 */
static float gelu_inner(float x) {
    return tr_tanh(0.79788456f * (x + 0.044715f * x * x * x));
}

TR_SMALL static float gelu(float x) {
    return 0.5f * x * (1.0f + gelu_inner(x));
}

static float gelu_slope(float x) {
    float h = gelu_inner(x);
    return 0.5f * (1.0f + h) +
           0.5f * x * (1.0f - h * h) * (0.79788456f * (1.0f + 0.134145f * x * x));
}

static float relu(float x) {
    return x > 0.0f ? x : 0.0f;
}

static float relu_slope(float x) {
    return x > 0.0f ? 1.0f : 0.0f;
}

/* dst[n0] = f(a[n0]) */
static void map(const tr_call *call, float (*f)(float)) {
    const float *a = call->a;
    float *dst = call->dst;
    uint32_t n = call->i->n0;
    for (uint32_t k = 0; k < n; ++k) dst[k] = f(a[k]);
}

/* dst[n0] (+)= dy[n0] * f'(a[n0]), dy = c */
static void map_bwd(const tr_call *call, float (*slope)(float)) {
    const float *a = call->a, *dy = call->c;
    float *dst = call->dst;
    uint32_t n = call->i->n0;
    for (uint32_t k = 0; k < n; ++k) tr_put(&dst[k], dy[k] * slope(a[k]), tr_acc(call));
}

void tr_silu(const tr_call *call) {
    map(call, silu);
}
void tr_silu_bwd(const tr_call *call) {
    map_bwd(call, silu_slope);
}
void tr_gelu(const tr_call *call) {
    map(call, gelu);
}
void tr_gelu_bwd(const tr_call *call) {
    map_bwd(call, gelu_slope);
}
void tr_relu(const tr_call *call) {
    map(call, relu);
}
void tr_relu_bwd(const tr_call *call) {
    map_bwd(call, relu_slope);
}

/* dst[n0] = silu(a) * b (Shazeer 2020, arXiv 2002.05202) */
void tr_swiglu(const tr_call *call) {
    const float *a = call->a, *b = call->b;
    float *dst = call->dst;
    uint32_t n = call->i->n0;
    for (uint32_t k = 0; k < n; ++k) dst[k] = silu(a[k]) * b[k];
}

/* dst[n0] = dy * b * silu'(a), d[n0] = dy * silu(a), dy = c[n0] */
void tr_swiglu_bwd(const tr_call *call) {
    const float *a = call->a, *b = call->b, *dy = call->c;
    float *da = call->dst, *db = call->d;
    uint32_t n = call->i->n0;
    for (uint32_t k = 0; k < n; ++k) {
        float gate = a[k], up = b[k], g = dy[k];
        da[k] = g * up * silu_slope(gate);
        db[k] = g * silu(gate);
    }
}

/* ---- norms ---- */

static float mean_square(const float *x, uint32_t n) {
    return tr_dot(x, x, n) / (float)n;
}

TR_SMALL TR_NOINLINE static float gain_at(const tr_weights *gain, uint32_t k) {
    if (gain->scale) return (float)((const tr_i16 *)gain->data)[k] * gain->scale[0];
    return gain->data ? tr_weight_at(gain, k) : 1.0f;
}

/* x[n] = (a - mean) * r */
static TR_FAST void centre(float *x, const float *a, uint32_t n, float mean, float r) {
    do *x++ = (*a++ - mean) * r;
    while (--n);
}

/* x[n] *= gain */
static TR_FAST void amplify(float *x, uint32_t n, const tr_weights *gain) {
    const tr_weights w = *gain;
    if (w.dtype == TR_F16)
        for (uint32_t k = 0; k < n; ++k) x[k] *= tr_half(((const tr_u16 *)w.data)[k]);
    else if (w.data)
        for (uint32_t k = 0; k < n; ++k) x[k] *= gain_at(gain, k);
}

/* dst[n0] = (a - mean) * r * b */
static TR_NOINLINE TR_SMALL void normalise(const tr_call *call, float mean, float r) {
    uint32_t n = call->i->n0;
    tr_weights gain = tr_weights_of(call, call->b);
    centre(call->dst, call->a, n, mean, r);
    amplify(call->dst, n, &gain);
}

/* dst[n0] = a * r * b, r = 1 / sqrt(mean(a^2) + imm) (Zhang and Sennrich 2019, arXiv 1910.07467) */
void tr_rmsnorm(const tr_call *call) {
    float r = 1.0f / tr_sqrt(mean_square(call->a, call->i->n0) + tr_imm(call));
    normalise(call, 0.0f, r);
}

/* with g = dy * b, dy = c[n0], h = a * r: dst[n0] (+)= r * (g - h * mean(g h)) */
void tr_rmsnorm_bwd(const tr_call *call) {
    uint32_t n = call->i->n0;
    const float *a = call->a, *dy = call->c;
    float *dst = call->dst, r = 1.0f / tr_sqrt(mean_square(a, n) + tr_imm(call)), sum = 0.0f;
    tr_weights gain = tr_weights_of(call, call->b);
    for (uint32_t k = 0; k < n; ++k) sum += dy[k] * gain_at(&gain, k) * (a[k] * r);
    float mean = sum / (float)n;
    for (uint32_t k = 0; k < n; ++k) {
        tr_put(&dst[k], r * (dy[k] * gain_at(&gain, k) - a[k] * r * mean), tr_acc(call));
    }
}

static float mean_of(const float *x, uint32_t n) {
    float sum = 0.0f;
    for (uint32_t k = 0; k < n; ++k) sum += x[k];
    return sum / (float)n;
}

/* 1 / sqrt(var(x) + eps) */
static float inverse_deviation(const float *x, uint32_t n, float mean, float eps) {
    float sum = 0.0f;
    for (uint32_t k = 0; k < n; ++k) {
        float centred = x[k] - mean;
        sum += centred * centred;
    }
    return 1.0f / tr_sqrt(sum / (float)n + eps);
}

/* dst[n0] = (a - mean) * r * b + c, r = 1 / sqrt(var + imm) (Ba et al. 2016, arXiv 1607.06450) */
void tr_layernorm(const tr_call *call) {
    uint32_t n = call->i->n0;
    const float *a = call->a;
    float mean = mean_of(a, n);
    normalise(call, mean, inverse_deviation(a, n, mean, tr_imm(call)));
    tr_add_bias(call, call->c, n);
}

/* with g = dy * b, dy = c[n0], h = (a - mean) * r: dst[n0] (+)= r * (g - mean(g) - h * mean(g h))
 */
void tr_layernorm_bwd(const tr_call *call) {
    uint32_t n = call->i->n0;
    const float *a = call->a, *dy = call->c;
    float *dst = call->dst, mean = mean_of(a, n), r = inverse_deviation(a, n, mean, tr_imm(call));
    float sum_g = 0.0f, sum_gh = 0.0f;
    tr_weights gain = tr_weights_of(call, call->b);
    for (uint32_t k = 0; k < n; ++k) {
        float g = dy[k] * tr_weight_at(&gain, k);
        sum_g += g;
        sum_gh += g * ((a[k] - mean) * r);
    }
    float mean_g = sum_g / (float)n, mean_gh = sum_gh / (float)n;
    for (uint32_t k = 0; k < n; ++k) {
        float g = dy[k] * tr_weight_at(&gain, k);
        tr_put(&dst[k], r * (g - mean_g - (a[k] - mean) * r * mean_gh), tr_acc(call));
    }
}

/* ---- ROPE (Su et al. 2021, arXiv 2104.09864): each pair of a head of n1 turned by t * b[pair]
 * ---- */

void tr_rope(const tr_call *call) {
    uint32_t width = call->i->n0, head = call->i->n1, pairs = head / 2, flags = call->i->flags;
    uint32_t next = flags & TR_FLAG_INTERLEAVED ? 2 : 1, apart = next == 2 ? 1 : pairs;
    const float *a = call->a, *frequency = tr_weights_of(call, call->b).data;
    float *dst = call->dst, t = (float)call->t;
    for (uint32_t p = 0; p < pairs; ++p, a += next, dst += next) {
        float sin, cos;
        tr_sincos(t * frequency[p], &sin, &cos);
        const float s = flags & TR_FLAG_BACK ? -sin : sin, c = cos;
        for (uint32_t h = 0; h < width; h += head) {
            float x = a[h], y = a[h + apart];
            dst[h] = x * c - y * s;
            dst[h + apart] = x * s + y * c;
        }
    }
}

/* ---- CROSS_ENTROPY: dst[n0] = softmax(a) - onehot(label), the loss -log softmax(a)[label] to the
 * session ---- */

void tr_cross_entropy(const tr_call *call) {
    uint32_t n = call->i->n0, label = call->session->label;
    const float *a = call->a;
    float *dst = call->dst, top = a[0], at_label = a[label], sum = 0.0f;
    for (uint32_t k = 1; k < n; ++k) {
        if (a[k] > top) top = a[k];
    }
    for (uint32_t k = 0; k < n; ++k) sum += dst[k] = tr_exp(a[k] - top);
    float scale = 1.0f / sum;
    for (uint32_t k = 0; k < n; ++k) dst[k] *= scale;
    dst[label] -= 1.0f;
    call->session->loss = tr_log(sum) + (top - at_label);
}
