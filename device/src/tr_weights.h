/* tr_weights.h - float weights as they are stored (F32, F16, I8 with a scale per row), read as
 * floats. */
#ifndef TR_WEIGHTS_H
#define TR_WEIGHTS_H

#include "tr_internal.h"

typedef struct {
    const void *data;   /* NULL: no tensor */
    const float *scale; /* I8, I16: [rows] */
    uint32_t dtype;
} tr_weights;

/* Weights of a tensor operand (its directory entry, or NULL). */
TR_SMALL tr_weights tr_weights_of(const tr_call *call, const void *entry);

/* dst[n] += a tensor operand (F32 or F16, or NULL: nothing). */
TR_SMALL void tr_add_bias(const tr_call *call, const void *entry, uint32_t n);

/* sum over k < count, in this order, of w[first + k * stride] * x[k]. An I8 weight is q *
 * scale[row], where the row of element k is `row + k * row_stride`. */
TR_FAST float tr_weights_dot(const tr_weights *w, uint32_t first, uint32_t stride, uint32_t row,
                             uint32_t row_stride, const float *x, uint32_t count);

/* binary16 to float, exact for finite values. */
static inline float tr_half(uint16_t h) {
#if defined(__GNUC__) && defined(__arm__) && defined(__ARM_FP) && (__ARM_FP & 4)
    float x;
    __asm__("vmov %0, %1\n\tvcvtb.f32.f16 %0, %0" : "=t"(x) : "r"((uint32_t)h));
    return x;
#else
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7FFF;
    if (rest < 0x0400) {
        float tiny = (float)rest * 5.9604644775390625e-8f; /* 2^-24 */
        return sign ? -tiny : tiny;
    }
    return tr_from_bits(sign | ((rest << 13) + (112u << 23)));
#endif
}

/* Element `index` of an F32 or F16 vector. */
static inline float tr_weight_at(const tr_weights *w, uint32_t index) {
    if (w->dtype == TR_F16) return tr_half(((const tr_u16 *)w->data)[index]);
    return ((const float *)w->data)[index];
}

/* Element `index` of an F32, F16 or I8 tensor, which lies in row `row`. */
static inline float tr_weight(const tr_weights *w, uint32_t index, uint32_t row) {
    if (w->dtype == TR_I8) return (float)((const int8_t *)w->data)[index] * w->scale[row];
    return tr_weight_at(w, index);
}

/* sum over k < n, in this order, of x[k] * y[k] */
float tr_dot(const float *x, const float *y, uint32_t n);

#endif
