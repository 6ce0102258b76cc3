/* tr_linear.c - products with float weights: linear layers and LoRA (Hu et al. 2021, arXiv
 * 2106.09685), forward and backward. */
#include "kernels/tr_dots.h"
#include "kernels/tr_kernels.h"
#include "tr_weights.h"

tr_weights tr_weights_of(const tr_call *call, const void *entry) {
    tr_weights w = {NULL, NULL, 0};
    const tr_tensor *tensor = entry;
    if (!tensor) return w;
    const uint8_t *data = call->session->model->data + tensor->offset;
    w.data = data;
    w.dtype = tensor->dtype;
    if (w.dtype == TR_I8 || w.dtype == TR_I16)
        w.scale = (const float *)(const void *)(data + tensor->bytes - 4 * tensor->rows);
    return w;
}

void tr_add_bias(const tr_call *call, const void *entry, uint32_t n) {
    tr_weights bias = tr_weights_of(call, entry);
    float *dst = call->dst;
    if (!bias.data) return;
    for (uint32_t k = 0; k < n; ++k) dst[k] += tr_weight_at(&bias, k);
}

/* sum + x[0] * y[0] + .. + x[3] * y[3], in this order; moves x and y on. VMLA rounds the product
 * before it adds. */
static inline float dot4(const float **x, const float **y, float sum) {
#if defined(__GNUC__) && defined(__arm__) && defined(__ARM_FP)
    __asm__("vldmia %1!, {s8-s11}\n\t"
            "vldmia %2!, {s12-s15}\n\t"
            "vmla.f32 %0, s8, s12\n\t"
            "vmla.f32 %0, s9, s13\n\t"
            "vmla.f32 %0, s10, s14\n\t"
            "vmla.f32 %0, s11, s15"
            : "+t"(sum), "+r"(*x), "+r"(*y)
            : "m"(*(const float(*)[4]) * x), "m"(*(const float(*)[4]) * y)
            : "s8", "s9", "s10", "s11", "s12", "s13", "s14", "s15");
#else
    for (uint32_t k = 0; k < 4; ++k) sum += *(*x)++ * *(*y)++;
#endif
    return sum;
}

TR_NOINLINE float tr_dot(const float *x, const float *y, uint32_t n) {
    float sum = 0.0f;
    for (; n >= 4; n -= 4) sum = dot4(&x, &y, sum);
    for (; n; --n) sum += *x++ * *y++;
    return sum;
}

float tr_weights_dot(const tr_weights *w, uint32_t first, uint32_t stride, uint32_t row,
                     uint32_t row_stride, const float *x, uint32_t count) {
    float sum = 0.0f;
    if (w->dtype == TR_F32 && stride == 1) return tr_dot((const float *)w->data + first, x, count);
    for (; count; --count, first += stride, row += row_stride)
        sum += tr_weight(w, first, row) * *x++;
    return sum;
}

/* ---- LINEAR: dst[n1] = b [n1, n0] a[n0] + c[n1] ---- */

void tr_linear(const tr_call *call) {
    uint32_t in = call->i->n0, out = call->i->n1;
    tr_weights w = tr_weights_of(call, call->b);
    float *dst = call->dst;
    for (uint32_t o = 0; o < out; ++o) dst[o] = tr_weights_dot(&w, o * in, 1, o, 0, call->a, in);
    tr_add_bias(call, call->c, out);
}

/* dst[n0] = row `token` of b [n1, n0] */
void tr_embedding(const tr_call *call) {
    uint32_t n = call->i->n0, token = call->session->token, first = token * n;
    tr_weights w = tr_weights_of(call, call->b);
    float *dst = call->dst;
    for (uint32_t k = 0; k < n; ++k) dst[k] = tr_weight(&w, first + k, token);
}

/* dst[n1] = (b [n1, n0] . q) * (row scale * (s / 32767)) + c[n1], a: q16[n0], b: I8 */
void tr_linear_i8(const tr_call *call) {
    uint32_t in = call->i->n0, out = call->i->n1;
    tr_weights w = tr_weights_of(call, call->b);
    const tr_i16 *q = call->a;
    tr_i32 *acc = call->dst; /* integers first, then the floats in their place */
    float *dst = call->dst, s;
    memcpy(&s, q + tr_round_up(in, 8), sizeof s);
    float unit = s / 32767.0f;
    tr_dots_i8(acc, out, w.data, in, out, q, in, 1);
    for (uint32_t o = 0; o < out; ++o) dst[o] = (float)acc[o] * (w.scale[o] * unit);
    tr_add_bias(call, call->c, out);
}

/* dst[n0] (+)= b^T a[n1] */
void tr_linear_t(const tr_call *call) {
    uint32_t in = call->i->n0, out = call->i->n1;
    tr_weights w = tr_weights_of(call, call->b);
    float *dst = call->dst;
    for (uint32_t k = 0; k < in; ++k) {
        tr_put(&dst[k], tr_weights_dot(&w, k, in, 0, 1, call->a, out), tr_acc(call));
    }
}

/* ---- LORA: dst[n1] += imm * B [n1, n2] (A [n2, n0] a[n0]) ---- */

/* The factors that an instruction names: two tensors, or an adapter's part of the factor vector. 0:
 * none is attached. */
TR_SMALL static int lora_factors(const tr_call *call, tr_weights *a, tr_weights *b) {
    if (call->c) {
        *a = tr_weights_of(call, call->b);
        *b = tr_weights_of(call, call->c);
        return 1;
    }
    const float *factors = call->session->factors;
    if (!factors) return 0;
    const tr_adapter *adapter = call->b;
    a->dtype = b->dtype = TR_F32;
    a->data = factors + adapter->a;
    b->data = factors + adapter->b;
    return 1;
}

/* row[0] * z0 + .. + row[3] * z3, in this order; moves row on. */
static inline float dot4_with(const float **row, float z0, float z1, float z2, float z3) {
    float sum;
#if defined(__GNUC__) && defined(__arm__) && defined(__ARM_FP)
    __asm__("vldmia %1!, {s8-s11}\n\t"
            "vmul.f32 %0, s8, %2\n\t"
            "vmla.f32 %0, s9, %3\n\t"
            "vmla.f32 %0, s10, %4\n\t"
            "vmla.f32 %0, s11, %5"
            : "=&t"(sum), "+r"(*row)
            : "t"(z0), "t"(z1), "t"(z2), "t"(z3), "m"(*(const float(*)[4]) * row)
            : "s8", "s9", "s10", "s11");
#else
    const float *b = *row;
    sum = b[0] * z0;
    sum += b[1] * z1;
    sum += b[2] * z2;
    sum += b[3] * z3;
    *row += 4;
#endif
    return sum;
}

/* y[o] = x[o] * unit + scale * (row o of B [out, rank] . z) */
TR_SMALL static void add_side_path(float *y, const tr_i16 *x, float unit, const tr_weights *b,
                                   const float *z, uint32_t out, uint32_t rank, float scale) {
    if (b->dtype == TR_F32 && rank == 4) { /* the usual one */
        const float *row = b->data, z0 = z[0], z1 = z[1], z2 = z[2], z3 = z[3];
        for (; out; --out) *y++ = (float)*x++ * unit + scale * dot4_with(&row, z0, z1, z2, z3);
        return;
    }
    for (uint32_t o = 0; o < out; ++o)
        y[o] = (float)x[o] * unit + scale * tr_weights_dot(b, o * rank, 1, 0, 0, z, rank);
}

void tr_lora(const tr_call *call) {
    uint32_t in = call->i->n0, out = call->i->n1, rank = call->i->n2;
    tr_weights a = {0}, b = {0};
    if (!lora_factors(call, &a, &b)) return;
    float scale = tr_imm(call), *dst = call->dst, *z = call->d;
    for (uint32_t r = 0; r < rank; ++r) z[r] = tr_weights_dot(&a, r * in, 1, 0, 0, call->a, in);
    for (uint32_t o = 0; o < out; ++o)
        dst[o] += scale * tr_weights_dot(&b, o * rank, 1, 0, 0, z, rank);
}

/* dst q16[n1] += imm * B [n1, n2] (A [n2, n0] a(q8[n0])), scratch z = d[n2], x = e[n0], y = f[n1]
 */
void tr_lora16(const tr_call *call) {
    uint32_t in = call->i->n0, out = call->i->n1, rank = call->i->n2;
    tr_weights a = {0}, b = {0};
    if (!lora_factors(call, &a, &b)) return;
    const int8_t *q = call->a;
    tr_i16 *dst = call->dst;
    float scale = tr_imm(call), *z = call->d, *x = call->e, *y = call->f, s;
    memcpy(&s, q + tr_round_up(in, 64), sizeof s);
    const float from = s / 127.0f;
    for (uint32_t k = 0; k < in; ++k) x[k] = (float)q[k];
    for (uint32_t r = 0; r < rank; ++r) z[r] = tr_weights_dot(&a, r * in, 1, 0, 0, x, in) * from;
    memcpy(&s, dst + tr_round_up(out, 8), sizeof s);
    add_side_path(y, dst, s / 32767.0f, &b, z, out, rank, scale);
    tr_quantize_row16(dst, y, out);
}

/* x = a[n0], dy = d[n1], z = A x, g = imm * B^T dy; dst[n0] (+)= A^T g; grad A += g x^T, grad B +=
 * imm * dy z^T */
void tr_lora_bwd(const tr_call *call) {
    uint32_t in = call->i->n0, out = call->i->n1, rank = call->i->n2;
    tr_weights a = {0}, b = {0};
    if (!lora_factors(call, &a, &b)) return;
    const float *x = call->a, *dy = call->d;
    float scale = tr_imm(call), *dst = call->dst, *z = call->e, *g = z + rank;
    for (uint32_t r = 0; r < rank; ++r) {
        z[r] = tr_weights_dot(&a, r * in, 1, 0, 0, x, in);
        g[r] = scale * tr_weights_dot(&b, r, rank, 0, 0, dy, out);
    }
    if (dst) {
        for (uint32_t k = 0; k < in; ++k) {
            tr_put(&dst[k], tr_weights_dot(&a, k, in, 0, 0, g, rank), tr_acc(call));
        }
    }
    if (call->c) return;
    const tr_adapter *adapter = call->b;
    float *grad = tr_state_block(call->session, 1), *grad_a = grad + adapter->a,
          *grad_b = grad + adapter->b;
    for (uint32_t r = 0; r < rank; ++r) {
        for (uint32_t k = 0; k < in; ++k) *grad_a++ += g[r] * x[k];
    }
    for (uint32_t o = 0; o < out; ++o) {
        for (uint32_t r = 0; r < rank; ++r) *grad_b++ += scale * dy[o] * z[r];
    }
}
