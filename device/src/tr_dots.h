/* tr_dots.h - exact integer products of int8 rows with int16 values, behind LINEAR_I8 and
 * ATTENTION_Q8. Sums are of int32 and wrap; FORMAT.md's limits keep them exact. Each core has its
 * own version in tr_dots.c, with the same bits. */
#ifndef TR_DOTS_H
#define TR_DOTS_H

#include "tr_internal.h"

/* acc[r] = sum over k < n of w[r * pitch + k] * x[k], r < rows. x: 4-byte aligned. */
void tr_dots_i8(tr_i32 *acc, const int8_t *w, uint32_t pitch, uint32_t rows, const tr_i16 *x,
                uint32_t n);

/* acc[k] = sum over r < rows of w[r * pitch + k] * x[r], k < n. x: 4-byte aligned. */
void tr_mix_i8(tr_i32 *acc, const int8_t *w, uint32_t pitch, uint32_t rows, const tr_i16 *x,
               uint32_t n);

/* Their definitions, for any core: what the other versions are held to. */
void tr_dots_i8_plain(tr_i32 *acc, const int8_t *w, uint32_t pitch, uint32_t rows, const tr_i16 *x,
                      uint32_t n);
void tr_mix_i8_plain(tr_i32 *acc, const int8_t *w, uint32_t pitch, uint32_t rows, const tr_i16 *x,
                     uint32_t n);

#endif
