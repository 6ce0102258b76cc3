/* tr_kernels.h - the exact integer products behind TERNARY and TERNARY_T, over the layout WU of
 * FORMAT.md section 3. One implementation is compiled per core; all of them give the same integers.
 */
#ifndef TR_KERNELS_H
#define TR_KERNELS_H

#include "tr_internal.h"

enum { TR_PANEL = 64 };

/* acc[rows] = W x. w: all panels; x: int8 in [-127, 127], zeros up to a multiple of 64, 16-byte
 * aligned; scratch: max(2 * pad64(cols), 1408) bytes, 16-byte aligned. */
void tr_kernel_forward(const uint8_t *w, const int8_t *x, tr_i32 *acc, uint32_t rows, uint32_t cols,
                       void *scratch);

/* acc[4 * pitch] = W^T e for one panel of 4 * pitch columns. e: int16, zeros up to rows8, a
 * multiple of 8. */
void tr_kernel_transposed(const uint8_t *panel, const tr_i16 *e, tr_i32 *acc, uint32_t rows8,
                          uint32_t pitch);

#endif
