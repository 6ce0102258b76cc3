/* tr_rows.h - loops over rows of integers (FORMAT.md section 5, "Integer rows"): in plain C, and
 * for cores with the DSP extension two lanes at a time, then with the 0 that lies behind a row of
 * an odd number of int16. A row has one element at least. Only tr_integer.c includes it. */
#ifndef TR_ROWS_H
#define TR_ROWS_H

#include "tr_kernels.h"

#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__)
#include <arm_acle.h>
#define TR_ROWS_DSP 1
#endif

#if defined(TR_ROWS_DSP)

static inline uint32_t tr_pair(int32_t low, int32_t high) {
    uint32_t pair;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(pair) : "r"(low), "r"(high));
    return pair;
}

static inline const tr_u32 *tr_pairs(const tr_i16 *v) {
    return (const tr_u32 *)(const void *)v;
}

/* Both lanes of *high and *low take in those of x. */
static inline void tr_take_in(int16x2_t x, int16x2_t *high, int16x2_t *low) {
    (void)__ssub16(x, *high); /* sets the lanes' GE flags, which SEL reads */
    *high = (int16x2_t)__sel((uint8x4_t)x, (uint8x4_t)*high);
    (void)__ssub16(*low, x);
    *low = (int16x2_t)__sel((uint8x4_t)x, (uint8x4_t)*low);
}

#endif

/* The largest |v[k]|, at least 1; v 4-byte aligned. */
static inline uint32_t tr_rows_largest(const tr_i16 *v, uint32_t n) {
    int32_t high = 1, low = -1;
#if defined(TR_ROWS_DSP)
    int16x2_t highs = 0x00010001, lows = (int16x2_t)0xFFFFFFFF;
    const tr_u32 *pair = tr_pairs(v), *end = pair + (n + 1) / 2;
    do tr_take_in((int16x2_t)*pair++, &highs, &lows);
    while (pair < end);
    high = (int16_t)highs > highs >> 16 ? (int16_t)highs : highs >> 16;
    low = (int16_t)lows < lows >> 16 ? (int16_t)lows : lows >> 16;
#else
    for (; n; --n, ++v) {
        if (*v > high) high = *v;
        if (*v < low) low = *v;
    }
#endif
    return (uint32_t)(high > -low ? high : -low);
}

/* q[k] = (v[k] * factor + 32768) >> 16, at most 127 in size; v 4-byte aligned. May write one
 * element more, which a q8 row of an odd number has. */
static inline void tr_rows_narrow(int8_t *q, const tr_i16 *v, uint32_t n, int32_t factor) {
#if defined(TR_ROWS_DSP)
    /* [([v * 2 factor / 2^16] + 1) / 2] */
    const tr_u32 *pair = tr_pairs(v), *end = pair + (n + 1) / 2;
    do {
        int32_t both = (int32_t)*pair++;
        *q++ = (int8_t)(__smlawb(2 * factor, both, 1) >> 1);
        *q++ = (int8_t)(__smlawt(2 * factor, both, 1) >> 1);
    } while (pair < end);
#else
    for (; n; --n) *q++ = (int8_t)((*v++ * factor + 32768) >> 16);
#endif
}

/* q[k] = ((p[k] >> shift) * factor + 32768) >> 16, at most 127 in size. */
static inline void tr_rows_narrow32(int8_t *q, const tr_i32 *p, uint32_t n, uint32_t shift,
                                    int32_t factor) {
    const tr_i32 *end = p + n;
    do *q++ = (int8_t)(((*p++ >> shift) * factor + 32768) >> 16);
    while (p < end);
}

/* q[k] = (sums[k] + [2^shift / 2]) >> shift; q 4-byte aligned, and may be where sums are. */
static inline void tr_rows_shorten(tr_i16 *q, const tr_i32 *sums, uint32_t n, uint32_t shift) {
    const int32_t half = (1 << shift) >> 1;
#if defined(TR_ROWS_DSP)
    for (; n >= 4 && !shift; n -= 4) {
        uint32_t a, b, c, d;
        __asm__ volatile("ldrd %0, %1, [%5], #8\n\t"
                         "ldrd %2, %3, [%5], #8\n\t"
                         "pkhbt %0, %0, %1, lsl #16\n\t"
                         "pkhbt %2, %2, %3, lsl #16\n\t"
                         "strd %0, %2, [%4], #8"
                         : "=&r"(a), "=&r"(b), "=&r"(c), "=&r"(d), "+r"(q), "+r"(sums)
                         :
                         : "memory");
    }
#endif
    for (; n; --n) *q++ = (int16_t)((*sums++ + half) >> shift);
}

/* v[k] = (v[k] * b[k] + 16384) >> 15; both 4-byte aligned. */
static inline void tr_rows_gain(tr_i16 *v, const tr_i16 *b, uint32_t n) {
#if defined(TR_ROWS_DSP)
    tr_u32 *pair = (tr_u32 *)(void *)v, *end = pair + (n + 1) / 2;
    const tr_u32 *gains = tr_pairs(b);
    do {
        int32_t x = (int32_t)*pair, y = (int32_t)*gains++;
        *pair++ = tr_pair(__smlabb(x, y, 16384) >> 15, __smlatt(x, y, 16384) >> 15);
    } while (pair < end);
#else
    for (; n; --n, ++v, ++b) *v = (int16_t)((*v * *b + 16384) >> 15);
#endif
}

/* The pair to[0], to[apart] = from[0], from[apart] turned by an angle with cosine c, sine s. */
static inline void tr_rows_turn(tr_i16 *to, const tr_i16 *from, uint32_t apart, int32_t c,
                                int32_t s) {
    int32_t x = from[0], y = from[apart];
#if defined(TR_ROWS_DSP)
    int16x2_t both = (int16x2_t)tr_pair(x, y), turn = (int16x2_t)tr_pair(c, s);
    to[0] = (int16_t)(__smlsd(both, turn, 32768) >> 16);
    to[apart] = (int16_t)(__smladx(both, turn, 32768) >> 16);
#else
    to[0] = (int16_t)((x * c - y * s + 32768) >> 16);
    to[apart] = (int16_t)((x * s + y * c + 32768) >> 16);
#endif
}

/* Sum of squares; v 4-byte aligned. */
static inline uint64_t tr_rows_squares(const tr_i16 *v, uint32_t n) {
    int64_t sum = 0;
#if defined(TR_ROWS_DSP)
    const tr_u32 *pair = tr_pairs(v), *end = pair + (n + 1) / 2;
    do sum = __smlald((int16x2_t)*pair, (int16x2_t)*pair, sum);
    while (++pair < end);
#else
    for (; n; --n, ++v) sum += (uint32_t)(*v * *v);
#endif
    return (uint64_t)sum;
}

#endif
