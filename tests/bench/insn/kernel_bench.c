/* kernel_bench.c - marked regions around the ternary kernels and a plain int8 kernel on one matrix
 * of BENCH_ROWS x BENCH_COLS (weights.S holds it in all forms). bench_kernels.py names the regions
 * in the order in which they run here. */
#include "guest.h"
#include "kernels/tr_kernels.h"

enum { ROWS = BENCH_ROWS, COLS = BENCH_COLS };
enum { COLS16 = (COLS + 15) / 16 * 16, ROWS8 = (ROWS + 7) / 8 * 8 };
enum { SCRATCH = 2 * (COLS + 63) + 1408 };

#define ALIGNED __attribute__((aligned(16)))

extern const uint8_t packed_weights[], merged_weights[];
extern const int8_t int8_weights[];
static int8_t x[(COLS + 63) / 64 * 64] ALIGNED;
static int16_t e[ROWS8 + 8] ALIGNED;
static tr_i32 sums[(uint32_t)ROWS > COLS16 ? ROWS : (uint32_t)COLS16] ALIGNED;
static uint8_t scratch[SCRATCH] ALIGNED;
static int8_t narrow[ROWS];

/* The multiplier of an int8 result, as fixed point with 16 bits behind the point. */
enum { MULTIPLIER = 1434 };

static int8_t to_int8(int32_t sum) {
    int32_t scaled = (sum * MULTIPLIER + 32768) >> 16;
    return (int8_t)(scaled > 127 ? 127 : scaled < -128 ? -128 : scaled);
}

/* For the fastest code, as libraries are compiled; the kernels are compiled as the firmware is. */
#define FASTEST __attribute__((noinline, optimize("O3")))

FASTEST static void requantise(int8_t *out, const tr_i32 *acc, uint32_t n) {
    for (uint32_t k = 0; k < n; ++k) out[k] = to_int8(acc[k]);
}

/* The peer: weights of one byte, a multiplication each, as any C programmer writes it. */
FASTEST static void int8_layer(const int8_t *w, const int8_t *in, int8_t *out, uint32_t rows,
                               uint32_t cols) {
    for (uint32_t r = 0; r < rows; ++r, w += cols) {
        int32_t sum = 0;
        for (uint32_t c = 0; c < cols; ++c) sum += w[c] * in[c];
        out[r] = to_int8(sum);
    }
}

static void transposed_layer(float *out, float scale) {
    const uint8_t *panel = packed_weights;
    tr_i32 *acc = (tr_i32 *)(void *)scratch;
    for (uint32_t first = 0; first < COLS16; first += TR_PANEL) {
        uint32_t width = COLS16 - first < TR_PANEL ? COLS16 - first : TR_PANEL, pitch = width / 4;
        tr_kernel_transposed(panel, (const tr_i16 *)(const void *)e, acc, ROWS8, pitch,
                             acc + TR_PANEL);
        tr_kernel_scale(out + first, acc, width, scale);
        panel += ROWS8 * pitch;
    }
}

int main(void) {
    volatile float scale = 0.0123456f;
    uint32_t state = 12345;
    for (uint32_t k = 0; k < COLS; ++k)
        x[k] = (int8_t)((state = state * 1664525 + 1013904223) % 255 - 127);
    for (uint32_t k = 0; k < ROWS; ++k)
        e[k] = (int16_t)((state = state * 1664525 + 1013904223) % 65535 - 32767);

    MARK_BEGIN();
    MARK_END(); /* what the marks cost themselves */

    MARK_BEGIN();
    tr_kernel_forward(packed_weights, x, sums, ROWS, COLS, scratch);
    requantise(narrow, sums, ROWS);
    MARK_END();

    MARK_BEGIN();
    tr_kernel_forward(packed_weights, x, sums, ROWS, COLS, scratch);
    tr_kernel_scale((float *)(void *)sums, sums, ROWS, scale);
    MARK_END();

    MARK_BEGIN();
    transposed_layer((float *)(void *)sums, scale);
    MARK_END();

    MARK_BEGIN();
    int8_layer(int8_weights, x, narrow, ROWS, COLS);
    MARK_END();

#if defined(TR_KERNELS_DSP)
    MARK_BEGIN();
    tr_kernel_forward_wd(merged_weights, x, sums, ROWS, COLS, scratch);
    tr_kernel_scale((float *)(void *)sums, sums, ROWS, scale);
    MARK_END();
#endif
    return 0;
}
