/* tr_dots.h - exact integer products of int8 rows with int16 values, behind LINEAR_I8 and
 * ATTENTION_Q8. Sums are int32 and wrap; FORMAT.md's limits keep those of sound programs exact. One
 * implementation is chosen per core; all of them give the same bits. */
#ifndef TR_DOTS_H
#define TR_DOTS_H

#include "tr_kernels.h"

enum { TR_DOTS_LONGEST = 512 }; /* columns of a row at most */

/* One or two vectors against rows: acc[h * acc_pitch + r] = sum over k < n of w[r * pitch + k] *
 * x[h * n + k], for r < rows, h < heads, heads 1 or 2, n * heads <= TR_DOTS_LONGEST. */
TR_SMALL void tr_dots_i8(tr_i32 *acc, uint32_t acc_pitch, const int8_t *w, uint32_t pitch,
                         uint32_t rows, const tr_i16 *x, uint32_t n, uint32_t heads);

/* One or two weighted sums of rows: acc[h * n + k] = sum over r < rows of w[r * pitch + k] *
 * x[h][r], for k < n, h < heads, heads 1 or 2. x: pairs of rows, heads side by side: x[h][r] is at
 * r / 2 * 2 * heads + 2 * h + r % 2, 4-byte aligned, and behind an odd number of rows there is one
 * 0 a head. */
TR_SMALL void tr_mix_i8(tr_i32 *acc, const int8_t *w, uint32_t pitch, uint32_t rows,
                        const tr_i16 *x, uint32_t n, uint32_t heads);

/* Their definitions, for any core: what the other versions are held to. */
void tr_dots_i8_portable(tr_i32 *acc, uint32_t acc_pitch, const int8_t *w, uint32_t pitch,
                         uint32_t rows, const tr_i16 *x, uint32_t n, uint32_t heads);
void tr_mix_i8_portable(tr_i32 *acc, const int8_t *w, uint32_t pitch, uint32_t rows,
                        const tr_i16 *x, uint32_t n, uint32_t heads);

#endif
