/* tr_rows.h - loops over rows of integers (FORMAT.md section 5, "Integer rows"): in plain C, and
 * for cores with the DSP extension two lanes at a time. Only tr_integer.c includes it. */
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

/* Bytes 0 and 2 of `even`, 0 and 2 of `odd` between them. */
static inline uint32_t tr_bytes(uint32_t even, uint32_t odd) {
    return (uint32_t)__uxtb16((int8x4_t)even) | (uint32_t)__uxtb16((int8x4_t)odd) << 8;
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
    for (; n >= 4; n -= 4, v += 4) {
        tr_take_in((int16x2_t)tr_pairs(v)[0], &highs, &lows);
        tr_take_in((int16x2_t)tr_pairs(v)[1], &highs, &lows);
    }
    high = (int16_t)highs > highs >> 16 ? (int16_t)highs : highs >> 16;
    low = (int16_t)lows < lows >> 16 ? (int16_t)lows : lows >> 16;
#endif
    for (; n; --n, ++v) {
        if (*v > high) high = *v;
        if (*v < low) low = *v;
    }
    return (uint32_t)(high > -low ? high : -low);
}

/* q[k] = (v[k] * factor + 32768) >> 16, at most 127 in size; q and v 4-byte aligned. */
static inline void tr_rows_narrow(int8_t *q, const tr_i16 *v, uint32_t n, int32_t factor) {
#if defined(TR_ROWS_DSP)
    /* [(2 x + 1) / 2] of [v * 2 factor / 2^16] = 2 x + a rest: halved in both lanes at once */
    const int32_t twice = 2 * factor;
    for (; n >= 4; n -= 4, v += 4, q += 4) {
        int32_t x = (int32_t)tr_pairs(v)[0], y = (int32_t)tr_pairs(v)[1];
        uint32_t even = tr_pair(__smlawb(twice, x, 0), __smlawb(twice, y, 0));
        uint32_t odd = tr_pair(__smlawt(twice, x, 0), __smlawt(twice, y, 0));
        even = (uint32_t)__shadd16((int16x2_t)even, 0x00010001);
        odd = (uint32_t)__shadd16((int16x2_t)odd, 0x00010001);
        *(tr_u32 *)(void *)q = tr_bytes(even, odd);
    }
#endif
    for (; n; --n) *q++ = (int8_t)((*v++ * factor + 32768) >> 16);
}

/* q[k] = ((p[k] >> shift) * factor + 32768) >> 16, at most 127 in size; q 4-byte aligned. */
static inline void tr_rows_narrow32(int8_t *q, const tr_i32 *p, uint32_t n, uint32_t shift,
                                    int32_t factor) {
#if defined(TR_ROWS_DSP)
    for (; n >= 4; n -= 4, p += 4, q += 4) {
        uint32_t a = (uint32_t)((p[0] >> shift) * factor + 32768);
        uint32_t b = (uint32_t)((p[1] >> shift) * factor + 32768);
        uint32_t c = (uint32_t)((p[2] >> shift) * factor + 32768);
        uint32_t d = (uint32_t)((p[3] >> shift) * factor + 32768);
        *(tr_u32 *)(void *)q = tr_bytes(a >> 16 | (c & 0xFFFF0000), b >> 16 | (d & 0xFFFF0000));
    }
#endif
    for (; n; --n) *q++ = (int8_t)(((*p++ >> shift) * factor + 32768) >> 16);
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
    for (; n >= 2; n -= 2, v += 2, b += 2) {
        int32_t x = (int32_t)*tr_pairs(v), y = (int32_t)*tr_pairs(b);
        *(tr_u32 *)(void *)v = tr_pair(__smlabb(x, y, 16384) >> 15, __smlatt(x, y, 16384) >> 15);
    }
#endif
    for (; n; --n, ++v, ++b) *v = (int16_t)((*v * *b + 16384) >> 15);
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
    for (; n >= 4; n -= 4, v += 4) {
        int16x2_t x = (int16x2_t)tr_pairs(v)[0], y = (int16x2_t)tr_pairs(v)[1];
        sum = __smlald(y, y, __smlald(x, x, sum));
    }
#endif
    for (; n; --n, ++v) sum += (uint32_t)(*v * *v);
    return (uint64_t)sum;
}

#endif
