/* tr_exp.h - the exponential function in integers, for loops that want it without a call. Everyone
 * else takes tr_exp of tr_math.h. */
#ifndef TR_EXP_H
#define TR_EXP_H

#include "tr_internal.h"

extern const uint32_t tr_exp_powers[32]; /* 2^(k / 32) in units of 2^-30 */

/* trunc(x * 2^24) for |x| < 128 */
static inline int32_t tr_fixed24(float x) {
#if defined(TR_SOFT_FLOAT)
    uint32_t bits = tr_bits(x), e = bits >> 23 & 0xFF, m = (bits & 0x007FFFFFu) | 0x00800000u;
    uint32_t size = e >= 126 ? m << (e - 126) : e > 102 ? m >> (126 - e) : 0;
    return bits >> 31 ? -(int32_t)size : (int32_t)size;
#else
    return (int32_t)(x * 16777216.0f);
#endif
}

/* [a * b / 2^32], a and b at most 2^31 */
static inline uint32_t tr_high_product(uint32_t a, uint32_t b) {
#if defined(TR_SOFT_FLOAT)
    uint32_t a1 = a >> 16, a0 = a & 0xFFFF, b1 = b >> 16, b0 = b & 0xFFFF;
    return a1 * b1 + ((a1 * b0 + (a0 * b0 >> 16) + a0 * b1) >> 16);
#else
    return (uint32_t)((uint64_t)a * b >> 32);
#endif
}

/* Bits of (float)y / 2^30, 2^30 <= y < 2^32, rounded half to even. */
static inline uint32_t tr_float30(uint32_t y) {
#if defined(TR_SOFT_FLOAT)
    uint32_t two = y >> 31, drop = 7 + two; /* bits behind the last that a float has */
    return ((126u + two) << 23) + ((y + (63u << two) + two + (y >> drop & 1)) >> drop);
#else
    return tr_bits((float)y) - (30u << 23);
#endif
}

/* e^x = 2^(n / 32) * e^r, r from 0 to 5 % more than ln 2 / 32; r and e^r - 1 in units of 2^-32, the
 * powers of two of 2^-30. */
static inline float tr_exp_inline(float x) {
    uint32_t size = tr_bits(x) & 0x7FFFFFFFu;
    if (size >= 0x42AEAC50u) { /* 87.33654 */
        if (size > 0x7F800000u) return x;
        if (tr_bits(x) >> 31) return 0.0f;
        if (size >= 0x42B17218u) return tr_from_bits(0x7F800000u); /* 88.72284 */
    }
    int32_t fixed = tr_fixed24(x);
    int32_t n = (tr_mul_shift16(fixed, 23637) - 4096) >> 17; /* 32 / ln 2 = 23637.12 / 512 */
    uint32_t r = ((uint32_t)fixed << 8) - (uint32_t)n * 93032639 - (uint32_t)(n * 48782 >> 16);
    uint32_t a = r >> 11, square = a * a >> 16;               /* 2^-21, 2^-26 */
    uint32_t rest = square * (32768 + (a * 341 >> 16)) >> 10; /* r^2 / 2 + r^3 / 6 */
    uint32_t y = tr_exp_powers[n & 31];
    y += tr_high_product(y, r + rest);
    return tr_from_bits(tr_float30(y) + ((uint32_t)(n & ~31) << 18));
}

#endif
