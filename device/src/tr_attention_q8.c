/* tr_attention_q8.c - ATTENTION_Q8: attention over int8 keys and values, in integers but for a few
 * float operations a row: "Integer attention" in FORMAT.md section 5, whose names are used here. */
#include "kernels/tr_kernels.h"
#include "tr_dots.h"
#include "tr_math.h"

enum { MIN_EXPONENT = 79, STEPS = 16 << 16 }; /* p is 0 from 16 powers of two below the top on */

/* A block q8[T, n]: its rows and the bytes from one to the next; a row's scale lies behind its
 * values. */
typedef struct {
    const int8_t *rows;
    uint32_t pitch;
} block;

/* What all heads of a row share. */
typedef struct {
    uint32_t seen;
    tr_u16 *k;       /* [seen] factors of the scores */
    tr_i16 *g;       /* [seen] factors of the weights */
    uint32_t left;   /* x = difference of scores << left >> right, */
    uint32_t right;  /* where the difference is */
    uint32_t limit;  /* below this one, else p = 0 */
    float out_scale; /* of the result, but for the sum of p */
} scales;

static float scale_at(const block *of, uint32_t j) {
    float s;
    memcpy(&s, of->rows + (j + 1) * of->pitch - 16, sizeof s);
    return s;
}

static float largest_scale(const block *of, uint32_t seen) {
    uint32_t top = 0;
    for (uint32_t j = 0; j < seen; ++j) {
        uint32_t size = tr_bits(scale_at(of, j)) & 0x7FFFFFFFu;
        if (size > top) top = size;
    }
    return tr_from_bits(top);
}

/* unit: u, powers of two of a product of query and key integers with key scale 1 */
static void set_scales(scales *s, const block *keys, const block *values, float unit) {
    float top = largest_scale(keys, s->seen) * unit, largest = largest_scale(values, s->seen);
    uint32_t e = tr_bits(top) >> 23 & 0xFF;
    s->out_scale = e == 255 ? top - top : largest * 0.00787425604f; /* 32768 / (32767 * 127) */
    if (e < MIN_EXPONENT) e = MIN_EXPONENT;
    s->left = e <= 110 ? 0 : e < 130 ? e - 110 : 20;
    s->right = e < 110 ? 110 - e : 0;
    s->limit = s->right > 11 ? UINT32_MAX : (uint32_t)STEPS << s->right >> s->left;
    float factor = unit * tr_from_bits((268 - e) << 23), inverse = 32767.0f / largest;
    for (uint32_t j = 0; j < s->seen; ++j) {
        s->k[j] = (uint16_t)tr_round_even(scale_at(keys, j) * factor);
        s->g[j] = (int16_t)tr_round_even(scale_at(values, j) * inverse);
    }
}

/* 2^(-x / 65536) in units of 1 / 32767, x < STEPS; within 1.1 units */
static inline uint32_t power(uint32_t x) {
    static const uint16_t table[32] = {
        65534, 64130, 62756, 61411, 60095, 58807, 57547, 56314, 55107, 53926, 52771,
        51640, 50534, 49451, 48391, 47354, 46340, 45347, 44375, 43424, 42494, 41583,
        40692, 39820, 38967, 38132, 37315, 36515, 35733, 34967, 34218, 33485,
    };
    uint32_t y = (x & 2047) * 45426 >> 16; /* ln 2, in 65536ths */
    uint32_t fraction = table[x >> 11 & 31] * (65536 - y + (y * y >> 17)) >> 16;
    return ((fraction >> (x >> 16)) + 1) >> 1;
}

/* [acc * k / 2^15] without a product of more than 32 bits; k <= 2^15 */
static inline int32_t scaled(int32_t acc, uint32_t k) {
    return (int32_t)((uint32_t)(acc >> 16) * k * 2 + (((uint32_t)acc & 0xFFFF) * k >> 15));
}

/* Scores z to weights w, in their place; returns the sum of p. */
static uint32_t softmax(const scales *s, tr_i32 *z) {
    tr_i16 *w = (tr_i16 *)(void *)z;
    int32_t top = INT32_MIN;
    uint32_t sum = 0;
    for (uint32_t j = 0; j < s->seen; ++j) {
        int32_t score = scaled(z[j], s->k[j]);
        z[j] = score;
        if (score > top) top = score;
    }
    for (uint32_t j = 0; j < s->seen; ++j) {
        uint32_t below = (uint32_t)top - (uint32_t)z[j], p = 0;
        if (below < s->limit) p = power(below << s->left >> s->right);
        sum += p;
        w[j] = (int16_t)(((int32_t)p * s->g[j] + 16384) >> 15);
    }
    return sum;
}

void tr_attention_q8(const tr_call *call) {
    const tr_instr *i = call->i;
    uint32_t width = i->n2, group = i->n0 / i->n1;
    uint32_t pitch = (uint32_t)tr_round_up(i->n1 * width, 64) + 16;
    const tr_i16 *q = call->a;
    block keys = {call->b, pitch}, values = {call->c, pitch};
    tr_u16 *scratch = call->d;
    tr_i32 *z = (tr_i32 *)(void *)(scratch + 2 * call->rows), *acc = call->dst;
    float *dst = call->dst, q_scale;
    scales s = {.seen = i->flags & TR_FLAG_CAUSAL ? call->t + 1 : call->rows};
    s.k = scratch;
    s.g = (tr_i16 *)(void *)(scratch + call->rows);
    memcpy(&q_scale, q + tr_round_up(i->n0 * width, 8), sizeof q_scale);
    /* log2(e) / (32767 * 127) */
    set_scales(&s, &keys, &values, q_scale * (3.46684270e-7f / tr_sqrt((float)width)));
    for (uint32_t h = 0; h < i->n0; ++h, q += width, acc += width, dst += width) {
        uint32_t column = h / group * width;
        tr_dots_i8(z, keys.rows + column, pitch, s.seen, q, width);
        float scale = s.out_scale / (float)softmax(&s, z);
        tr_mix_i8(acc, values.rows + column, pitch, s.seen, (tr_i16 *)(void *)z, width);
        for (uint32_t k = 0; k < width; ++k) dst[k] = (float)acc[k] * scale;
    }
}
