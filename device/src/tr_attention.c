/* tr_attention.c - softmax attention of one row over the rows of a block, heads sharing KV heads
 * (Ainslie et al. 2023, arXiv 2305.13245), forward and backward. Probabilities are recomputed in
 * the backward pass, nothing is kept. */
#include "tr_math.h"
#include "tr_weights.h"

/* One head: where its query lies in a row of n0 * n2, its key and value in a row of n1 * n2. */
typedef struct {
    uint32_t seen;  /* rows that this row sees */
    uint32_t pitch; /* n1 * n2, floats from one K or V row to the next */
    uint32_t width; /* n2 */
    float scale;    /* 1 / sqrt(n2) */
} attention;

static TR_SMALL attention attention_of(const tr_call *call) {
    attention at;
    at.seen = call->i->flags & TR_FLAG_CAUSAL ? call->t + 1 : call->rows;
    at.width = call->i->n2;
    at.pitch = call->i->n1 * at.width;
    at.scale = 1.0f / tr_sqrt((float)at.width);
    return at;
}

/* p[seen] = softmax(scale * K q) */
static TR_NOINLINE TR_SMALL void probabilities(const attention *at, const float *q, const float *k,
                                               float *p) {
    float top = 0.0f, sum = 0.0f;
    for (uint32_t j = 0; j < at->seen; ++j) {
        p[j] = tr_dot(q, k + j * at->pitch, at->width) * at->scale;
        if (j == 0 || p[j] > top) top = p[j];
    }
    for (uint32_t j = 0; j < at->seen; ++j) sum += p[j] = tr_exp(p[j] - top);
    float inverse = 1.0f / sum;
    for (uint32_t j = 0; j < at->seen; ++j) p[j] *= inverse;
}

/* y[width] = sum over the seen rows j, first to last, of p[j] * rows[j] */
static TR_NOINLINE void weighted_sum(const attention *at, const float *p, const float *rows,
                                     float *y) {
    const uint32_t width = at->width;
    memset(y, 0, width * sizeof *y);
    for (const float *end = p + at->seen; p < end; ++p, rows += at->pitch) {
        TR_UNROLL
        for (uint32_t k = 0; k < width; ++k) y[k] += *p * rows[k];
    }
}

/* dst[n0 * n2] = softmax(q K^T / sqrt(n2)) V, q = a[n0 * n2], K = b and V = c [T, n1 * n2],
 * scratch d[T] */
void tr_attention(const tr_call *call) {
    attention at = attention_of(call);
    uint32_t group = call->i->n0 / call->i->n1;
    float *p = call->d;
    for (uint32_t h = 0; h < call->i->n0; ++h) {
        uint32_t own = h * at.width, kv = h / group * at.width;
        probabilities(&at, (const float *)call->a + own, (const float *)call->b + kv, p);
        weighted_sum(&at, p, (const float *)call->c + kv, (float *)call->dst + own);
    }
}

/* With dy = d[n0 * n2]: dst = dq; e = dK += and f = dV += [T, n1 * n2]; imm: scratch [2T] for p
 * and ds. dV_j = p_j dy; dp_j = dy . V_j; ds_j = p_j (dp_j - sum p dp) / sqrt(n2); dq = sum ds_j
 * K_j; dK_j = ds_j q. */
void tr_attention_bwd(const tr_call *call) {
    attention at = attention_of(call);
    uint32_t group = call->i->n0 / call->i->n1;
    float *p = (float *)(void *)call->session->arena + call->i->imm, *ds = p + call->rows;
    for (uint32_t h = 0; h < call->i->n0; ++h) {
        uint32_t own = h * at.width, kv = h / group * at.width;
        const float *q = (const float *)call->a + own, *dy = (const float *)call->d + own;
        const float *k = (const float *)call->b + kv, *v = (const float *)call->c + kv;
        float *dk = (float *)call->e + kv, *dv = (float *)call->f + kv, mean = 0.0f;
        probabilities(&at, q, k, p);
        for (uint32_t j = 0; j < at.seen; ++j) {
            ds[j] = tr_dot(dy, v + j * at.pitch, at.width);
            mean += p[j] * ds[j];
        }
        for (uint32_t j = 0; j < at.seen; ++j, dk += at.pitch, dv += at.pitch) {
            ds[j] = p[j] * (ds[j] - mean) * at.scale;
            for (uint32_t n = 0; n < at.width; ++n) {
                dk[n] += ds[j] * q[n];
                dv[n] += p[j] * dy[n];
            }
        }
        weighted_sum(&at, ds, k, (float *)call->dst + own);
    }
}
