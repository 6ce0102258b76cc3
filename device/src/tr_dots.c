/* tr_dots.c - int8 rows times int16 values, per core: tr_dots.h. */
#include "tr_dots.h"

void tr_dots_i8_plain(tr_i32 *acc, const int8_t *w, uint32_t pitch, uint32_t rows, const tr_i16 *x,
                      uint32_t n) {
    for (uint32_t r = 0; r < rows; ++r, w += pitch) {
        uint32_t sum = 0;
        for (uint32_t k = 0; k < n; ++k) sum += (uint32_t)(w[k] * x[k]);
        acc[r] = (int32_t)sum;
    }
}

void tr_mix_i8_plain(tr_i32 *acc, const int8_t *w, uint32_t pitch, uint32_t rows, const tr_i16 *x,
                     uint32_t n) {
    for (uint32_t k = 0; k < n; ++k) {
        uint32_t sum = 0;
        for (uint32_t r = 0; r < rows; ++r) sum += (uint32_t)(w[r * pitch + k] * x[r]);
        acc[k] = (int32_t)sum;
    }
}

void tr_dots_i8(tr_i32 *acc, const int8_t *w, uint32_t pitch, uint32_t rows, const tr_i16 *x,
                uint32_t n) {
    tr_dots_i8_plain(acc, w, pitch, rows, x, n);
}

void tr_mix_i8(tr_i32 *acc, const int8_t *w, uint32_t pitch, uint32_t rows, const tr_i16 *x,
               uint32_t n) {
    tr_mix_i8_plain(acc, w, pitch, rows, x, n);
}
