/* ops_attention.c - rotary position embedding and grouped-query attention. */
#include "internal.h"
#include "kernels.h"

/* ---- RoPE (arXiv 2104.09864) ---- */

/* Cosines and sines [rows, 2, head_dim/2] of the angles (offset + t) * base^(-2i/head_dim), kept in
 * the context for the next layer and the next step, which ask for the same. */
static const te_float *te_rope_angles(te_ctx *ctx, int64_t head_dim, int64_t rows, double base,
                                      int64_t offset) {
    const int64_t half = head_dim / 2;
    if (ctx->rope_table && ctx->rope_head_dim == head_dim && ctx->rope_rows >= rows &&
        ctx->rope_base == base && ctx->rope_offset == offset)
        return ctx->rope_table;
    te_float *table = te_alloc_floats(ctx, rows * head_dim);
    if (!table) return NULL;
    for (int64_t t = 0; t < rows; t++) {
        for (int64_t i = 0; i < half; i++) {
            double frequency = pow(base, -2.0 * (double)i / (double)head_dim);
            double angle = (double)(offset + t) * frequency;
            table[t * head_dim + i] = (te_float)cos(angle);
            table[t * head_dim + half + i] = (te_float)sin(angle);
        }
    }
    te_free(ctx, ctx->rope_table);
    ctx->rope_table = table;
    ctx->rope_head_dim = head_dim;
    ctx->rope_rows = rows;
    ctx->rope_base = base;
    ctx->rope_offset = offset;
    return table;
}

/* Turns every pair of x [batch, time, heads * head_dim] by its angle, or back (direction -1). */
static void te_rope_apply(te_ctx *ctx, const te_tensor *x, const te_node *node,
                          const te_float *angles, te_float direction, const te_float *from,
                          te_float *to, int accumulate) {
    const int64_t head_dim = node->ints[0], half = head_dim / 2, heads = te_width(x) / head_dim;
    const int64_t time = x->shape[x->ndim - 2], rows = te_rows(x);
    for (int64_t r = 0; r < rows; r++) {
        const te_float *c = angles + r % time * head_dim, *s = c + half;
        for (int64_t h = 0; h < heads; h++, from += head_dim, to += head_dim) {
            if (node->ints[1] == TE_ROPE_SPLIT_HALF) {
                ctx->kernels->rotate(half, direction, c, s, from, from + half, to, to + half,
                                     accumulate);
                continue;
            }
            for (int64_t i = 0; i < half; i++) {
                te_float u = from[2 * i], v = from[2 * i + 1], sine = direction * s[i];
                te_float a = u * c[i] - v * sine, b = u * sine + v * c[i];
                to[2 * i] = accumulate ? to[2 * i] + a : a;
                to[2 * i + 1] = accumulate ? to[2 * i + 1] + b : b;
            }
        }
    }
}

te_tensor *te_rope(te_ctx *ctx, te_tensor *x, int64_t head_dim, int pairing, double base,
                   int64_t offset) {
    char text[TE_SHAPE_CHARS];
    if (!te_check_float(ctx, "rope", "x", x) || !te_check_dims(ctx, "rope", "x", x, 2)) return NULL;
    if (head_dim < 2 || head_dim % 2 || te_width(x) % head_dim)
        return te_fail(ctx, TE_ERR_SHAPE,
                       "rope: head_dim %lld must be even and divide the width of x %s",
                       (long long)head_dim, te_shape_text(x, text));
    if (!(base > 0) || offset < 0 ||
        (pairing != TE_ROPE_SPLIT_HALF && pairing != TE_ROPE_INTERLEAVED))
        return te_fail(ctx, TE_ERR_VALUE,
                       "rope: base %g must be positive, offset %lld at least 0, pairing %d 0 or 1",
                       base, (long long)offset, pairing);
    te_node node = {.op = TE_OP_ROPE,
                    .n_in = 1,
                    .in = {x},
                    .n_int = 3,
                    .ints = {head_dim, pairing, offset},
                    .n_float = 1,
                    .floats = {base}};
    const te_float *angles = te_rope_angles(ctx, head_dim, x->shape[x->ndim - 2], base, offset);
    te_tensor *y = angles ? te_tensor_like(ctx, x) : NULL;
    if (!y) return NULL;
    te_rope_apply(ctx, x, &node, angles, 1, te_values(x), te_values(y), 0);
    return te_record(ctx, &node, y);
}

static int te_rope_backward(te_ctx *ctx, te_node *node) {
    te_tensor *x = node->in[0];
    int accumulate = 0;
    const te_float *angles =
        te_rope_angles(ctx, node->ints[0], x->shape[x->ndim - 2], node->floats[0], node->ints[2]);
    te_float *dx = angles ? te_grad_buffer(x, &accumulate) : NULL;
    if (!dx) return 0;
    te_rope_apply(ctx, x, node, angles, -1, node->out->grad, dx, accumulate);
    return 1;
}

/* ---- Attention (arXiv 1706.03762, grouped queries 2305.13245) ---- */

/* Queries are taken in blocks of this many rows, so that a causal mask saves work. */
enum { TE_QUERY_BLOCK = 32 };

typedef struct {
    int64_t batch, time, key_time, heads, kv_heads, head_dim, group;
    int64_t q_row, kv_row; /* widths of q and of k, v */
    int64_t padded;        /* key_time rounded up for the transposed copies */
    int causal;
    te_float scale;
} te_attention_dims;

/* Number of keys that query t sees. */
static int64_t te_keys_seen(const te_attention_dims *d, int64_t t) {
    return d->causal ? t + 1 + d->key_time - d->time : d->key_time;
}

static int te_attention_check(te_ctx *ctx, te_tensor *q, te_tensor *k, te_tensor *v, int64_t heads,
                              int64_t kv_heads, int causal, te_attention_dims *d) {
    if (!te_check_float(ctx, "attention", "q", q) || !te_check_float(ctx, "attention", "k", k) ||
        !te_check_float(ctx, "attention", "v", v) || !te_check_dims(ctx, "attention", "q", q, 2) ||
        !te_check_dims(ctx, "attention", "k", k, 2))
        return 0;
    if (heads < 1 || kv_heads < 1 || heads % kv_heads || te_width(q) % heads || te_width(q) == 0) {
        char text[TE_SHAPE_CHARS];
        te_fail(ctx, TE_ERR_SHAPE,
                "attention: heads %lld must divide the width of q %s, kv_heads %lld must divide "
                "heads",
                (long long)heads, te_shape_text(q, text), (long long)kv_heads);
        return 0;
    }
    if (!te_same_shape(k, v)) {
        te_fail_shapes(ctx, "attention", "k", k, "v", v, "needs equal shapes");
        return 0;
    }
    const int64_t head_dim = te_width(q) / heads;
    const int64_t time = q->shape[q->ndim - 2], key_time = k->shape[k->ndim - 2];
    if (k->ndim != q->ndim || te_width(k) != kv_heads * head_dim ||
        memcmp(q->shape, k->shape, (size_t)(q->ndim - 2) * sizeof q->shape[0]) || key_time < 1 ||
        (causal && key_time < time)) {
        te_fail_shapes(ctx, "attention", "q", q, "k", k,
                       "needs [..., time, heads * head_dim] and [..., key_time, kv_heads * "
                       "head_dim], and key_time >= time when causal");
        return 0;
    }
    *d = (te_attention_dims){.time = time,
                             .key_time = key_time,
                             .heads = heads,
                             .kv_heads = kv_heads,
                             .head_dim = head_dim,
                             .group = heads / kv_heads,
                             .q_row = te_width(q),
                             .kv_row = te_width(k),
                             .padded = (key_time + 15) / 16 * 16,
                             .causal = causal != 0,
                             .scale = (te_float)(1.0 / sqrt((double)head_dim))};
    d->batch = time ? q->numel / (time * d->q_row) : 0;
    return 1;
}

/* c [m, n] (+)= a [m, k] b [k, n], with strides for the rows of each and the columns of a */
static void te_multiply(te_ctx *ctx, int64_t m, int64_t n, int64_t k, const te_float *a,
                        int64_t a_row, int64_t a_col, const te_float *b, int64_t b_row, te_float *c,
                        int64_t c_row, int accumulate) {
    te_gemm g = {.m = m,
                 .n = n,
                 .k = k,
                 .a = a,
                 .a_row = a_row,
                 .a_col = a_col,
                 .b = b,
                 .b_row = b_row,
                 .b_col = 1,
                 .c = c,
                 .c_row = c_row,
                 .accumulate = accumulate};
    te_product(ctx, &g);
}

/* Floats that the probabilities of one head take: a block of queries has as many columns as its
 * last query sees keys, and the blocks follow each other. */
static int64_t te_head_floats(const te_attention_dims *d) {
    int64_t floats = 0;
    for (int64_t t0 = 0; t0 < d->time; t0 += TE_QUERY_BLOCK) {
        const int64_t rows = d->time - t0 < TE_QUERY_BLOCK ? d->time - t0 : TE_QUERY_BLOCK;
        floats += rows * te_keys_seen(d, t0 + rows - 1);
    }
    return floats;
}

/* One head: probabilities p and output o (rows of stride q_row) from q, the transposed keys
 * k_t [head_dim, padded] and v. */
static void te_attention_head(te_ctx *ctx, const te_attention_dims *d, const te_float *q,
                              const te_float *k_t, const te_float *v, te_float *p, te_float *o) {
    for (int64_t t0 = 0; t0 < d->time; t0 += TE_QUERY_BLOCK) {
        const int64_t rows = d->time - t0 < TE_QUERY_BLOCK ? d->time - t0 : TE_QUERY_BLOCK;
        const int64_t keys = te_keys_seen(d, t0 + rows - 1);
        te_multiply(ctx, rows, keys, d->head_dim, q + t0 * d->q_row, d->q_row, 1, k_t, d->padded, p,
                    keys, 0);
        for (int64_t r = 0; r < rows; r++) {
            const int64_t seen = te_keys_seen(d, t0 + r);
            te_float *row = p + r * keys, largest;
            te_float total = ctx->kernels->exp_row(seen, d->scale, row, row, &largest);
            ctx->kernels->scale(seen, (te_float)1 / total, row, row);
            te_clear_floats(row + seen, keys - seen);
        }
        te_multiply(ctx, rows, d->head_dim, keys, p, keys, 1, v, d->kv_row, o + t0 * d->q_row,
                    d->q_row, 0);
        p += rows * keys;
    }
}

te_tensor *te_attention(te_ctx *ctx, te_tensor *q, te_tensor *k, te_tensor *v, int64_t heads,
                        int64_t kv_heads, int causal) {
    te_attention_dims d;
    if (!te_attention_check(ctx, q, k, v, heads, kv_heads, causal, &d)) return NULL;
    const int keep = te_needs_grad(ctx, q) || te_needs_grad(ctx, k) || te_needs_grad(ctx, v);
    const int64_t head_floats = te_head_floats(&d);
    te_tensor *o = te_tensor_like(ctx, q);
    te_float *p = te_alloc_floats(ctx, keep ? d.batch * heads * head_floats : head_floats);
    te_float *k_t = te_alloc_floats(ctx, d.head_dim * d.padded);
    if (!o || !p || !k_t) {
        te_release(o);
        te_free(ctx, p);
        te_free(ctx, k_t);
        return NULL;
    }
    for (int64_t b = 0; b < d.batch; b++) {
        for (int64_t h = 0; h < heads; h++) {
            const int64_t q_at = b * d.time * d.q_row + h * d.head_dim;
            const int64_t kv_at = b * d.key_time * d.kv_row + h / d.group * d.head_dim;
            if (h % d.group == 0)
                ctx->kernels->transpose(k_t, te_values(k) + kv_at, d.kv_row, d.head_dim, d.key_time,
                                        d.padded);
            te_attention_head(ctx, &d, te_values(q) + q_at, k_t, te_values(v) + kv_at,
                              keep ? p + (b * heads + h) * head_floats : p, te_values(o) + q_at);
        }
    }
    te_free(ctx, k_t);
    te_node node = {.op = TE_OP_ATTENTION,
                    .n_in = 3,
                    .in = {q, k, v},
                    .n_int = 3,
                    .ints = {heads, kv_heads, causal != 0},
                    .n_float = 1,
                    .floats = {d.scale},
                    .saved = {p}};
    return te_record(ctx, &node, o);
}

/* Pointers to one head; the gradients are NULL where none is wanted. */
typedef struct {
    const te_float *q, *k, *v_t, *p, *d_out;
    te_float *dq, *dk, *dv;
    te_float *ds; /* scratch [TE_QUERY_BLOCK, key_time] */
} te_attention_back;

/* dv += p^T do;  dp = do v^T;  ds = p (dp - sum(p dp)) scale;  dq += ds k;  dk += ds^T q */
static void te_attention_head_backward(te_ctx *ctx, const te_attention_dims *d,
                                       const te_attention_back *h) {
    const te_float *p = h->p;
    for (int64_t t0 = 0; t0 < d->time; t0 += TE_QUERY_BLOCK) {
        const int64_t rows = d->time - t0 < TE_QUERY_BLOCK ? d->time - t0 : TE_QUERY_BLOCK;
        const int64_t keys = te_keys_seen(d, t0 + rows - 1);
        const te_float *d_out = h->d_out + t0 * d->q_row;
        if (h->dv) {
            te_multiply(ctx, keys, d->head_dim, rows, p, 1, keys, d_out, d->q_row, h->dv, d->kv_row,
                        1);
        }
        te_multiply(ctx, rows, keys, d->head_dim, d_out, d->q_row, 1, h->v_t, d->padded, h->ds,
                    keys, 0);
        for (int64_t r = 0; r < rows; r++) {
            const int64_t seen = te_keys_seen(d, t0 + r);
            te_float *row = h->ds + r * keys;
            te_float inner = ctx->kernels->dot(seen, p + r * keys, row);
            ctx->kernels->softmax_back(seen, d->scale, inner, p + r * keys, row, row, 0);
            te_clear_floats(row + seen, keys - seen);
        }
        if (h->dq) {
            te_multiply(ctx, rows, d->head_dim, keys, h->ds, keys, 1, h->k, d->kv_row,
                        h->dq + t0 * d->q_row, d->q_row, 1);
        }
        if (h->dk) {
            te_multiply(ctx, keys, d->head_dim, rows, h->ds, 1, keys, h->q + t0 * d->q_row,
                        d->q_row, h->dk, d->kv_row, 1);
        }
        p += rows * keys;
    }
}

static int te_attention_backward(te_ctx *ctx, te_node *node) {
    te_tensor *q = node->in[0], *k = node->in[1], *v = node->in[2];
    te_attention_dims d;
    if (!te_attention_check(ctx, q, k, v, node->ints[0], node->ints[1], (int)node->ints[2], &d))
        return 0;
    const int64_t head_floats = te_head_floats(&d);
    int done = 0;
    te_float *dq = NULL, *dk = NULL, *dv = NULL;
    te_float *ds = te_alloc_floats(ctx, TE_QUERY_BLOCK * d.key_time);
    te_float *v_t = te_alloc_floats(ctx, d.head_dim * d.padded);
    if (!ds || !v_t || (q->requires_grad && !(dq = te_grad_sum_buffer(q))) ||
        (k->requires_grad && !(dk = te_grad_sum_buffer(k))) ||
        (v->requires_grad && !(dv = te_grad_sum_buffer(v))))
        goto end;
    for (int64_t b = 0; b < d.batch; b++) {
        for (int64_t head = 0; head < d.heads; head++) {
            const int64_t q_at = b * d.time * d.q_row + head * d.head_dim;
            const int64_t kv_at = b * d.key_time * d.kv_row + head / d.group * d.head_dim;
            if (head % d.group == 0)
                ctx->kernels->transpose(v_t, te_values(v) + kv_at, d.kv_row, d.head_dim, d.key_time,
                                        d.padded);
            te_attention_back h = {.q = te_values(q) + q_at,
                                   .k = te_values(k) + kv_at,
                                   .v_t = v_t,
                                   .p = (te_float *)node->saved[0] +
                                        (b * d.heads + head) * head_floats,
                                   .d_out = node->out->grad + q_at,
                                   .dq = dq ? dq + q_at : NULL,
                                   .dk = dk ? dk + kv_at : NULL,
                                   .dv = dv ? dv + kv_at : NULL,
                                   .ds = ds};
            te_attention_head_backward(ctx, &d, &h);
        }
    }
    done = 1;
end:
    te_free(ctx, ds);
    te_free(ctx, v_t);
    return done;
}
