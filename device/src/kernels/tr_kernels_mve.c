/* tr_kernels_mve.c - ternary products for cores with MVE (Cortex-M55, M85): 16 products of 8 bits
 * an instruction. */
#include "tr_kernels.h"

#if defined(TR_KERNELS_MVE)

#include <arm_mve.h>

/* ---- forward ---- */

/* The four fields of a panel's activations, negated: lanes from `pitch` on are zero. */
typedef struct {
    int8x16_t x0, x1, x2, x3;
} activations;

static inline activations load_negated(const int8_t *x, uint32_t pitch) {
    mve_pred16_t lanes = vctp8q(pitch);
    activations a = {
        vnegq_s8(vldrbq_z_s8(x, lanes)),
        vnegq_s8(vldrbq_z_s8(x + pitch, lanes)),
        vnegq_s8(vldrbq_z_s8(x + 2 * pitch, lanes)),
        vnegq_s8(vldrbq_z_s8(x + 3 * pitch, lanes)),
    };
    return a;
}

/* sum - sum of c x of a row, given -x; c = 1 - w is read at its place in the byte, fields 1 and 3
 * four times too large. */
static inline int32_t row_product(uint8x16_t codes, activations x, int32_t sum) {
    const uint8x16_t low = vdupq_n_u8(0x03), high = vdupq_n_u8(0x0C);
    int32_t times_4 = vmladavq_s8((int8x16_t)vandq_u8(codes, high), x.x1);
    sum = vmladavaq_s8(sum, (int8x16_t)vandq_u8(codes, low), x.x0);
    codes = vshrq_n_u8(codes, 4);
    times_4 = vmladavaq_s8(times_4, (int8x16_t)vandq_u8(codes, high), x.x3);
    sum = vmladavaq_s8(sum, (int8x16_t)vandq_u8(codes, low), x.x2);
    return sum + (times_4 >> 2);
}

/* Rows of 16 bytes. */
static void full_panel(const uint8_t *w, const int8_t *x, tr_i32 *acc, uint32_t rows) {
    activations a = load_negated(x, 16);
    for (; rows >= 4; rows -= 4, acc += 4, w += 64) {
        acc[0] = row_product(vldrbq_u8(w), a, acc[0]);
        acc[1] = row_product(vldrbq_u8(w + 16), a, acc[1]);
        acc[2] = row_product(vldrbq_u8(w + 32), a, acc[2]);
        acc[3] = row_product(vldrbq_u8(w + 48), a, acc[3]);
    }
    for (; rows; --rows, ++acc, w += 16) acc[0] = row_product(vldrbq_u8(w), a, acc[0]);
}

/* Rows of 4, 8 or 12 bytes. */
static void narrow_panel(const uint8_t *w, const int8_t *x, tr_i32 *acc, uint32_t rows,
                         uint32_t pitch) {
    activations a = load_negated(x, pitch);
    mve_pred16_t lanes = vctp8q(pitch);
    for (; rows; --rows, ++acc, w += pitch) acc[0] = row_product(vldrbq_z_u8(w, lanes), a, acc[0]);
}

static void fill(int32_t *dst, uint32_t n, int32_t value) {
    const int32x4_t values = vdupq_n_s32(value);
    for (; n >= 8; n -= 8, dst += 8) {
        vstrwq_s32(dst, values);
        vstrwq_s32(dst + 4, values);
    }
    for (; n; --n) *dst++ = value;
}

void tr_kernel_forward(const uint8_t *w, const int8_t *x, tr_i32 *acc, uint32_t rows, uint32_t cols,
                       void *scratch) {
    uint32_t cols16 = (uint32_t)tr_round_up(cols, 16), rows8 = (uint32_t)tr_round_up(rows, 8);
    int32_t total = 0; /* of (1 - c) x = x - c x, the first part */
    (void)scratch;
    for (uint32_t c = 0; c < cols16; c += 16) total = vaddvaq_s8(total, vldrbq_s8(x + c));
    fill((int32_t *)acc, rows, total);
    while (cols16) {
        uint32_t width = cols16 < TR_PANEL ? cols16 : TR_PANEL, pitch = width / 4;
        if (width == TR_PANEL)
            full_panel(w, x, acc, rows);
        else
            narrow_panel(w, x, acc, rows, pitch);
        w += rows8 * pitch;
        x += width;
        cols16 -= width;
    }
}

/* ---- transposed ---- */

enum { BLOCK = 32, LANES = 16, SUMS_PER_BYTE = 8 };

void tr_mve_columns(const uint8_t *w, const tr_i16 *e, tr_u32 *sums, const uint8_t *offsets,
                    uint32_t pitch, uint32_t second, uint32_t blocks);

typedef struct {
    tr_u32 sums[TR_PANEL / 4 * SUMS_PER_BYTE]; /* [byte of a row][field][low, high] */
    tr_i16 errors[BLOCK];
    uint8_t offsets[LANES];
} transposed_scratch;

/* The rows behind the last full block, fewer than 32: read as two groups of 16 rows that may
 * overlap, or read row 7 again, where a row's second copy has the error 0. */
static void last_rows(const uint8_t *w, const tr_i16 *e, uint32_t rows, uint32_t pitch,
                      transposed_scratch *s) {
    uint32_t second = rows < LANES ? 0 : rows - LANES;
    for (uint32_t k = 0; k < LANES; ++k) {
        uint32_t low = k < rows, high = second + k >= LANES && second + k < rows;
        s->offsets[k] = (uint8_t)((low ? k : rows - 1) * pitch);
        s->errors[k] = low ? e[k] : 0;
        s->errors[LANES + k] = high ? e[second + k] : 0;
    }
    tr_mve_columns(w, s->errors, s->sums, s->offsets, pitch, second * pitch, 1);
}

/* low + 256 high of four neighbouring bytes and one field: sum of (byte >> 2 field) e. */
static inline int32x4_t joined(const tr_u32 *sums, unsigned field) {
    const uint32x4_t step = vmulq_n_u32(vidupq_n_u32(0, 1), SUMS_PER_BYTE);
    const int32_t *p = (const int32_t *)sums + 2 * field;
    int32x4_t low = vldrwq_gather_shifted_offset_s32(p, step);
    return vmlaq_n_s32(low, vldrwq_gather_shifted_offset_s32(p + 1, step), 256);
}

/* Undoes the overlap of the fields and subtracts from the sum of e: sum of (1 - c) e. */
static void finish(tr_i32 *acc, const tr_u32 *sums, uint32_t pitch, int32_t total) {
    int32_t *dst = (int32_t *)acc;
    const int32x4_t all = vdupq_n_s32(total);
    for (uint32_t byte = 0; byte < pitch; byte += 4, sums += 4 * SUMS_PER_BYTE) {
        int32x4_t f0 = joined(sums, 0), f1 = joined(sums, 1);
        int32x4_t f2 = joined(sums, 2), f3 = joined(sums, 3);
        vstrwq_s32(dst + byte, vsubq_s32(all, f0));
        vstrwq_s32(dst + pitch + byte, vsubq_s32(all, vsubq_s32(f1, vshlq_n_s32(f2, 2))));
        vstrwq_s32(dst + 2 * pitch + byte, vsubq_s32(all, vsubq_s32(f2, vshlq_n_s32(f3, 2))));
        vstrwq_s32(dst + 3 * pitch + byte, vsubq_s32(all, f3));
    }
}

/* An error is 256 high + low, both bytes. 65535 rows of (byte >> 2) <= 42 times 255 stay below
 * 2^30, the joined sums may wrap; the result is exact. */
void tr_kernel_transposed(const uint8_t *panel, const tr_i16 *e, tr_i32 *acc, uint32_t rows8,
                          uint32_t pitch, void *scratch) {
    transposed_scratch *s = scratch;
    uint32_t blocks = rows8 / BLOCK, done = blocks * BLOCK;
    int32_t total = 0;
    for (uint32_t r = 0; r < rows8; r += 8)
        total = vaddvaq_s16(total, vldrhq_s16((const int16_t *)e + r));
    fill((int32_t *)s->sums, pitch * SUMS_PER_BYTE, 0);
    if (blocks) {
        vstrbq_u8(s->offsets, vmulq_n_u8(vidupq_n_u8(0, 1), (uint8_t)pitch));
        tr_mve_columns(panel, e, s->sums, s->offsets, pitch, LANES * pitch, blocks);
    }
    if (done < rows8) last_rows(panel + done * pitch, e + done, rows8 - done, pitch, s);
    finish(acc, s->sums, pitch, total);
}

/* ---- quantising and scaling ---- */

float tr_kernel_largest(const float *x, uint32_t n, float floor) {
    uint32_t top = tr_bits(floor); /* without the sign, floats compare as integers */
    const uint32x4_t size = vdupq_n_u32(0x7FFFFFFF);
    for (; n >= 4; n -= 4, x += 4)
        top = vmaxvq_u32(top, vandq_u32(vreinterpretq_u32_f32(vldrwq_f32(x)), size));
    for (; n; --n, ++x)
        if ((tr_bits(*x) & 0x7FFFFFFFu) > top) top = tr_bits(*x) & 0x7FFFFFFFu;
    return tr_from_bits(top);
}

/* Denormal numbers, which MVE takes for zero, round to zero as well. */
static inline int32x4_t quantize_4(const float *x, float32x4_t factor) {
    return vcvtnq_s32_f32(vmulq_f32(vldrwq_f32(x), factor));
}

void tr_kernel_quantize8(int8_t *q, const float *x, uint32_t n, float factor) {
    const float32x4_t factors = vdupq_n_f32(factor);
    for (; n >= 4; n -= 4, x += 4, q += 4) vstrbq_s32(q, quantize_4(x, factors));
    for (; n; --n) *q++ = (int8_t)tr_round_even(*x++ * factor);
}

void tr_kernel_quantize16(tr_i16 *q, const float *x, uint32_t n, float factor) {
    const float32x4_t factors = vdupq_n_f32(factor);
    for (; n >= 4; n -= 4, x += 4, q += 4) vstrhq_s32((int16_t *)q, quantize_4(x, factors));
    for (; n; --n) *q++ = (int16_t)tr_round_even(*x++ * factor);
}

/* MVE takes denormal numbers for zero; with a normal scale there are none. */
void tr_kernel_scale(float *dst, const tr_i32 *sums, uint32_t n, float scale) {
    const int32_t *from = (const int32_t *)sums;
    const float32x4_t factor = vdupq_n_f32(scale);
    if (tr_bits(scale) >> 23 & 0xFF)
        for (; n >= 4; n -= 4, from += 4, dst += 4)
            vstrwq_f32(dst, vmulq_f32(vcvtq_f32_s32(vldrwq_s32(from)), factor));
    for (; n; --n) *dst++ = (float)*from++ * scale;
}

#endif
