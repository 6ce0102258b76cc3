/* tr_dots_portable.c - int8 rows times int16 values in plain C: tr_dots.h. */
#include "tr_dots.h"

void tr_dots_i8_portable(tr_i32 *acc, uint32_t acc_pitch, const int8_t *w, uint32_t pitch,
                         uint32_t rows, const tr_i16 *x, uint32_t n, uint32_t heads) {
    for (; heads; --heads, acc += acc_pitch, x += n) {
        const int8_t *row = w;
        for (uint32_t r = 0; r < rows; ++r, row += pitch) {
            uint32_t sum = 0;
            for (uint32_t k = 0; k < n; ++k) sum += (uint32_t)(row[k] * x[k]);
            acc[r] = (int32_t)sum;
        }
    }
}

void tr_mix_i8_portable(tr_i32 *acc, const int8_t *w, uint32_t pitch, uint32_t rows,
                        const tr_i16 *x, uint32_t n, uint32_t heads) {
    for (uint32_t k = 0; k < n * heads; ++k) acc[k] = 0;
    for (uint32_t r = 0; r < rows; ++r, w += pitch) {
        for (uint32_t h = 0; h < heads; ++h) {
            int32_t weight = x[r / 2 * 2 * heads + 2 * h + r % 2];
            tr_i32 *sum = acc + h * n;
            for (uint32_t k = 0; k < n; ++k) sum[k] += (uint32_t)(w[k] * weight);
        }
    }
}

#if !defined(TR_KERNELS_DSP)

void tr_dots_i8(tr_i32 *acc, uint32_t acc_pitch, const int8_t *w, uint32_t pitch, uint32_t rows,
                const tr_i16 *x, uint32_t n, uint32_t heads) {
    tr_dots_i8_portable(acc, acc_pitch, w, pitch, rows, x, n, heads);
}

void tr_mix_i8(tr_i32 *acc, const int8_t *w, uint32_t pitch, uint32_t rows, const tr_i16 *x,
               uint32_t n, uint32_t heads) {
    tr_mix_i8_portable(acc, w, pitch, rows, x, n, heads);
}

#endif
