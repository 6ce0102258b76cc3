/* tr_kernels_plain.c - the ternary products as FORMAT.md section 3 defines them, one trit at a
 * time. The tests hold every faster version to these; a board's linker drops them. */
#include "tr_kernels.h"

static uint32_t width_of(uint32_t columns_left) {
    return columns_left < TR_PANEL ? columns_left : TR_PANEL;
}

/* The trit, -1, 0 or 1, of column `col` of a panel whose rows have `pitch` bytes. */
static int32_t trit(const uint8_t *panel, uint32_t pitch, uint32_t row, uint32_t col) {
    return 1 - (panel[row * pitch + col % pitch] >> (2 * (col / pitch)) & 3);
}

void tr_kernel_forward_plain(const uint8_t *w, const int8_t *x, tr_i32 *acc, uint32_t rows,
                             uint32_t cols) {
    uint32_t cols16 = (uint32_t)tr_round_up(cols, 16), rows8 = (uint32_t)tr_round_up(rows, 8);
    for (uint32_t r = 0; r < rows; ++r) {
        int32_t sum = 0;
        for (uint32_t c = 0; c < cols; ++c) {
            uint32_t first = c / TR_PANEL * TR_PANEL, pitch = width_of(cols16 - first) / 4;
            sum += trit(w + rows8 * first / 4, pitch, r, c - first) * x[c];
        }
        acc[r] = sum;
    }
}

void tr_kernel_transposed_plain(const uint8_t *panel, const tr_i16 *e, tr_i32 *acc, uint32_t rows8,
                                uint32_t pitch) {
    for (uint32_t c = 0; c < 4 * pitch; ++c) {
        int32_t sum = 0;
        for (uint32_t r = 0; r < rows8; ++r) sum += trit(panel, pitch, r, c) * e[r];
        acc[c] = sum;
    }
}
