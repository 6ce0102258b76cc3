/* tr_sample.c - choosing a token from logits: greedy, temperature, top-k, top-p. Probabilities are
 * integer weights, so that sums are exact and the choice is the same on every board. */
#include "tr_internal.h"
#include "tr_math.h"

enum { ONE = 1 << 21 }; /* weight of the largest logit; 1024 of them stay below 2^32 */

#define BITS_OF_1 0x3F800000u /* floats from 0 to 1 have no more, all others and NaN have */

/* weights[k] = e^((logits[k] - top) / temperature), 0 where it is not a number */
TR_SMALL static void weigh(const float *logits, uint32_t outputs, float top, float temperature,
                           uint32_t *weights) {
    for (uint32_t k = 0; k < outputs; ++k) {
        float p = tr_exp((logits[k] - top) / temperature);
        weights[k] = tr_bits(p) <= BITS_OF_1 ? (uint32_t)(p * (float)ONE) : 0;
    }
}

/* How many weights are at least `bound`, and their sum. */
TR_SMALL TR_NOINLINE static uint32_t at_least(const uint32_t *weights, uint32_t outputs,
                                              uint32_t bound, uint32_t *sum) {
    uint32_t count = 0;
    *sum = 0;
    for (uint32_t k = 0; k < outputs; ++k) {
        if (weights[k] < bound) continue;
        ++count;
        *sum += weights[k];
    }
    return count;
}

/* Keeps the largest weights, of equals those with the lower index: the fewest that are `count` or
 * whose sum is `sum` or more. The others become 0. */
TR_SMALL static void keep(uint32_t *weights, uint32_t outputs, uint32_t count, uint32_t sum) {
    uint32_t low = 1, high = ONE, above; /* the smallest weight that is kept is in low .. high */
    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;
        if (at_least(weights, outputs, middle, &above) >= count || above >= sum)
            low = middle;
        else
            high = middle - 1;
    }
    uint32_t kept = at_least(weights, outputs, low + 1, &above);
    for (uint32_t k = 0; k < outputs; ++k) {
        if (weights[k] > low) continue;
        if (weights[k] < low || kept >= count || above >= sum) {
            weights[k] = 0;
            continue;
        }
        ++kept;
        above += low;
    }
}

TR_SMALL uint32_t tr_sample(tr_sampler *sampler, const float *logits, uint32_t outputs,
                            uint32_t *weights) {
    uint32_t best = tr_classify(logits, outputs, NULL), total;
    uint64_t draw = tr_splitmix64(&sampler->state) >> 32;
    if (!(sampler->temperature > 0.0f) || outputs < 2) return best;
    weigh(logits, outputs, logits[best], sampler->temperature, weights);
    if (sampler->top_k > 0 && sampler->top_k < outputs)
        keep(weights, outputs, sampler->top_k, UINT32_MAX);
    at_least(weights, outputs, 1, &total);
    if (tr_bits(sampler->top_p) - 1 < BITS_OF_1 - 1) { /* between 0 and 1 */
        uint32_t sum = (uint32_t)(sampler->top_p * (float)total);
        keep(weights, outputs, outputs, sum ? sum : 1);
        at_least(weights, outputs, 1, &total);
    }
    uint32_t left = (uint32_t)(draw * total >> 32), token = 0;
    for (; token + 1 < outputs && left >= weights[token]; ++token) left -= weights[token];
    return total ? token : best;
}
