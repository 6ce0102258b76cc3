/* tr_attention_q8.c - ATTENTION_Q8: attention over int8 keys and values, in integers but for a few
 * float operations a row: "Integer attention" in FORMAT.md section 5, whose names are used here. */
#include "kernels/tr_dots.h"
#include "tr_math.h"

enum { MIN_EXPONENT = 78, STEPS = 16 << 16 }; /* p is 0 from 16 powers of two below the top on */

/* What all heads of a row share. */
typedef struct {
    uint32_t seen;
    uint32_t pitch;  /* bytes from a row of K or V to the next; its scale lies behind its values */
    tr_i16 *k;       /* [seen] factors of the scores */
    tr_i16 *g;       /* [seen] factors of the weights */
    uint32_t left;   /* x = difference of scores << left >> right, */
    uint32_t right;  /* where the difference is */
    uint32_t limit;  /* below this one, else p = 0 */
    float out_scale; /* of the result, but for the sum of p */
} scales;

/* The largest size of the scales of rows. */
static TR_NOINLINE float largest_scale(const scales *s, const int8_t *rows) {
    uint32_t top = 0, left = s->seen;
    do {
        rows += s->pitch;
        uint32_t twice = *(const tr_u32 *)(const void *)(rows - 16) << 1; /* without its sign */
        if (twice > top) top = twice;
    } while (--left);
    return tr_from_bits(top >> 1);
}

/* to[seen] = scales of rows times `by`, in 32767ths */
static TR_FAST void shorten_scales(const scales *s, const int8_t *rows, tr_i16 *to, float by) {
    const uint32_t pitch = s->pitch;
    for (uint32_t left = s->seen; left; --left) {
        rows += pitch;
        uint32_t q = tr_round_even(*(const float *)(const void *)(rows - 16) * by) & 0xFFFF;
        *to++ = (int16_t)(q - (q >> 15)); /* at most 32767 */
    }
}

/* unit: u, powers of two of a product of query and key integers with key scale 1 */
static TR_NOINLINE void set_scales(scales *s, const int8_t *keys, const int8_t *values,
                                   float unit) {
    float top = largest_scale(s, keys) * unit, largest = largest_scale(s, values);
    uint32_t e = tr_bits(top) >> 23 & 0xFF;
    s->out_scale = e == 255 ? top - top : largest * 0.00787425604f; /* 32768 / (32767 * 127) */
    if (e < MIN_EXPONENT) e = MIN_EXPONENT;
    s->left = e <= 109 ? 0 : e < 129 ? e - 109 : 20;
    s->right = e < 109 ? 109 - e : 0;
    s->limit = s->right > 11 ? UINT32_MAX : (uint32_t)STEPS << s->right >> s->left;
    shorten_scales(s, keys, s->k, unit * tr_from_bits((268 - e) << 23));
    shorten_scales(s, values, s->g, 32767.0f / largest);
}

/* 2^(-x / 65536) in units of 1 / 32767, x < STEPS; within 1.7 units. Straight lines between the
 * points of a table. */
static inline uint32_t power(uint32_t x) {
    static const uint16_t table[65] = {
        65534, 64828, 64130, 63439, 62756, 62080, 61411, 60749, 60095, 59448, 58807, 58174, 57547,
        56927, 56314, 55707, 55107, 54514, 53926, 53346, 52771, 52202, 51640, 51084, 50534, 49989,
        49451, 48918, 48391, 47870, 47354, 46844, 46340, 45840, 45347, 44858, 44375, 43897, 43424,
        42956, 42494, 42036, 41583, 41135, 40692, 40254, 39820, 39391, 38967, 38547, 38132, 37721,
        37315, 36913, 36515, 36122, 35733, 35348, 34967, 34590, 34218, 33849, 33485, 33124, 32767,
    };
    uint32_t at = x >> 10 & 63, two = tr_two_points(&table[at]), first = two & 0xFFFF;
    uint32_t fraction = first - ((first - (two >> 16)) * (x & 1023) >> 10);
    return ((fraction >> (x >> 16)) + 1) >> 1;
}

/* Products z of one head to scores, in their place; returns the largest. */
static TR_FAST int32_t scores(const tr_i16 *k, uint32_t seen, tr_i32 *z) {
    int32_t top = INT32_MIN;
    for (uint32_t j = 0; j < seen; ++j) {
        int32_t score = tr_mul_shift16(z[j], k[j]);
        z[j] = score;
        if (score > top) top = score;
    }
    return top;
}

/* Scores z of one of `heads` heads (1 or 2) to weights, in the order that tr_mix_i8 takes them;
 * returns the sum of p. w may be the memory of the first head's z. */
static TR_FAST uint32_t weights(const scales *s, int32_t top, const tr_i32 *z, tr_i16 *w,
                                uint32_t heads) {
    const uint32_t seen = s->seen, limit = s->limit, left = s->left, right = s->right;
    const tr_i16 *g = s->g;
    uint32_t sum = 0, next = 1, other = 2 * heads - 1; /* from one of a pair to the next of w */
    for (const tr_i32 *end = z + seen; z < end; ++z) {
        uint32_t below = (uint32_t)top - (uint32_t)*z, p = 0;
        if (below < limit) p = power(below << left >> right);
        sum += p;
        *w = (int16_t)((uint32_t)((int32_t)p * *g++ + 16384) >> 15);
        w += next;
        next ^= other ^ 1;
    }
    if (seen % 2) *w = 0;
    return sum;
}

void tr_attention_q8(const tr_call *call) {
    const tr_instr *i = call->i;
    uint32_t width = i->n2, group = i->n0 / i->n1, heads = group % 2 ? 1 : 2;
    uint32_t pitch = (uint32_t)tr_round_up(i->n1 * width, 64) + 16;
    const tr_i16 *q = call->a;
    const int8_t *keys = call->b, *values = call->c;
    tr_i16 *scratch = call->d;
    tr_i32 *z = (tr_i32 *)(void *)(scratch + 2 * call->rows), *acc = call->dst;
    tr_i16 *w = (tr_i16 *)(void *)z;
    float *dst = call->dst, q_scale;
    scales s;
    s.seen = i->flags & TR_FLAG_CAUSAL ? call->t + 1 : call->rows;
    s.pitch = pitch;
    s.k = scratch;
    s.g = scratch + call->rows;
    memcpy(&q_scale, q + tr_round_up(i->n0 * width, 8), sizeof q_scale);
    /* log2(e) / (32767 * 127) */
    set_scales(&s, keys, values, q_scale * (3.46684270e-7f / tr_sqrt((float)width)));
    for (uint32_t h = 0; h < i->n0; h += heads, q += heads * width, acc += heads * width) {
        uint32_t column = h / group * width, sums[2];
        tr_dots_i8(z, call->rows, keys + column, pitch, s.seen, q, width, heads);
        for (uint32_t n = 0; n < heads; ++n) {
            tr_i32 *own = z + n * call->rows;
            sums[n] = weights(&s, scores(s.k, s.seen, own), own, w + 2 * n, heads);
        }
        tr_mix_i8(acc, values + column, pitch, s.seen, w, width, heads);
        for (uint32_t n = 0; n < heads; ++n, dst += width)
            tr_kernel_scale(dst, (tr_i32 *)(void *)dst, width, s.out_scale / (float)sums[n]);
    }
}
