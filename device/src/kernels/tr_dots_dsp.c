/* tr_dots_dsp.c - int8 rows times int16 values for cores with the DSP extension (Cortex-M4, M7,
 * M33). The loops are in tr_dots_dsp_loops.S; odd ends are done in plain C. */
#include "tr_dots.h"

#if defined(TR_KERNELS_DSP)

#include <arm_acle.h>

/* acc_pitch, in bytes, is for the loops over a pair of vectors; the others leave it. */
typedef void dots_loop(const int8_t *w, uint32_t pitch, const uint32_t *x, const uint32_t *x_end,
                       tr_i32 *acc, const tr_i32 *acc_end, uint32_t acc_pitch);
typedef void mix_loop(const int8_t *w, uint32_t pitch, const tr_u32 *x, const tr_u32 *x_end,
                      tr_i32 *acc, uint32_t acc_pitch);
dots_loop tr_dsp_dots, tr_dsp_dots_pair;
mix_loop tr_dsp_mix, tr_dsp_mix_pair;

/* Four values as two words, 0 and 2, then 1 and 3: the order in which SXTB16 unpacks bytes. */
static inline void spread(uint32_t *to, const tr_u32 *x) {
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(to[0]) : "r"(x[0]), "r"(x[1]));
    __asm__("pkhtb %0, %2, %1, asr #16" : "=r"(to[1]) : "r"(x[0]), "r"(x[1]));
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
    uint32_t values[TR_DOTS_LONGEST / 2], *end = values + n * heads / 2;
    uint32_t group = heads == 1 ? 4 : 2, left = rows & (group - 1);
    dots_loop *loop = heads == 1 ? tr_dsp_dots : tr_dsp_dots_pair;
    if (n % 4 || rows < group) {
        for (; heads; --heads, acc += acc_pitch, x += n)
            for (uint32_t r = 0; r < rows; ++r) acc[r] = dot(w + r * pitch, 1, x, 2, n);
        return;
    }
    const tr_u32 *from = (const tr_u32 *)(const void *)x;
    for (uint32_t h = 0; h < heads; ++h) {
        uint32_t *to = values + 2 * h;
        do {
            spread(to, from);
            to += 2 * heads;
            from += 2;
        } while (to < end);
    }
    for (uint32_t count = rows - left;; count = group) {
        loop(w, pitch, values, end, acc, acc + count, 4 * acc_pitch);
        if (!left) return;
        w += (rows - group) * pitch;
        acc += rows - group;
        left = 0;
    }
}

void tr_mix_i8(tr_i32 *acc, const int8_t *w, uint32_t pitch, uint32_t rows, const tr_i16 *x,
               uint32_t n, uint32_t heads) {
    const tr_u32 *pairs = (const tr_u32 *)(const void *)x, *end = pairs + rows / 2 * heads;
    const int8_t *last = w + (rows - 1) * pitch;
    uint32_t group = heads == 1 ? 4 : 2;
    mix_loop *loop = heads == 1 ? tr_dsp_mix : tr_dsp_mix_pair;
    if (n % 4 || rows < 2) {
        for (uint32_t h = 0; h < heads; ++h)
            for (uint32_t k = 0; k < n; ++k) *acc++ = dot(w + k, pitch, x + 2 * h, 2 * heads, rows);
        return;
    }
    for (uint32_t k = 0; k < n; k += group) loop(w + k, pitch, pairs, end, acc + k, 4 * n);
    if (rows % 2 == 0) return;
    for (; heads; --heads, ++end)
        for (uint32_t k = 0; k < n; ++k) *acc++ += last[k] * (int16_t)*end;
}

#endif
