/* tr_math.c - exp, log, tanh, sin, cos and an integer square root. Polynomials are minimax fits
 * over the reduced range (relative error below 4e-9 before rounding); reductions are after Cody and
 * Waite: constants in parts so short that their products with the quotient are exact. */
#include "tr_internal.h"
#include "tr_exp.h"
#include "tr_math.h"

/* Adding 1.5 * 2^23 leaves round-half-even(x) in the low bits, for |x| < 2^22. */
static const float ROUNDER = 12582912.0f;

const uint32_t tr_exp_powers[32] = {
    0x40000000, 0x4166C34C, 0x42D561B4, 0x444C0740, 0x45CAE0F2, 0x47521CC6, 0x48E1E9BA, 0x4A7A77D4,
    0x4C1BF829, 0x4DC69CDD, 0x4F7A9930, 0x51382182, 0x52FF6B55, 0x54D0AD5A, 0x56AC1F75, 0x5891FAC1,
    0x5A82799A, 0x5C7DD7A4, 0x5E8451D0, 0x60962665, 0x62B39509, 0x64DCDEC3, 0x6712460B, 0x69540EC9,
    0x6BA27E65, 0x6DFDDBCC, 0x70666F76, 0x72DC8374, 0x75606374, 0x77F25CCE, 0x7A92BE8B, 0x7D41D96E,
};

float tr_exp(float x) {
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
