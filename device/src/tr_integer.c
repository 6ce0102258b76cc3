/* tr_integer.c - rows between two ternary layers in integers: "Integer rows" in FORMAT.md section
 * 5, whose names are used here. A row of floats is touched once, by the norm. */
#include "kernels/tr_rows.h"
#include "tr_math.h"
#include "tr_weights.h"

enum { FULL = 127 << 16 }; /* 127 in 65536ths */

static float scale_behind(const void *integers, uint32_t bytes) {
    float s;
    memcpy(&s, (const uint8_t *)integers + bytes, sizeof s);
    return s;
}

static float q16_scale(const tr_i16 *q, uint32_t n) {
    return scale_behind(q, 2 * (uint32_t)tr_round_up(n, 8));
}

static void close_q16(tr_i16 *q, uint32_t n, float s) {
    tr_close_row(q, 2 * n, 16, s);
}

static void close_q8(int8_t *q, uint32_t n, float s) {
    tr_close_row(q, n, 64, s);
}

/* q[n] = 127 / m of v[n], m the largest of them; returns F. */
static TR_NOINLINE uint32_t narrow(int8_t *q, const tr_i16 *v, uint32_t n) {
    uint32_t factor = FULL / tr_rows_largest(v, n);
    tr_rows_narrow(q, v, n, (int32_t)factor);
    return factor;
}

/* dst q16[n1] = b [n1, n0] . a(q8[n0]), scratch d and e[n1] */
void tr_ternary16(const tr_call *call) {
    uint32_t in = call->i->n0, out = call->i->n1, h = 0;
    const tr_tensor *tensor = call->b;
    const int8_t *a = call->a;
    tr_i16 *q = call->dst;
    tr_ternary_sums(call, call->e);
    while (127 * in >= 32768u << h) ++h;
    tr_rows_shorten(q, call->e, out, h);
    float scale = tensor->gamma * scale_behind(a, (uint32_t)tr_round_up(in, 64)) / 127.0f;
    close_q16(q, out, scale * (float)(32767u << h));
}

/* dst q16[n0] = a q16[n0], each pair of a head of n1 turned by t * b[pair] */
void tr_rope16(const tr_call *call) {
    uint32_t width = call->i->n0, head = call->i->n1, pairs = head / 2;
    uint32_t next = call->i->flags & TR_FLAG_INTERLEAVED ? 2 : 1, apart = next == 2 ? 1 : pairs;
    const float *frequency = tr_weights_of(call, call->b).data;
    const tr_i16 *a = call->a;
    tr_i16 *dst = call->dst;
    float s = q16_scale(a, width), t = (float)call->t;
    for (uint32_t p = 0; p < pairs; ++p, a += next, dst += next) {
        float sin, cos;
        tr_sincos(t * frequency[p], &sin, &cos);
        const int32_t c = (int32_t)tr_round_even(cos * 32767.0f);
        const int32_t d = (int32_t)tr_round_even(sin * 32767.0f);
        for (uint32_t h = 0; h < width; h += head) tr_rows_turn(dst + h, a + h, apart, c, d);
    }
    close_q16(call->dst, width, s * 2.00006104f); /* 65536 / 32767 */
}

/* dst q8[n0] of a q16[n0] */
void tr_narrow(const tr_call *call) {
    uint32_t n = call->i->n0, factor = narrow(call->dst, call->a, n);
    close_q8(call->dst, n, q16_scale(call->a, n) * (254.007751f / (float)factor));
}

/* ---- SWIGLU_Q8 ---- */

/* The logistic function at k / 16, in 32768ths. */
static const uint16_t logistic[177] = {
    16384, 16896, 17407, 17916, 18421, 18923, 19420, 19912, 20397, 20874, 21344, 21804, 22255,
    22696, 23127, 23547, 23955, 24352, 24737, 25110, 25471, 25819, 26155, 26479, 26790, 27090,
    27377, 27653, 27917, 28169, 28411, 28642, 28862, 29072, 29272, 29462, 29644, 29816, 29979,
    30135, 30282, 30422, 30555, 30680, 30799, 30912, 31018, 31119, 31214, 31304, 31389, 31469,
    31545, 31616, 31684, 31747, 31807, 31864, 31917, 31968, 32015, 32060, 32102, 32141, 32179,
    32214, 32247, 32278, 32307, 32335, 32361, 32385, 32408, 32430, 32450, 32469, 32487, 32504,
    32520, 32535, 32549, 32562, 32574, 32586, 32597, 32607, 32617, 32626, 32635, 32643, 32650,
    32657, 32664, 32670, 32676, 32682, 32687, 32692, 32696, 32701, 32705, 32709, 32712, 32716,
    32719, 32722, 32725, 32727, 32730, 32732, 32734, 32736, 32738, 32740, 32742, 32743, 32745,
    32746, 32747, 32749, 32750, 32751, 32752, 32753, 32754, 32755, 32756, 32756, 32757, 32758,
    32758, 32759, 32759, 32760, 32760, 32761, 32761, 32762, 32762, 32762, 32763, 32763, 32763,
    32764, 32764, 32764, 32764, 32765, 32765, 32765, 32765, 32765, 32766, 32766, 32766, 32766,
    32766, 32766, 32766, 32766, 32767, 32767, 32767, 32767, 32767, 32767, 32767, 32767, 32767,
    32767, 32767, 32767, 32767, 32767, 32767, 32767, 32767,
};

enum { LAST = (176 << 10) - 1 }; /* the last two points of the table are the same */

/* g * logistic(g) of an integer g, abs g * m >> shift being 16384ths */
static inline int32_t silu16(int32_t g, uint32_t m, uint32_t shift) {
    const int32_t sign = g >> 31;
    uint32_t size = (uint32_t)((g ^ sign) - sign), x = size * m >> shift;
    if (x > LAST) x = LAST;
    uint32_t two = tr_two_points(&logistic[x >> 10]);
    uint32_t first = two & 0xFFFF, y = first + (((two >> 16) - first) * (x & 1023) >> 10);
    /* of a negative g: [(g (32768 - y) + 16384) / 32768] = g + [(-g y + 16384) / 32768] */
    return (int32_t)((size * y + 16384) >> 15) + (g & sign);
}

/* p[n] = silu(gate) * up, gate as in silu16; returns the largest of them. */
static TR_FAST uint32_t gated(tr_i32 *p, const tr_i16 *gate, const tr_i16 *up, uint32_t n,
                              uint32_t m, uint32_t shift) {
    uint32_t top = 0;
    const tr_i32 *end = p + n;
    do {
        int32_t product = silu16(*gate++, m, shift) * *up++;
        uint32_t size = (uint32_t)(product < 0 ? -product : product);
        *p++ = product;
        if (size > top) top = size;
    } while (p < end);
    return top;
}

/* dst q8[n0] = silu(a) * b, a and b q16[n0], scratch d[n0] */
void tr_swiglu_q8(const tr_call *call) {
    uint32_t n = call->i->n0, h = 0;
    const tr_i16 *gate = call->a, *up = call->b;
    int8_t *q = call->dst;
    tr_i32 *p = call->d;
    float gate_scale = q16_scale(gate, n), up_scale = q16_scale(up, n);
    float unit = gate_scale * 0.500015259f; /* 16384 / 32767 */
    uint32_t e = tr_bits(unit) >> 23 & 0xFF;
    if (e < 14) e = 14;
    if (e > 141) e = 141;
    const uint32_t m = tr_round_even(unit * tr_from_bits((268 - e) << 23)) & 0xFFFF;
    const uint32_t shift = 141 - e < 31 ? 141 - e : 31;
    uint32_t top = gated(p, gate, up, n, m, shift);
    while (top >> h >= 32768) ++h;
    const int32_t factor = (int32_t)(FULL / ((top >> h) + 1));
    tr_rows_narrow32(q, p, n, h, factor);
    float scale = (gate_scale / 32767.0f) * (up_scale / 32767.0f);
    close_q8(q, n, scale * ((float)FULL * tr_from_bits((127 + h) << 23) / (float)factor));
}

/* ---- NORM_Q8 ---- */

static float sum_of_squares(const tr_i16 *v, uint32_t n) {
    uint64_t sum = tr_rows_squares(v, n);
    return (float)(uint32_t)(sum >> 16) * 65536.0f + (float)(uint32_t)(sum & 0xFFFF);
}

/* dst q8[n0] = a / sqrt(mean(a^2) + imm) * b, scratch d[n0] */
void tr_norm_q8(const tr_call *call) {
    uint32_t n = call->i->n0;
    const float *a = call->a;
    tr_i16 *v = call->d;
    tr_weights gain = tr_weights_of(call, call->b);
    const tr_i16 *b = gain.data;
    float largest = tr_kernel_largest(a, n, 1e-30f), u = largest / 32767.0f;
    tr_kernel_quantize16(v, a, n, 32767.0f / largest);
    v[n] = 0;
    float r = 1.0f / tr_sqrt(sum_of_squares(v, n) * (u * u) / (float)n + tr_imm(call));
    if (b) {
        tr_rows_gain(v, b, n);
        r = r * (gain.scale[0] * 32768.0f);
    }
    uint32_t factor = narrow(call->dst, v, n);
    close_q8(call->dst, n, u * r * ((float)FULL / (float)factor));
}
