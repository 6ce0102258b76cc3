/* tr_math.c - exp, log, tanh, sin, cos and an integer square root. Polynomials are minimax fits
 * over the reduced range (relative error below 4e-9 before rounding); reductions are after Cody and
 * Waite: constants in parts so short that their products with the quotient are exact. */
#include "tr_internal.h"
#include "tr_math.h"

/* Adding 1.5 * 2^23 leaves round-half-even(x) in the low bits, for |x| < 2^22. */
static const float ROUNDER = 12582912.0f;

/* trunc(x * 2^24) for |x| < 128 */
static inline int32_t fixed24(float x) {
#if defined(TR_SOFT_FLOAT)
    uint32_t bits = tr_bits(x), e = bits >> 23 & 0xFF, m = (bits & 0x007FFFFFu) | 0x00800000u;
    uint32_t size = e >= 126 ? m << (e - 126) : e > 102 ? m >> (126 - e) : 0;
    return bits >> 31 ? -(int32_t)size : (int32_t)size;
#else
    return (int32_t)(x * 16777216.0f);
#endif
}

/* [a * b / 2^32] */
static inline uint32_t high_product(uint32_t a, uint32_t b) {
#if defined(TR_SOFT_FLOAT)
    uint32_t a1 = a >> 16, a0 = a & 0xFFFF, b1 = b >> 16, b0 = b & 0xFFFF;
    uint32_t middle = a1 * b0 + (a0 * b0 >> 16), other = a0 * b1; /* b < 2^27: no sum wraps */
    return a1 * b1 + ((middle + other) >> 16);
#else
    return (uint32_t)((uint64_t)a * b >> 32);
#endif
}

/* e^x = 2^(n / 32) * e^r: n from the upper half of x; r and e^r - 1 in units of 2^-32, the powers
 * of two of 2^-30. */
float tr_exp(float x) {
    static const uint32_t power[32] = {
        0x40000000, 0x4166C34C, 0x42D561B4, 0x444C0740, 0x45CAE0F2, 0x47521CC6, 0x48E1E9BA,
        0x4A7A77D4, 0x4C1BF829, 0x4DC69CDD, 0x4F7A9930, 0x51382182, 0x52FF6B55, 0x54D0AD5A,
        0x56AC1F75, 0x5891FAC1, 0x5A82799A, 0x5C7DD7A4, 0x5E8451D0, 0x60962665, 0x62B39509,
        0x64DCDEC3, 0x6712460B, 0x69540EC9, 0x6BA27E65, 0x6DFDDBCC, 0x70666F76, 0x72DC8374,
        0x75606374, 0x77F25CCE, 0x7A92BE8B, 0x7D41D96E,
    };
    uint32_t size = tr_bits(x) & 0x7FFFFFFFu;
    if (size >= 0x42AEAC50u) { /* 87.33654 */
        if (size > 0x7F800000u) return x;
        if (tr_bits(x) >> 31) return 0.0f;
        if (size >= 0x42B17218u) return tr_from_bits(0x7F800000u); /* 88.72284 */
    }
    int32_t fixed = fixed24(x), high = fixed >> 16;
    int32_t n = (high * 47274 + (high >> 2) - 512) >> 18; /* 32 / ln 2 = 46.16624 */
    uint32_t r = ((uint32_t)fixed << 8) - (uint32_t)n * 93032639 - (uint32_t)(n * 48782 >> 16);
    if (r >= 93032639) { /* n was rounded down once more */
        r -= 93032639;
        ++n;
    }
    uint32_t a = r >> 11, square = a * a >> 16;               /* 2^-21, 2^-26 */
    uint32_t rest = square * (32768 + (a * 341 >> 16)) >> 10; /* r^2 / 2 + r^3 / 6 */
    uint32_t y = power[n & 31];
    y += high_product(y, r + rest);
    return tr_from_bits(((uint32_t)(n >> 5) << 23) + (126u << 23) + ((y + 64) >> 7));
}

float tr_log(float x) {
    uint32_t u = tr_bits(x);
    if (u - 0x00800000u >= 0x7F000000u) return tr_from_bits(0x7FC00000u);
    /* x = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); log(1 + f) = 2 artanh(f / (2 + f)) */
    uint32_t biased = u - 0x3F3504F3u;
    int32_t k = (int32_t)(biased >> 23) - (biased >> 31 ? 512 : 0);
    float f = tr_from_bits(u - ((uint32_t)k << 23)) - 1.0f;
    float s = f / (2.0f + f), z = s * s;
    float series = z * (0.666666667f + z * (0.4f + z * (0.285714286f + z * 0.222222222f)));
    return (float)k * 0.693145752f + ((float)k * 1.42860677e-6f + (s * series + 2.0f * s));
}

float tr_tanh(float x) {
    float size = tr_from_bits(tr_bits(x) & 0x7FFFFFFFu);
    if (size < 0.625f) {
        float z = x * x;
        float q = -0.00571704516f;
        q = q * z + 0.0206505880f;
        q = q * z - 0.0537434965f;
        q = q * z + 0.133314908f;
        q = q * z - 0.333332837f;
        return q * z * x + x;
    }
    float y = 1.0f - 2.0f / (tr_exp(2.0f * size) + 1.0f);
    return x < 0.0f ? -y : y;
}

void tr_sincos(float x, float *sin, float *cos) {
    if (!(x >= -65536.0f && x <= 65536.0f)) x = 0.0f;
    float rounded = x * 0.636619772f + ROUNDER; /* quarter turns */
    float k = rounded - ROUNDER;
    uint32_t quarter = tr_bits(rounded) & 3;
    /* pi / 2 = 8 + 8 + 8 + 24 bits, k < 2^16 */
    float r = x - k * 1.5703125f - k * 4.82559204e-4f - k * 1.2665987e-6f - k * 9.92093518e-10f;
    float z = r * r;
    float s = ((-0.000195172353f * z + 0.00833217800f) * z - 0.166666552f) * z * r + r;
    float c = ((2.43920622e-5f * z - 0.00138869369f) * z + 0.0416666381f) * z * z - 0.5f * z + 1.0f;
    float sine = quarter & 1 ? c : s, cosine = quarter & 1 ? s : c;
    *sin = quarter & 2 ? -sine : sine;
    *cos = (quarter + 1) & 2 ? -cosine : cosine;
}

float tr_sqrt_portable(float x) {
    uint32_t u = tr_bits(x);
    if (u << 1 == 0 || u >= 0x7F800000u) { /* +-0, +inf, NaN, negative */
        if (u << 1 == 0 || u == 0x7F800000u) return x;
        return tr_from_bits(0x7FC00000u);
    }
    int32_t exponent = (int32_t)(u >> 23);
    uint32_t m = u & 0x007FFFFFu;
    if (exponent) {
        m |= 0x00800000u;
    } else {
        for (exponent = 1; !(m & 0x00800000u); --exponent) m <<= 1;
    }
    exponent -= 127;
    m <<= 1 + (exponent & 1); /* m / 2^24 in [1, 4) now, the exponent even */
    exponent >>= 1;
    /* 25 bits of root, digit by digit; the remainder decides nothing: a square root of a float is
     * never halfway */
    uint32_t root = 0, rest = 0;
    for (unsigned digit = 0; digit < 25; ++digit) {
        uint32_t pair = digit < 13 ? m >> (24 - 2 * digit) & 3 : 0;
        uint32_t trial = root << 2 | 1;
        rest = rest << 2 | pair;
        root <<= 1;
        if (rest >= trial) {
            rest -= trial;
            root |= 1;
        }
    }
    root = (root + 1) >> 1;
    return tr_from_bits(((uint32_t)(exponent + 126) << 23) + root);
}
