/* tr_kernels.h - the exact integer products behind TERNARY and TERNARY_T over the layout WU of
 * FORMAT.md section 3, the quantisation before and the scaling after them. One implementation is
 * chosen per core; all of them give the same bits. Callers: tr_ternary.c and the tests. */
#ifndef TR_KERNELS_H
#define TR_KERNELS_H

#include "../tr_internal.h"
#include "tr_core.h"

enum {
    TR_PANEL = 64,                /* columns of a full panel; the last one may have 16, 32 or 48 */
    TR_TRANSPOSED_SCRATCH = 1152, /* bytes, what scratch(n) leaves beside the sums of a panel */
};

/* acc[rows] = W x. w: all panels; x: int8 in [-127, 127], zeros up to a multiple of 64; scratch:
 * max(2 * pad64(cols), 1408) bytes; all three 16-byte aligned. */
void tr_kernel_forward(const uint8_t *w, const int8_t *x, tr_i32 *acc, uint32_t rows, uint32_t cols,
                       void *scratch);

/* The same over the layout WD, for packers that know the core: WU with the words of every two rows
 * merged ahead. Fast with the DSP extension only. */
void tr_kernel_forward_wd(const uint8_t *w, const int8_t *x, tr_i32 *acc, uint32_t rows,
                          uint32_t cols, void *scratch);

/* acc[4 * pitch] = W^T e for one panel of 4 * pitch columns (pitch is 4, 8, 12 or 16: bytes of a
 * row). e: int16 in [-32767, 32767], zeros up to rows8, a multiple of 8, 16-byte aligned; acc
 * 16-byte aligned; scratch: TR_TRANSPOSED_SCRATCH bytes, 16-byte aligned. */
void tr_kernel_transposed(const uint8_t *panel, const tr_i16 *e, tr_i32 *acc, uint32_t rows8,
                          uint32_t pitch, void *scratch);

/* dst[k] = (float)sums[k] * scale for k < n, both operations rounded as IEEE 754 says; dst is the
 * memory of sums or does not touch it. */
void tr_kernel_scale(float *dst, const tr_i32 *sums, uint32_t n, float scale);

/* The largest |x[k]|, k < n, but at least `floor`; NaN when there is one among them. */
float tr_kernel_largest(const float *x, uint32_t n, float floor);

/* q[k] = x[k] * factor, rounded to float and then to the nearest integer, half to even, for k < n.
 * Products are at most 127 and 32767 in size; NaN becomes 0. */
void tr_kernel_quantize8(int8_t *q, const float *x, uint32_t n, float factor);
void tr_kernel_quantize16(tr_i16 *q, const float *x, uint32_t n, float factor);

/* The definition of the two products, element by element: what every other version is held to. */
void tr_kernel_forward_plain(const uint8_t *w, const int8_t *x, tr_i32 *acc, uint32_t rows,
                             uint32_t cols);
void tr_kernel_transposed_plain(const uint8_t *panel, const tr_i16 *e, tr_i32 *acc, uint32_t rows8,
                                uint32_t pitch);

/* Fast C for any core, and what an x86-64 without AVX2 runs. */
void tr_kernel_forward_portable(const uint8_t *w, const int8_t *x, tr_i32 *acc, uint32_t rows,
                                uint32_t cols, void *scratch);
void tr_kernel_transposed_portable(const uint8_t *panel, const tr_i16 *e, tr_i32 *acc,
                                   uint32_t rows8, uint32_t pitch, void *scratch);
float tr_kernel_largest_portable(const float *x, uint32_t n, float floor);
void tr_kernel_quantize8_portable(int8_t *q, const float *x, uint32_t n, float factor);
void tr_kernel_quantize16_portable(tr_i16 *q, const float *x, uint32_t n, float factor);
void tr_kernel_scale_portable(float *dst, const tr_i32 *sums, uint32_t n, float scale);

#endif
