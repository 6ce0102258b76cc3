/* tr_kernels_thumb1.c - ternary products for Cortex-M0, M0+ and M23. Four trits, of four columns or
 * of four rows, are an index into a table of all their sums, built once and used by a whole panel;
 * no multiplication is left. The loops are in tr_kernels_thumb1_loops.S. */
#include "tr_kernels.h"

#if defined(TR_KERNELS_THUMB1)

enum { TABLE_WORDS = 171, BIAS = 512, ROW_GROUP = 8 };

typedef struct {
    tr_i32 columns[4];
} TR_ALIAS four_sums;

void tr_thumb1_fill(tr_i32 *acc, uint32_t rows, int32_t value);
void tr_thumb1_table(tr_u32 *table, const int8_t *x, uint32_t pitch);
void tr_thumb1_rows16(const uint8_t *w, const tr_u32 *tables, tr_i32 *acc, uint32_t rows);
void tr_thumb1_rows(const uint8_t *w, const tr_u32 *tables, tr_i32 *acc, uint32_t rows,
                    uint32_t pitch);
void tr_thumb1_columns(const uint8_t *panel, const tr_i16 *e, tr_i32 *sums, tr_u32 *table,
                       const tr_i16 *end, uint32_t pitch);
void *tr_thumb1_scale(void *values, void *end, uint32_t scale);

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
    if (rows >= ROW_GROUP) tr_thumb1_fill(acc, rows & ~(ROW_GROUP - 1u), start);
    tr_thumb1_fill(tail, ROW_GROUP, start);
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
    tr_u32 *table = scratch;
    four_sums *sums = (four_sums *)(table + TABLE_WORDS + 1), *dst = (four_sums *)acc;
    tr_thumb1_fill(sums->columns, 4 * pitch, 0);
    tr_thumb1_columns(panel, e, sums->columns, table, e + rows8, pitch);
    for (uint32_t word = 0; word < pitch / 4; ++word)
        for (uint32_t field = 0; field < 4; ++field) dst[field * pitch / 4 + word] = *sums++;
}

/* ---- quantising and scaling ---- */

typedef void *quantize(void *q, const float *x, const float *end, const uint32_t *parameters);
quantize tr_thumb1_quantize8, tr_thumb1_quantize16;

/* What the loops in assembly need to know of a factor; 0 when it is not one of the usual ones, for
 * which every shift is between 1 and 255. */
static int describe(float factor, uint32_t parameters[3]) {
    uint32_t bits = tr_bits(factor), exponent = bits >> 23;
    parameters[0] = (bits >> 8 & 0x7FFF) | 0x8000;
    parameters[1] = bits & 0xFF;
    parameters[2] = 276 - exponent;
    return exponent >= 30 && exponent <= 244; /* a sign bit would make it larger */
}

void tr_kernel_quantize8(int8_t *q, const float *x, uint32_t n, float factor) {
    uint32_t parameters[3];
    int usual = describe(factor, parameters);
    for (uint32_t k = 0; k < n; ++k) {
        if (usual)
            k += (uint32_t)((int8_t *)tr_thumb1_quantize8(q + k, x + k, x + n, parameters) -
                            (q + k));
        if (k < n) q[k] = (int8_t)tr_round_even(x[k] * factor);
    }
}

void tr_kernel_quantize16(tr_i16 *q, const float *x, uint32_t n, float factor) {
    uint32_t parameters[3];
    int usual = describe(factor, parameters);
    for (uint32_t k = 0; k < n; ++k) {
        if (usual)
            k += (uint32_t)((tr_i16 *)tr_thumb1_quantize16(q + k, x + k, x + n, parameters) -
                            (q + k));
        if (k < n) q[k] = (int16_t)tr_round_even(x[k] * factor);
    }
}

/* The loop in assembly takes sums below 2^24 and scales far from the ends of the float range; the
 * compiler's float operations take the rest. */
void tr_kernel_scale(float *dst, const tr_i32 *sums, uint32_t n, float scale) {
    uint32_t bits = tr_bits(scale), exponent = bits >> 23;
    int usual = exponent >= 1 && exponent <= 229; /* a sign bit would make it larger */
    char *p = (char *)dst, *end = p + 4 * n;
    if ((const void *)dst != sums)
        for (uint32_t k = 0; k < n; ++k) ((tr_i32 *)(void *)dst)[k] = sums[k];
    for (;;) {
        if (usual) p = tr_thumb1_scale(p, end, bits);
        if (p == end) return;
        *(float *)(void *)p = (float)*(tr_i32 *)(void *)p * scale;
        p += 4;
    }
}

#endif
