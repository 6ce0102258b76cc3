/* tr_kernels_portable.c - ternary products in plain C, for every core without its own version.
 * Forward: a byte of weights (four trits) is an index into a table of the 81 sums that its four
 * activations can give, built once for all rows. */
#include "tr_kernels.h"

/* Words of a table: bytes of weights go up to 2 + 8 + 32 + 128 = 170, two uint16 entries a word. */
enum { TABLE_WORDS = 86, TABLES = 4, BIAS = 512 };

/* Entry c of the table is BIAS + sum over k of (1 - c_k) * x[k * pitch], c_k being bits 2k, 2k+1 of
 * c. Two entries, c_0 = 0 and 1, share a word: sums stay positive, so both halves can be added to
 * at once. */
static void build_table(tr_u32 *table, const int8_t *x, uint32_t pitch) {
    const uint32_t both = 0x00010001u;
    uint32_t twice_x0 = (uint32_t)x[0] * 2;
    uint32_t x1 = (uint32_t)x[pitch] * both, x2 = (uint32_t)x[2 * pitch] * both,
             x3 = (uint32_t)x[3 * pitch] * both;
    uint32_t outer = BIAS * both + x1 + x2 + x3 + (uint32_t)x[0];
    for (unsigned c3 = 0; c3 < 3; ++c3, outer -= x3, table += 32) {
        uint32_t pair = outer;
        tr_u32 *row = table;
        for (unsigned c2 = 0; c2 < 3; ++c2, pair -= x2, row += 8) {
            uint32_t single = pair - twice_x0;
            row[0] = pair;
            row[1] = single;
            row[2] = pair - x1;
            row[3] = single - x1;
            row[4] = pair - 2 * x1;
            row[5] = single - 2 * x1;
        }
    }
}

void tr_kernel_forward_portable(const uint8_t *w, const int8_t *x, tr_i32 *acc, uint32_t rows,
                                uint32_t cols, void *scratch) {
    uint32_t cols16 = (uint32_t)tr_round_up(cols, 16), rows8 = (uint32_t)tr_round_up(rows, 8);
    tr_u32 *table = scratch;
    const tr_u16 *t0 = scratch, *t1 = t0 + 2 * TABLE_WORDS, *t2 = t1 + 2 * TABLE_WORDS,
                 *t3 = t2 + 2 * TABLE_WORDS;
    for (uint32_t r = 0; r < rows; ++r) acc[r] = -(int32_t)(cols16 / 4 * BIAS);
    while (cols16) {
        uint32_t width = cols16 < TR_PANEL ? cols16 : TR_PANEL, pitch = width / 4;
        for (uint32_t byte = 0; byte < pitch; byte += TABLES) {
            for (uint32_t n = 0; n < TABLES; ++n)
                build_table(table + n * TABLE_WORDS, x + byte + n, pitch);
            const uint8_t *p = w + byte;
            for (uint32_t r = 0; r < rows; ++r, p += pitch)
                acc[r] += t0[p[0]] + t1[p[1]] + t2[p[2]] + t3[p[3]];
        }
        w += rows8 * pitch;
        x += width;
        cols16 -= width;
    }
}

#if !defined(TR_KERNELS_DSP)

/* sum + sum over the 16 columns of a word of a row of (1 - c) x */
static int32_t add_word(int32_t sum, uint32_t word, const int8_t *x, uint32_t pitch) {
    for (uint32_t byte = 0; byte < 4; ++byte)
        for (uint32_t field = 0; field < 4; ++field, word >>= 2)
            sum += (1 - (int32_t)(word & 3)) * x[field * pitch + byte];
    return sum;
}

void tr_kernel_forward_wd(const uint8_t *w, const int8_t *x, tr_i32 *acc, uint32_t rows,
                          uint32_t cols, void *scratch) {
    uint32_t cols16 = (uint32_t)tr_round_up(cols, 16), rows8 = (uint32_t)tr_round_up(rows, 8);
    (void)scratch;
    for (uint32_t r = 0; r < rows; ++r) acc[r] = 0;
    while (cols16) {
        uint32_t width = cols16 < TR_PANEL ? cols16 : TR_PANEL, words = width / 16;
        const tr_u32 *p = (const tr_u32 *)(const void *)w;
        for (uint32_t r = 0; r < rows; r += 2, p += 2 * words) {
            for (uint32_t k = 0; k < words; ++k) {
                tr_u32 pair[2];
                tr_unmerge(p[k], p[k + words], pair);
                acc[r] = add_word(acc[r], pair[0], x + 4 * k, width / 4);
                if (r + 1 < rows) acc[r + 1] = add_word(acc[r + 1], pair[1], x + 4 * k, width / 4);
            }
        }
        w += rows8 * width / 4;
        x += width;
        cols16 -= width;
    }
}

#endif

/* Four columns of a byte at a time: sum of (1 - c) e = sum of e - sum of c e; wraps on the way,
 * exact at the end. */
void tr_kernel_transposed_portable(const uint8_t *panel, const tr_i16 *e, tr_i32 *acc,
                                   uint32_t rows8, uint32_t pitch, void *scratch) {
    (void)scratch;
    uint32_t total = 0;
    for (uint32_t r = 0; r < rows8; ++r) total += (uint32_t)e[r];
    for (uint32_t byte = 0; byte < pitch; ++byte) {
        uint32_t y0 = total, y1 = total, y2 = total, y3 = total;
        const uint8_t *p = panel + byte;
        for (uint32_t r = 0; r < rows8; ++r, p += pitch) {
            uint32_t code = *p, error = (uint32_t)e[r];
            y0 -= (code & 3) * error;
            y1 -= (code >> 2 & 3) * error;
            y2 -= (code >> 4 & 3) * error;
            y3 -= (code >> 6) * error;
        }
        acc[byte] = (int32_t)y0;
        acc[byte + pitch] = (int32_t)y1;
        acc[byte + 2 * pitch] = (int32_t)y2;
        acc[byte + 3 * pitch] = (int32_t)y3;
    }
}

float tr_kernel_largest_portable(const float *x, uint32_t n, float floor) {
    uint32_t top = tr_bits(floor); /* without the sign, floats compare as integers */
    for (uint32_t k = 0; k < n; ++k) {
        uint32_t size = tr_bits(x[k]) & 0x7FFFFFFFu;
        if (size > top) top = size;
    }
    return tr_from_bits(top);
}

void tr_kernel_quantize8_portable(int8_t *q, const float *x, uint32_t n, float factor) {
    for (uint32_t k = 0; k < n; ++k) q[k] = (int8_t)tr_round_even(x[k] * factor);
}

void tr_kernel_quantize16_portable(tr_i16 *q, const float *x, uint32_t n, float factor) {
    for (uint32_t k = 0; k < n; ++k) q[k] = (int16_t)tr_round_even(x[k] * factor);
}

void tr_kernel_scale_portable(float *dst, const tr_i32 *sums, uint32_t n, float scale) {
    for (uint32_t k = 0; k < n; ++k) dst[k] = (float)sums[k] * scale;
}

/* ---- cores without a version of their own ---- */

#if defined(TR_KERNELS_PORTABLE)

void tr_kernel_forward(const uint8_t *w, const int8_t *x, tr_i32 *acc, uint32_t rows, uint32_t cols,
                       void *scratch) {
    tr_kernel_forward_portable(w, x, acc, rows, cols, scratch);
}

void tr_kernel_transposed(const uint8_t *panel, const tr_i16 *e, tr_i32 *acc, uint32_t rows8,
                          uint32_t pitch, void *scratch) {
    tr_kernel_transposed_portable(panel, e, acc, rows8, pitch, scratch);
}

#endif

#if defined(TR_KERNELS_PORTABLE) || defined(TR_KERNELS_THUMB1) ||                                  \
    (defined(TR_KERNELS_DSP) && !defined(__ARM_PCS_VFP))

float tr_kernel_largest(const float *x, uint32_t n, float floor) {
    return tr_kernel_largest_portable(x, n, floor);
}

#endif

#if defined(TR_KERNELS_PORTABLE) || (defined(TR_KERNELS_DSP) && !defined(__ARM_PCS_VFP))

void tr_kernel_quantize8(int8_t *q, const float *x, uint32_t n, float factor) {
    tr_kernel_quantize8_portable(q, x, n, factor);
}

void tr_kernel_quantize16(tr_i16 *q, const float *x, uint32_t n, float factor) {
    tr_kernel_quantize16_portable(q, x, n, factor);
}

#endif

#if defined(TR_KERNELS_PORTABLE) || defined(TR_KERNELS_AVX2) ||                                    \
    (defined(TR_KERNELS_DSP) && !defined(__ARM_PCS_VFP))

void tr_kernel_scale(float *dst, const tr_i32 *sums, uint32_t n, float scale) {
    tr_kernel_scale_portable(dst, sums, n, scale);
}

#endif
