/* tr_math.c - exp, log, tanh, sin, cos and an integer square root. exp, sin and cos work in
 * integers: cheap on a core without floating point, and hardly dearer on one with it. */
#include "tr_internal.h"
#include "tr_exp.h"
#include "tr_math.h"

const uint32_t tr_exp_powers[32] = {
    0x40000000, 0x4166C34C, 0x42D561B4, 0x444C0740, 0x45CAE0F2, 0x47521CC6, 0x48E1E9BA, 0x4A7A77D4,
    0x4C1BF829, 0x4DC69CDD, 0x4F7A9930, 0x51382182, 0x52FF6B55, 0x54D0AD5A, 0x56AC1F75, 0x5891FAC1,
    0x5A82799A, 0x5C7DD7A4, 0x5E8451D0, 0x60962665, 0x62B39509, 0x64DCDEC3, 0x6712460B, 0x69540EC9,
    0x6BA27E65, 0x6DFDDBCC, 0x70666F76, 0x72DC8374, 0x75606374, 0x77F25CCE, 0x7A92BE8B, 0x7D41D96E,
};

TR_SMALL TR_NOINLINE float tr_exp(float x) {
    return tr_exp_inline(x);
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

TR_SMALL float tr_tanh(float x) {
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

/* v / 2^30 */
static float float30(int32_t v) {
#if defined(TR_SOFT_FLOAT)
    uint32_t size = v < 0 ? 0u - (uint32_t)v : (uint32_t)v, bits;
    if (size >= 1u << 30) {
        bits = 0x3F800000u;
    } else {
        uint32_t e = 126;
        if (!size) return 0.0f;
        for (; !(size & 1u << 29); --e) size <<= 1;
        bits = (e << 23) - (1u << 23) + ((size + 31 + (size >> 6 & 1)) >> 6);
    }
    return tr_from_bits(bits | ((uint32_t)v & 0x80000000u));
#else
    return (float)v * 9.31322575e-10f;
#endif
}

/* x = (k + f) quarter turns, |f| <= 1/2, by 2 / pi to 64 bits; u = |f| in units of 2^-32, the sine
 * and cosine of f by minimax polynomials of u^2 in units of 2^-30. */
TR_SMALL void tr_sincos(float x, float *sin, float *cos) {
    uint32_t bits = tr_bits(x), e = bits >> 23 & 0xFF, m = (bits & 0x007FFFFFu) | 0x00800000u;
    uint64_t product = (uint64_t)m * 0xA2F9836Eu + ((uint64_t)m * 0x4E441529u >> 32);
    if (e < 89 || (bits & 0x7FFFFFFFu) > 0x47800000u) product = 0; /* tiny; above 65536 */
    uint32_t turns =
        (uint32_t)(product >> ((152 - e) & 63)) + (1u << 29); /* 2^-32 turns, and half */
    int32_t f = (int32_t)(turns & 0x3FFFFFFFu) - (1 << 29);
    uint32_t u = (f < 0 ? 0u - (uint32_t)f : (uint32_t)f) << 2, t = tr_high_product(u, u);
    uint32_t s = 0x051968F5u - tr_high_product(t, 0x004B3D75u);
    s = 0x6487ED3Au - tr_high_product(t, 0x295774EFu - tr_high_product(t, s));
    uint32_t c = 0x103B162Cu - tr_high_product(t, 0x014EA9E7u);
    c = (1u << 30) - tr_high_product(t, 0x4EF4E83Fu - tr_high_product(t, c));
    int32_t sine = (int32_t)tr_high_product(u, s), cosine = (int32_t)c;
    if (f < 0) sine = -sine;
    if (turns >> 30 & 1) { /* a quarter turn on */
        int32_t other = cosine;
        cosine = -sine;
        sine = other;
    }
    if (turns >> 31) {
        sine = -sine;
        cosine = -cosine;
    }
    *sin = float30(bits >> 31 ? -sine : sine);
    *cos = float30(cosine);
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
