/* tr_kernels_dsp.c - ternary products for cores with the DSP extension (Cortex-M4, M7, M33): two
 * 16-bit products an instruction, and two rows in one lane. The loops over full panels are in
 * tr_kernels_dsp_loops.S; what is left of a matrix is done in C. */
#include "tr_kernels.h"

#if defined(TR_KERNELS_DSP)

#include <arm_acle.h>

enum { PANEL_BYTES = TR_PANEL / 4 };

typedef void columns(const uint8_t *w, const tr_i16 *e, tr_i32 *acc, const tr_i16 *end,
                     uint32_t start);
columns tr_dsp_columns_4, tr_dsp_columns_8, tr_dsp_columns_12, tr_dsp_columns_16;

static inline uint32_t ror(uint32_t x, unsigned n) {
    return n ? x >> n | x << (32 - n) : x;
}

static inline uint32_t smlad(uint32_t x, uint32_t y, uint32_t acc) {
    return (uint32_t)__smlad((int16x2_t)x, (int16x2_t)y, (int32_t)acc);
}

/* Activations of one panel as 16-bit pairs in the order in which `multiply` meets them: for each
 * of the pitch / 4 words of a row, fields 0 and 2 of bytes 0|2 and 1|3, then fields 1 and 3.
 * Returns minus their sum. */
uint32_t tr_dsp_spread(const int8_t *x, uint32_t pitch, tr_u32 *pairs);

/* A word (16 columns) of an even and of an odd row, where each 16-bit lane under the mask, rotated,
 * holds c_even + (w_odd << 14), with c = 1 - w and w as two's complement: fields 0 and 2 of both
 * rows in `fields_02`, the others, rotated by 18, in `fields_13`. This is the layout WD. */
typedef struct {
    uint32_t fields_02, fields_13;
} merged;

static inline merged merge(uint32_t even, uint32_t odd) {
    odd = ror(odd ^ 0x55555555u, 18);
    uint32_t swap = (even ^ odd) & 0xCCCCCCCCu;
    merged m = {even ^ swap, odd ^ swap};
    return m;
}

/* Started at minus the sum of x, the low 14 bits of a panel's sum are minus the even row's product
 * (64 * 127 < 2^13), the rest is the odd row's. */
static inline TR_SMALL uint32_t multiply(merged m, const tr_u32 *x, uint32_t sum) {
    m.fields_13 = ror(m.fields_13, 2);
    for (uint32_t k = 0; k < 4; ++k) {
        sum = smlad(0xC003C003u & ror(m.fields_02, 4 * k), x[k], sum);
        sum = smlad(0xC003C003u & ror(m.fields_13, 4 * k), x[k + 4], sum);
    }
    return sum;
}

/* Adds the products of a panel to rows first .. rows; `first` is even. */
static TR_SMALL void some_rows(const uint8_t *w, const tr_u32 *pairs, tr_i32 *acc, uint32_t first,
                               uint32_t rows, uint32_t pitch, uint32_t start, int is_merged) {
    uint32_t words = pitch / 4;
    const tr_u32 *p = (const tr_u32 *)(const void *)(w + first * pitch);
    for (uint32_t r = first; r < rows; r += 2, p += 2 * words) {
        uint32_t sum = start;
        for (uint32_t k = 0; k < words; ++k) {
            merged as_stored = {p[k], p[k + words]};
            merged m = is_merged ? as_stored : merge(p[k], p[k + words]);
            sum = multiply(m, pairs + 8 * k, sum);
        }
        int32_t even = (int32_t)(sum << 18) >> 18, odd = (int32_t)(sum - (uint32_t)even) >> 14;
        acc[r] -= even;
        if (r + 1 < rows) acc[r + 1] += odd;
    }
}

typedef void panel_rows(const uint8_t *w, const tr_u32 *pairs, tr_i32 *acc, const uint8_t *end,
                        uint32_t start);
panel_rows tr_dsp_rows, tr_dsp_merged_rows;
void tr_dsp_zero(tr_i32 *acc, uint32_t n);

/* acc[rows] = W x. `fast` does the full panels of `full` rows. */
static TR_SMALL void forward(const uint8_t *w, const int8_t *x, tr_i32 *acc, uint32_t rows,
                             uint32_t cols, tr_u32 *pairs, panel_rows *fast, uint32_t full,
                             int is_merged) {
    uint32_t cols16 = (uint32_t)tr_round_up(cols, 16), rows8 = (uint32_t)tr_round_up(rows, 8);
    tr_dsp_zero(acc, rows);
    while (cols16) {
        uint32_t width = cols16 < TR_PANEL ? cols16 : TR_PANEL, pitch = width / 4;
        uint32_t start = tr_dsp_spread(x, pitch, pairs), done = 0;
        if (pitch == PANEL_BYTES && full) {
            done = full;
            fast(w, pairs, acc, w + done * pitch, start);
        }
        some_rows(w, pairs, acc, done, rows, pitch, start, is_merged);
        w += rows8 * pitch;
        x += width;
        cols16 -= width;
    }
}

void tr_kernel_forward(const uint8_t *w, const int8_t *x, tr_i32 *acc, uint32_t rows, uint32_t cols,
                       void *scratch) {
    forward(w, x, acc, rows, cols, scratch, tr_dsp_rows, rows & ~3u, 0);
}

void tr_kernel_forward_wd(const uint8_t *w, const int8_t *x, tr_i32 *acc, uint32_t rows,
                          uint32_t cols, void *scratch) {
    forward(w, x, acc, rows, cols, scratch, tr_dsp_merged_rows, rows & ~7u, 1);
}

void tr_kernel_transposed(const uint8_t *panel, const tr_i16 *e, tr_i32 *acc, uint32_t rows8,
                          uint32_t pitch, void *scratch) {
    static columns *const of_pitch[] = {tr_dsp_columns_4, tr_dsp_columns_8, tr_dsp_columns_12,
                                        tr_dsp_columns_16};
    const tr_u32 *pairs = (const tr_u32 *)(const void *)e;
    uint32_t start = 0;
    (void)scratch;
    for (uint32_t r = 0; r < rows8; r += 8, pairs += 4) {
        start = smlad(pairs[0], 0xFFFFFFFFu, start);
        start = smlad(pairs[1], 0xFFFFFFFFu, start);
        start = smlad(pairs[2], 0xFFFFFFFFu, start);
        start = smlad(pairs[3], 0xFFFFFFFFu, start);
    }
    for (uint32_t byte = 0; byte < pitch; byte += 2)
        of_pitch[pitch / 4 - 1](panel + byte, e, acc + byte, e + rows8, start);
}

#endif
