/* tr_dots_dsp.c - int8 rows times int16 values for cores with the DSP extension (Cortex-M4, M7,
 * M33). The loops are in tr_dots_dsp_loops.S; odd ends are done in plain C. */
#include "tr_dots.h"

#if defined(TR_KERNELS_DSP)

#include <arm_acle.h>

void tr_dsp_dots(const int8_t *w, uint32_t pitch, const uint32_t *x, const uint32_t *x_end,
                 tr_i32 *acc, const tr_i32 *acc_end);
void tr_dsp_dots_pair(const int8_t *w, uint32_t pitch, const uint32_t *x, const uint32_t *x_end,
                      tr_i32 *acc, const tr_i32 *acc_end, uint32_t acc_pitch);
void tr_dsp_mix(const int8_t *w, uint32_t pitch, const tr_u32 *x, const tr_u32 *x_end, tr_i32 *acc);
void tr_dsp_mix_pair(const int8_t *w, uint32_t pitch, const tr_u32 *x, const tr_u32 *x_end,
                     tr_i32 *acc, uint32_t acc_pitch);

/* Four values as two words, 0 and 2, then 1 and 3: the order in which SXTB16 unpacks bytes. */
static void spread(uint32_t *to, const tr_i16 *x) {
    uint32_t x01, x23;
    memcpy(&x01, x, sizeof x01);
    memcpy(&x23, x + 2, sizeof x23);
    to[0] = (x01 & 0xFFFF) | x23 << 16;
    to[1] = x01 >> 16 | (x23 & 0xFFFF0000u);
}

/* sum over k < n of w[k * step] * x[k / 2 * apart + k % 2] */
TR_SMALL TR_NOINLINE static int32_t dot(const int8_t *w, uint32_t step, const tr_i16 *x,
                                        uint32_t apart, uint32_t n) {
    uint32_t sum = 0;
    for (uint32_t k = 0; k < n; ++k, w += step) {
        sum += (uint32_t)(*w * x[k & 1]);
        if (k & 1) x += apart;
    }
    return (int32_t)sum;
}

/* Full groups of rows, then a last one that takes some of their rows again. */
void tr_dots_i8(tr_i32 *acc, uint32_t acc_pitch, const int8_t *w, uint32_t pitch, uint32_t rows,
                const tr_i16 *x, uint32_t n, uint32_t heads) {
    uint32_t values[TR_DOTS_LONGEST / 2], group = 4 / heads, left = rows % group, *end = values;
    if (n % 4 || rows < group) {
        for (; heads; --heads, acc += acc_pitch, x += n)
            for (uint32_t r = 0; r < rows; ++r) acc[r] = dot(w + r * pitch, 1, x, 2, n);
        return;
    }
    for (uint32_t k = 0; k < n; k += 4)
        for (uint32_t h = 0; h < heads; ++h, end += 2) spread(end, x + h * n + k);
    for (uint32_t count = rows - left;; count = group) {
        if (heads == 1)
            tr_dsp_dots(w, pitch, values, end, acc, acc + count);
        else
            tr_dsp_dots_pair(w, pitch, values, end, acc, acc + count, 4 * acc_pitch);
        if (!left) return;
        w += (rows - group) * pitch;
        acc += rows - group;
        left = 0;
    }
}

void tr_mix_i8(tr_i32 *acc, const int8_t *w, uint32_t pitch, uint32_t rows, const tr_i16 *x,
               uint32_t n, uint32_t heads) {
    const tr_u32 *pairs = (const tr_u32 *)(const void *)x, *end = pairs + rows / 2 * heads;
    if (n % 4 || rows < 2) {
        for (uint32_t h = 0; h < heads; ++h)
            for (uint32_t k = 0; k < n; ++k) *acc++ = dot(w + k, pitch, x + 2 * h, 2 * heads, rows);
        return;
    }
    for (uint32_t k = 0; k < n; k += 4 / heads) {
        if (heads == 1)
            tr_dsp_mix(w + k, pitch, pairs, end, acc + k);
        else
            tr_dsp_mix_pair(w + k, pitch, pairs, end, acc + k, 4 * n);
    }
    if (rows % 2 == 0) return;
    const int8_t *last = w + (rows - 1) * pitch;
    for (uint32_t h = 0; h < heads; ++h)
        for (uint32_t k = 0; k < n; ++k) acc[h * n + k] += last[k] * (int16_t)end[h];
}

#endif
