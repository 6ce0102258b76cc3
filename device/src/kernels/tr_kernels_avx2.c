/* tr_kernels_avx2.c - ternary products for x86-64 with AVX2, found out when first called; other
 * processors take the portable ones. No compiler flags are needed. */
#include "tr_kernels.h"

#if defined(TR_KERNELS_AVX2)

#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))

enum { PANEL_BYTES = TR_PANEL / 4, ROW_GROUP = 8, GROUP_VECTORS = 4 };

/* ---- forward ----
 * A vector holds two rows of a panel, c = 1 - w in four fields of its bytes. Each 16-bit lane of a
 * row collects sum of c x over 8 columns of a panel, at most 8 * 2 * 127 = 2032 in size, so 16
 * panels fit. */

enum { ROW_BLOCK = 512, PANELS_PER_FLUSH = 16 };

/* The fields of a panel's activations, for both rows; lanes from `pitch` on are zero. */
typedef struct {
    __m256i x0, x1, x2, x3;
} activations;

AVX2 static inline __m256i both_rows(const int8_t *x) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)x));
}

AVX2 static inline activations load_activations(const int8_t *x) {
    activations a = {both_rows(x), both_rows(x + 16), both_rows(x + 32), both_rows(x + 48)};
    return a;
}

AVX2 static activations load_narrow_activations(const int8_t *x, uint32_t pitch) {
    int8_t fields[TR_PANEL] = {0};
    for (unsigned k = 0; k < 4; ++k) memcpy(fields + 16 * k, x + k * pitch, pitch);
    return load_activations(fields);
}

/* Two parts of sums of c x in 16-bit lanes, the second four times too large. */
typedef struct {
    __m256i once, times_4;
} parts;

AVX2 static inline parts row_parts(__m256i codes, activations a) {
    const __m256i low = _mm256_set1_epi8(0x03), high = _mm256_set1_epi8(0x0C);
    __m256i rest = _mm256_srli_epi16(codes, 4);
    __m256i c0x0 = _mm256_maddubs_epi16(_mm256_and_si256(codes, low), a.x0);
    __m256i c1x1 = _mm256_maddubs_epi16(_mm256_and_si256(codes, high), a.x1);
    __m256i c2x2 = _mm256_maddubs_epi16(_mm256_and_si256(rest, low), a.x2);
    __m256i c3x3 = _mm256_maddubs_epi16(_mm256_and_si256(rest, high), a.x3);
    parts sums = {_mm256_add_epi16(c0x0, c2x2), _mm256_add_epi16(c1x1, c3x3)};
    return sums;
}

AVX2 static inline __m256i joined(parts p) {
    return _mm256_add_epi16(p.once, _mm256_srai_epi16(p.times_4, 2));
}

AVX2 static inline __m256i load(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

/* Two rows of `pitch` bytes in the two halves of a vector, the rest zero. */
AVX2 static inline __m256i load_rows(const uint8_t *w, uint32_t pitch) {
    uint8_t rows[2 * PANEL_BYTES] = {0};
    if (pitch == PANEL_BYTES) return load(w);
    for (uint32_t b = 0; b < pitch; b += 4) {
        memcpy(rows + b, w + b, 4);
        memcpy(rows + PANEL_BYTES + b, w + pitch + b, 4);
    }
    return load(rows);
}

/* lanes = (first) or += the sums of two full panels, `vectors` pairs of rows of each: one pass over
 * the lanes for both. */
AVX2 static void add_two_panels(const uint8_t *w, const uint8_t *next, const int8_t *x,
                                __m256i *lanes, uint32_t vectors, int first) {
    activations a = load_activations(x), b = load_activations(x + TR_PANEL);
    for (uint32_t k = 0; k < vectors; ++k, w += 2 * PANEL_BYTES, next += 2 * PANEL_BYTES) {
        parts p = row_parts(load(w), a), q = row_parts(load(next), b);
        p.once = _mm256_add_epi16(p.once, q.once);
        p.times_4 = _mm256_add_epi16(p.times_4, q.times_4);
        lanes[k] = first ? joined(p) : _mm256_add_epi16(lanes[k], joined(p));
    }
}

/* The same for one panel, full or narrow. */
AVX2 static void add_panel(const uint8_t *w, const int8_t *x, __m256i *lanes, uint32_t vectors,
                           uint32_t pitch, int first) {
    activations a = load_narrow_activations(x, pitch);
    for (uint32_t k = 0; k < vectors; ++k, w += 2 * pitch) {
        __m256i sums = joined(row_parts(load_rows(w, pitch), a));
        lanes[k] = first ? sums : _mm256_add_epi16(lanes[k], sums);
    }
}

/* Sums of the lanes of eight rows, in the order of the rows. */
AVX2 static inline __m256i row_totals(const __m256i *lanes) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i a =
        _mm256_hadd_epi32(_mm256_madd_epi16(lanes[0], ones), _mm256_madd_epi16(lanes[1], ones));
    __m256i b =
        _mm256_hadd_epi32(_mm256_madd_epi16(lanes[2], ones), _mm256_madd_epi16(lanes[3], ones));
    return _mm256_permutevar8x32_epi32(_mm256_hadd_epi32(a, b),
                                       _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* acc[rows] -= the sums of the lanes */
AVX2 static void flush(const __m256i *lanes, tr_i32 *acc, uint32_t rows) {
    for (; rows >= ROW_GROUP; rows -= ROW_GROUP, acc += ROW_GROUP, lanes += GROUP_VECTORS)
        _mm256_storeu_si256((__m256i *)(void *)acc, _mm256_sub_epi32(load(acc), row_totals(lanes)));
    int32_t rest[ROW_GROUP];
    if (rows) _mm256_storeu_si256((__m256i *)(void *)rest, row_totals(lanes));
    for (uint32_t r = 0; r < rows; ++r) acc[r] -= rest[r];
}

/* Sums of rows first .. first + rows of a matrix of rows8 x cols16. */
AVX2 static void forward_block(const uint8_t *w, const int8_t *x, tr_i32 *acc, uint32_t first,
                               uint32_t rows, uint32_t rows8, uint32_t cols16) {
    __m256i lanes[ROW_BLOCK / 2];
    uint32_t vectors = (uint32_t)tr_round_up(rows, ROW_GROUP) / 2, held = 0;
    for (uint32_t c = 0; c < cols16;) {
        uint32_t left = cols16 - c, width = left < TR_PANEL ? left : TR_PANEL, panels = 1;
        const uint8_t *panel = w + rows8 * (c / 4) + first * (width / 4);
        if (left >= 2 * TR_PANEL) {
            const uint8_t *next = panel + rows8 * PANEL_BYTES;
            add_two_panels(panel, next, x + c, lanes, vectors, held == 0);
            panels = 2;
        } else {
            add_panel(panel, x + c, lanes, vectors, width / 4, held == 0);
        }
        c += panels * width;
        held += panels;
        if (held == PANELS_PER_FLUSH || c == cols16) {
            flush(lanes, acc, rows);
            held = 0;
        }
    }
}

AVX2 static int32_t total_of(const int8_t *x, uint32_t cols16) {
    __m256i sum = _mm256_setzero_si256();
    for (uint32_t c = 0; c < cols16; c += 16) {
        __m128i part = _mm_loadu_si128((const __m128i *)(const void *)(x + c));
        sum = _mm256_add_epi32(sum,
                               _mm256_madd_epi16(_mm256_cvtepi8_epi16(part), _mm256_set1_epi16(1)));
    }
    int32_t parts_of_sum[8], total = 0;
    _mm256_storeu_si256((__m256i *)(void *)parts_of_sum, sum);
    for (unsigned k = 0; k < 8; ++k) total += parts_of_sum[k];
    return total;
}

/* acc = sum of (1 - c) x = sum of x - sum of c x */
AVX2 static void forward_avx2(const uint8_t *w, const int8_t *x, tr_i32 *acc, uint32_t rows,
                              uint32_t cols) {
    uint32_t cols16 = (uint32_t)tr_round_up(cols, 16), rows8 = (uint32_t)tr_round_up(rows, 8);
    int32_t total = total_of(x, cols16);
    for (uint32_t r = 0; r < rows; ++r) acc[r] = total;
    for (uint32_t r = 0; r < rows; r += ROW_BLOCK) {
        uint32_t count = rows - r < ROW_BLOCK ? rows - r : ROW_BLOCK;
        forward_block(w, x, acc + r, r, count, rows8, cols16);
    }
}

/* ---- transposed ----
 * 16-bit lanes hold c of row r and of row r + 1 of a column, and are multiplied with the pair of
 * errors: exact in int32, which may wrap on the way. */

/* The bytes of rows r and r + 1, interleaved and widened: bytes 0-7 and 8-15 of the rows. */
typedef struct {
    __m256i front, back;
} row_pair;

AVX2 static inline row_pair load_pair(const uint8_t *w, uint32_t pitch) {
    __m256i rows = load_rows(w, pitch);
    __m128i even = _mm256_castsi256_si128(rows), odd = _mm256_extracti128_si256(rows, 1);
    row_pair pair = {_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(even, odd)),
                     _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(even, odd))};
    return pair;
}

AVX2 static inline __m256i add_field(__m256i sums, __m256i codes, int field, __m256i errors) {
    __m256i c = _mm256_and_si256(_mm256_srli_epi16(codes, 2 * field), _mm256_set1_epi16(3));
    return _mm256_add_epi32(sums, _mm256_madd_epi16(c, errors));
}

AVX2 static void store_field(tr_i32 *acc, __m256i front, __m256i back, int32_t total,
                             uint32_t pitch) {
    const __m256i all = _mm256_set1_epi32(total);
    int32_t columns[PANEL_BYTES];
    __m256i *dst = (__m256i *)(void *)columns;
    _mm256_storeu_si256(dst, _mm256_sub_epi32(all, front));
    _mm256_storeu_si256(dst + 1, _mm256_sub_epi32(all, back));
    memcpy(acc, columns, 4 * pitch);
}

AVX2 static void transposed_avx2(const uint8_t *panel, const tr_i16 *e, tr_i32 *acc, uint32_t rows8,
                                 uint32_t pitch) {
    __m256i zero = _mm256_setzero_si256();
    __m256i f0 = zero, f1 = zero, f2 = zero, f3 = zero, b0 = zero, b1 = zero, b2 = zero, b3 = zero;
    int32_t total = 0;
    for (uint32_t r = 0; r < rows8; r += 2, panel += 2 * pitch) {
        row_pair codes = load_pair(panel, pitch);
        uint32_t two = (uint16_t)e[r] | (uint32_t)(uint16_t)e[r + 1] << 16;
        __m256i errors = _mm256_set1_epi32((int32_t)two);
        total += e[r] + e[r + 1];
        f0 = add_field(f0, codes.front, 0, errors);
        f1 = add_field(f1, codes.front, 1, errors);
        f2 = add_field(f2, codes.front, 2, errors);
        f3 = add_field(f3, codes.front, 3, errors);
        b0 = add_field(b0, codes.back, 0, errors);
        b1 = add_field(b1, codes.back, 1, errors);
        b2 = add_field(b2, codes.back, 2, errors);
        b3 = add_field(b3, codes.back, 3, errors);
    }
    store_field(acc, f0, b0, total, pitch);
    store_field(acc + pitch, f1, b1, total, pitch);
    store_field(acc + 2 * pitch, f2, b2, total, pitch);
    store_field(acc + 3 * pitch, f3, b3, total, pitch);
}

/* ---- quantising ---- */

AVX2 static float largest_avx2(const float *x, uint32_t n, float floor) {
    const __m256i size = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i top = _mm256_set1_epi32((int32_t)tr_bits(floor)); /* sizes compare as integers */
    int32_t lanes[8];
    uint32_t k = 0, most = 0;
    for (; k + 8 <= n; k += 8) top = _mm256_max_epi32(top, _mm256_and_si256(load(x + k), size));
    _mm256_storeu_si256((__m256i *)(void *)lanes, top);
    for (unsigned lane = 0; lane < 8; ++lane)
        if ((uint32_t)lanes[lane] > most) most = (uint32_t)lanes[lane];
    for (; k < n; ++k)
        if ((tr_bits(x[k]) & 0x7FFFFFFFu) > most) most = tr_bits(x[k]) & 0x7FFFFFFFu;
    return tr_from_bits(most);
}

/* tr_round_even of eight products; the low bytes are what counts. */
AVX2 static inline __m256i round_8(const float *x, __m256 factor) {
    __m256 sum = _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(x), factor), _mm256_set1_ps(12582912));
    return _mm256_castps_si256(sum);
}

AVX2 static void quantize8_avx2(int8_t *q, const float *x, uint32_t n, float factor) {
    const __m256 factors = _mm256_set1_ps(factor);
    const __m256i byte = _mm256_set1_epi32(0xFF),
                  in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    uint32_t k = 0;
    for (; k + 32 <= n; k += 32) {
        __m256i a = _mm256_and_si256(round_8(x + k, factors), byte);
        __m256i b = _mm256_and_si256(round_8(x + k + 8, factors), byte);
        __m256i c = _mm256_and_si256(round_8(x + k + 16, factors), byte);
        __m256i d = _mm256_and_si256(round_8(x + k + 24, factors), byte);
        __m256i packed = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
        packed = _mm256_permutevar8x32_epi32(packed, in_order);
        _mm256_storeu_si256((__m256i *)(void *)(q + k), packed);
    }
    for (; k < n; ++k) q[k] = (int8_t)tr_round_even(x[k] * factor);
}

AVX2 static void quantize16_avx2(tr_i16 *q, const float *x, uint32_t n, float factor) {
    const __m256 factors = _mm256_set1_ps(factor);
    const __m256i half = _mm256_set1_epi32(0xFFFF);
    uint32_t k = 0;
    for (; k + 16 <= n; k += 16) {
        __m256i a = _mm256_and_si256(round_8(x + k, factors), half);
        __m256i b = _mm256_and_si256(round_8(x + k + 8, factors), half);
        __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xD8);
        _mm256_storeu_si256((__m256i *)(void *)(q + k), packed);
    }
    for (; k < n; ++k) q[k] = (int16_t)tr_round_even(x[k] * factor);
}

/* ---- choice ---- */

static int has_avx2(void) {
    return __builtin_cpu_supports("avx2");
}

void tr_kernel_forward(const uint8_t *w, const int8_t *x, tr_i32 *acc, uint32_t rows, uint32_t cols,
                       void *scratch) {
    if (has_avx2())
        forward_avx2(w, x, acc, rows, cols);
    else
        tr_kernel_forward_portable(w, x, acc, rows, cols, scratch);
}

void tr_kernel_transposed(const uint8_t *panel, const tr_i16 *e, tr_i32 *acc, uint32_t rows8,
                          uint32_t pitch, void *scratch) {
    if (has_avx2())
        transposed_avx2(panel, e, acc, rows8, pitch);
    else
        tr_kernel_transposed_portable(panel, e, acc, rows8, pitch, scratch);
}

float tr_kernel_largest(const float *x, uint32_t n, float floor) {
    return has_avx2() ? largest_avx2(x, n, floor) : tr_kernel_largest_portable(x, n, floor);
}

void tr_kernel_quantize8(int8_t *q, const float *x, uint32_t n, float factor) {
    if (has_avx2())
        quantize8_avx2(q, x, n, factor);
    else
        tr_kernel_quantize8_portable(q, x, n, factor);
}

void tr_kernel_quantize16(tr_i16 *q, const float *x, uint32_t n, float factor) {
    if (has_avx2())
        quantize16_avx2(q, x, n, factor);
    else
        tr_kernel_quantize16_portable(q, x, n, factor);
}

#endif
