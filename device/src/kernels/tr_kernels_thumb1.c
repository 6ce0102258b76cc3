/* tr_kernels_thumb1.c - ternary products for Cortex-M0, M0+ and M23. Four trits, of four columns or
 * of four rows, are an index into a table of all their sums, built once and used by a whole panel;
 * no multiplication is left. The loops are in tr_kernels_thumb1.S. */
#include "tr_kernels.h"

#if defined(TR_KERNELS_THUMB1)

enum { TABLE_WORDS = 171, BIAS = 512, ROW_GROUP = 8 };

void tr_thumb1_table(tr_u32 *table, const int8_t *x, uint32_t pitch);
void tr_thumb1_rows16(const uint8_t *w, const tr_u32 *tables, tr_i32 *acc, uint32_t rows);
void tr_thumb1_rows(const uint8_t *w, const tr_u32 *tables, tr_i32 *acc, uint32_t rows,
                    uint32_t pitch);
void tr_thumb1_table_t(tr_u32 *table, const tr_i16 *e);
void tr_thumb1_columns(const uint8_t *w, const tr_u32 *table, tr_i32 *acc, uint32_t pitch);

/* Adds four bytes (16 columns) of all rows to their sums. The rows behind the last full eight have
 * their sums in `tail`, where the padding rows may write. */
static void add_rows(const uint8_t *w, const tr_u32 *tables, tr_i32 *acc, tr_i32 *tail,
                     uint32_t rows, uint32_t pitch) {
    uint32_t full = rows & ~(ROW_GROUP - 1u);
    if (full && pitch == TR_PANEL / 4)
        tr_thumb1_rows16(w, tables, acc, full);
    else if (full)
        tr_thumb1_rows(w, tables, acc, full, pitch);
    if (rows > full) tr_thumb1_rows(w + full * pitch, tables, tail, ROW_GROUP, pitch);
}

void tr_kernel_forward(const uint8_t *w, const int8_t *x, tr_i32 *acc, uint32_t rows, uint32_t cols,
                       void *scratch) {
    uint32_t cols16 = (uint32_t)tr_round_up(cols, 16),
             rows8 = (uint32_t)tr_round_up(rows, ROW_GROUP);
    int32_t start = -(int32_t)(cols16 / 4 * BIAS);
    tr_u32 *tables = scratch; /* two tables of two columns of bytes: 1368 bytes and one word */
    tr_i32 *tail = (tr_i32 *)scratch + 1376 / 4;
    for (uint32_t r = 0; r < rows; ++r) acc[r] = start;
    for (uint32_t r = 0; r < ROW_GROUP; ++r) tail[r] = start;
    while (cols16) {
        uint32_t width = cols16 < TR_PANEL ? cols16 : TR_PANEL, pitch = width / 4;
        for (uint32_t byte = 0; byte < pitch; byte += 4) {
            tr_thumb1_table(tables, x + byte, pitch);
            tr_thumb1_table(tables + TABLE_WORDS, x + byte + 2, pitch);
            add_rows(w + byte, tables, acc, tail, rows, pitch);
        }
        w += rows8 * pitch;
        x += width;
        cols16 -= width;
    }
    for (uint32_t r = rows & ~(ROW_GROUP - 1u), k = 0; r < rows; ++r, ++k) acc[r] = tail[k];
}

void tr_kernel_transposed(const uint8_t *panel, const tr_i16 *e, tr_i32 *acc, uint32_t rows8,
                          uint32_t pitch, void *scratch) {
    memset(acc, 0, 16 * pitch);
    for (uint32_t r = 0; r < rows8; r += 4, panel += 4 * pitch) {
        tr_thumb1_table_t(scratch, e + r);
        tr_thumb1_columns(panel, scratch, acc, pitch);
    }
}

#endif
