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

typedef struct {
    te_ctx *ctx;
    const te_node *node;
    const te_float *angles, *from;
    te_float *to;
    te_float direction; /* 1, or -1 to turn back */
    int accumulate;
    int64_t time, width;
} te_rope_work;

/* Turns the pairs of some rows [heads * head_dim] by the angles of their times. */
static void te_rope_range(void *argument, int thread, int64_t first, int64_t last) {
    const te_rope_work *w = argument;
    const int64_t head_dim = w->node->ints[0], half = head_dim / 2, heads = w->width / head_dim;
    const te_float *from = w->from + first * w->width;
    te_float *to = w->to + first * w->width;
    (void)thread;
    for (int64_t r = first; r < last; r++) {
        const te_float *c = w->angles + r % w->time * head_dim, *s = c + half;
        if (w->node->ints[1] == TE_ROPE_SPLIT_HALF) {
            w->ctx->kernels->rotate(heads, half, w->direction, c, s, from, to, w->accumulate);
            from += w->width;
            to += w->width;
            continue;
        }
        for (int64_t h = 0; h < heads; h++, from += head_dim, to += head_dim) {
            for (int64_t i = 0; i < half; i++) {
                te_float u = from[2 * i], v = from[2 * i + 1], sine = w->direction * s[i];
                te_float a = u * c[i] - v * sine, b = u * sine + v * c[i];
                to[2 * i] = w->accumulate ? to[2 * i] + a : a;
                to[2 * i + 1] = w->accumulate ? to[2 * i + 1] + b : b;
            }
        }
    }
}

static void te_rope_apply(te_ctx *ctx, const te_tensor *x, const te_node *node,
                          const te_float *angles, te_float direction, const te_float *from,
                          te_float *to, int accumulate) {
    te_rope_work work = {.ctx = ctx,
                         .node = node,
                         .angles = angles,
                         .from = from,
                         .to = to,
                         .direction = direction,
                         .accumulate = accumulate,
                         .time = x->shape[x->ndim - 2],
                         .width = te_width(x)};
    te_share(ctx, te_rows(x), te_share_rows(work.width), te_rope_range, &work);
}

te_tensor *te_rope(te_ctx *ctx, te_tensor *x, int64_t head_dim, int pairing, double base,
                   int64_t offset) {
    char text[TE_SHAPE_CHARS];
    if (!te_check_float(ctx, "rope", "x", x) || !te_check_dims(ctx, "rope", "x", x, 2)) return NULL;
    if (head_dim < 2 || head_dim % 2 || te_width(x) < head_dim || te_width(x) % head_dim)
        return te_fail(ctx, TE_ERR_SHAPE,
                       "rope: head_dim %lld must be even and divide the width of x %s",
                       (long long)head_dim, te_shape_text(x, text));
    if (!(base > 0) || offset < 0 || offset > INT32_MAX ||
        (pairing != TE_ROPE_SPLIT_HALF && pairing != TE_ROPE_INTERLEAVED))
        return te_fail(
            ctx, TE_ERR_VALUE,
            "rope: base %g must be positive, offset %lld 0 to 2^31 - 1, pairing %d 0 or 1", base,
            (long long)offset, pairing);
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

/* Turns back, in the place of the result's gradient where nobody needs that any more. */
static int te_rope_backward(te_ctx *ctx, te_node *node) {
    te_tensor *x = node->in[0], *y = node->out;
    int accumulate = 0;
    const te_float *angles =
        te_rope_angles(ctx, node->ints[0], x->shape[x->ndim - 2], node->floats[0], node->ints[2]);
    if (!angles) return 0;
    if (te_may_hand_grad(y, x)) {
        te_rope_apply(ctx, x, node, angles, -1, y->grad, y->grad, 0);
        return te_hand_grad(ctx, y, x);
    }
    te_float *dx = te_grad_buffer(x, &accumulate);
    if (!dx) return 0;
    te_rope_apply(ctx, x, node, angles, -1, y->grad, dx, accumulate);
    return 1;
}

/* ---- Attention (arXiv 1706.03762, grouped queries 2305.13245) ---- */

/* Queries are taken in blocks, so that a causal mask saves work. Scores and probabilities of a
 * block are kept with queries side by side, [keys, columns], so that a softmax runs down the
 * columns and needs no sums across a vector; columns beyond the last query hold what nobody reads.
 */
enum { TE_QUERY_BLOCK = 32, TE_QUERY_ALIGN = 16, TE_NEAR_FLOATS = 4096 };

typedef struct {
    int64_t batch, time, key_time, heads, kv_heads, head_dim, group;
    int64_t q_row, kv_row; /* widths of q and of k, v */
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
                             .causal = causal != 0,
                             .scale = (te_float)(1.0 / sqrt((double)head_dim))};
    d->batch = time ? q->numel / (time * d->q_row) : 0;
    return 1;
}

/* By one thread: c [m, n] (+)= a [m, k] b [k, n], with strides for the rows of each and the columns
 * of a */
static void te_multiply(te_ctx *ctx, int thread, int64_t m, int64_t n, int64_t k, const te_float *a,
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
    ctx->kernels->gemm(&g, te_pack_of(ctx, thread));
}

/* Queries first to first + rows - 1, and the keys that any of them sees. */
typedef struct {
    int64_t first, rows, columns, keys;
    te_float *p; /* [keys, columns] */
} te_query_block;

static te_query_block te_query_block_at(const te_attention_dims *d, int64_t first, te_float *p) {
    const int64_t rows = d->time - first < TE_QUERY_BLOCK ? d->time - first : TE_QUERY_BLOCK;
    return (te_query_block){first, rows,
                            (rows + TE_QUERY_ALIGN - 1) / TE_QUERY_ALIGN * TE_QUERY_ALIGN,
                            te_keys_seen(d, first + rows - 1), p};
}

/* Floats that the probabilities of one head take: those of its blocks follow each other. */
static int64_t te_head_floats(const te_attention_dims *d) {
    int64_t floats = 0;
    for (int64_t t = 0; t < d->time; t += TE_QUERY_BLOCK) {
        const te_query_block block = te_query_block_at(d, t, NULL);
        floats += block.keys * block.columns;
    }
    return floats;
}

/* Whether heads of keys and values are gathered: where the rows of a sequence are more than half of
 * a first-level cache, those of one head, which lie one stride apart, would share few places of it.
 */
static int te_gathers(const te_attention_dims *d) {
    return d->key_time * d->kv_row > TE_NEAR_FLOATS;
}

/* Floats of a thread's scratch, see te_attention_room. */
static int64_t te_attention_scratch(const te_attention_dims *d) {
    return 4 * d->key_time * d->head_dim + (d->head_dim + d->key_time) * TE_QUERY_BLOCK;
}

/* One head: probabilities p and output o (rows of stride q_row) from q, k and v (rows of stride
 * `row`). */
static void te_attention_head(te_ctx *ctx, int thread, const te_attention_dims *d,
                              const te_float *q, const te_float *k, const te_float *v, int64_t row,
                              te_float *q_t, te_float *p, te_float *o) {
    for (int64_t t = 0; t < d->time; t += TE_QUERY_BLOCK) {
        const te_query_block b = te_query_block_at(d, t, p);
        ctx->kernels->transpose(q_t, q + t * d->q_row, d->q_row, d->head_dim, b.rows, b.columns);
        te_multiply(ctx, thread, b.keys, b.columns, d->head_dim, k, row, 1, q_t, b.columns, p,
                    b.columns, 0);
        ctx->kernels->softmax_columns(b.keys, b.columns, te_keys_seen(d, t), d->scale, p);
        te_multiply(ctx, thread, b.rows, d->head_dim, b.keys, p, 1, b.columns, v, row,
                    o + t * d->q_row, d->q_row, 0);
        p += b.keys * b.columns;
    }
}

/* The rows of one head, side by side in `to`, which is returned. */
static te_float *te_gather_head(te_ctx *ctx, const te_attention_dims *d, const te_float *from,
                                te_float *to) {
    ctx->kernels->move(d->key_time, d->head_dim, from, d->kv_row, to, d->head_dim, 0);
    return to;
}

/* The groups of heads of all sequences, each of which reads one head of keys and values, are what
 * threads share. */
typedef struct {
    te_ctx *ctx;
    te_attention_dims d;
    const te_float *q, *k, *v;
    te_float *o, *p;
    te_float *scratch;   /* te_attention_scratch() of each thread */
    int64_t head_floats; /* of p; 0 where threads have one head's each, at p + thread * p_thread */
    int64_t p_thread;
} te_attention_work;

static void te_attention_range(void *argument, int thread, int64_t first, int64_t last) {
    const te_attention_work *w = argument;
    const te_attention_dims *d = &w->d;
    const int gathers = te_gathers(d);
    te_float *room = w->scratch + thread * te_attention_scratch(d), *q_t = room;
    room += d->head_dim * TE_QUERY_BLOCK;
    for (int64_t i = first; i < last; i++) {
        const int64_t b = i / d->kv_heads, kv_head = i % d->kv_heads;
        const int64_t kv_at = b * d->key_time * d->kv_row + kv_head * d->head_dim;
        const te_float *keys = w->k + kv_at, *values = w->v + kv_at;
        if (gathers) {
            keys = te_gather_head(w->ctx, d, keys, room);
            values = te_gather_head(w->ctx, d, values, room + d->key_time * d->head_dim);
        }
        for (int64_t head = kv_head * d->group; head < (kv_head + 1) * d->group; head++) {
            const int64_t q_at = b * d->time * d->q_row + head * d->head_dim;
            te_float *p = w->p + thread * w->p_thread + (b * d->heads + head) * w->head_floats;
            te_attention_head(w->ctx, thread, d, w->q + q_at, keys, values,
                              gathers ? d->head_dim : d->kv_row, q_t, p, w->o + q_at);
        }
    }
}

/* At least how many groups a thread takes. */
static int64_t te_attention_grain(const te_attention_dims *d) {
    return 1 + TE_SHARE_PRODUCTS / (1 + d->time * d->key_time * d->head_dim * d->group);
}

te_tensor *te_attention(te_ctx *ctx, te_tensor *q, te_tensor *k, te_tensor *v, int64_t heads,
                        int64_t kv_heads, int causal) {
    te_attention_dims d;
    if (!te_attention_check(ctx, q, k, v, heads, kv_heads, causal, &d)) return NULL;
    const int keep = te_needs_grad(ctx, q) || te_needs_grad(ctx, k) || te_needs_grad(ctx, v);
    const int64_t head_floats = te_head_floats(&d);
    te_tensor *o = te_tensor_like(ctx, q);
    te_float *p = te_alloc_floats(ctx, (keep ? d.batch * heads : ctx->threads) * head_floats);
    te_float *scratch = te_alloc_floats(ctx, ctx->threads * te_attention_scratch(&d));
    if (!o || !p || !scratch) {
        te_release(o);
        te_free(ctx, p);
        te_free(ctx, scratch);
        return NULL;
    }
    te_attention_work work = {.ctx = ctx,
                              .d = d,
                              .q = te_values(q),
                              .k = te_values(k),
                              .v = te_values(v),
                              .o = te_values(o),
                              .p = p,
                              .scratch = scratch,
                              .head_floats = keep ? head_floats : 0,
                              .p_thread = keep ? 0 : head_floats};
    te_share(ctx, d.batch * kv_heads, te_attention_grain(&d), te_attention_range, &work);
    te_free(ctx, scratch);
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

/* Pointers to one head; the gradients are NULL where none is wanted, and added to where
 * `accumulate_` says so, else overwritten. */
typedef struct {
    const te_float *q, *k, *v, *d_out;
    te_float *p, *dq, *dk, *dv;
    int accumulate_q, accumulate_k, accumulate_v;
} te_attention_back;

static te_float *te_shifted(te_float *p, int64_t by) {
    return p ? p + by : NULL;
}

/* A head's keys, values and their gradients, with rows of stride `row`, where they are or gathered
 * in a thread's scratch; and there, of a block, do transposed [head_dim, TE_QUERY_BLOCK] and the
 * gradients of scores [key_time, TE_QUERY_BLOCK]. */
typedef struct {
    const te_float *keys, *values;
    te_float *dk, *dv, *d_t, *ds;
    int64_t row;
    int accumulate_k, accumulate_v; /* whether dk and dv are added to */
} te_attention_room;

static te_attention_room te_attention_room_at(te_ctx *ctx, const te_attention_dims *d,
                                              const te_attention_back *h, int64_t kv_at,
                                              te_float *scratch) {
    const int64_t head = d->key_time * d->head_dim;
    te_attention_room r = {.keys = h->k + kv_at,
                           .values = h->v + kv_at,
                           .dk = te_shifted(h->dk, kv_at),
                           .dv = te_shifted(h->dv, kv_at),
                           .d_t = scratch,
                           .ds = scratch + d->head_dim * TE_QUERY_BLOCK,
                           .row = d->kv_row,
                           .accumulate_k = h->accumulate_k,
                           .accumulate_v = h->accumulate_v};
    if (!te_gathers(d)) return r;
    scratch += (d->head_dim + d->key_time) * TE_QUERY_BLOCK;
    r.keys = te_gather_head(ctx, d, r.keys, scratch);
    r.values = te_gather_head(ctx, d, r.values, scratch + head);
    r.dk = scratch + 2 * head;
    r.dv = scratch + 3 * head;
    r.row = d->head_dim;
    r.accumulate_k = r.accumulate_v = 0;
    return r;
}

/* dv += p^T do;  dp = do v^T;  ds = p (dp - sum(p dp)) scale;  dq = ds k;  dk += ds^T q. The last
 * block, which sees all keys, comes first, so that the first head of a group can overwrite what the
 * others add to. */
static void te_attention_head_backward(te_ctx *ctx, int thread, const te_attention_dims *d,
                                       const te_attention_back *h, te_attention_room *r) {
    const int64_t n = d->head_dim;
    const te_float *p = h->p + te_head_floats(d);
    for (int64_t t = (d->time - 1) / TE_QUERY_BLOCK * TE_QUERY_BLOCK; t >= 0; t -= TE_QUERY_BLOCK) {
        const te_query_block b = te_query_block_at(d, t, NULL);
        p -= b.keys * b.columns;
        const te_float *d_out = h->d_out + t * d->q_row;
        if (h->dv)
            te_multiply(ctx, thread, b.keys, n, b.rows, p, b.columns, 1, d_out, d->q_row, r->dv,
                        r->row, r->accumulate_v);
        if (h->dq || h->dk) {
            ctx->kernels->transpose(r->d_t, d_out, d->q_row, n, b.rows, b.columns);
            te_multiply(ctx, thread, b.keys, b.columns, n, r->values, r->row, 1, r->d_t, b.columns,
                        r->ds, b.columns, 0);
            ctx->kernels->softmax_columns_back(b.keys, b.columns, d->scale, p, r->ds);
        }
        if (h->dq)
            te_multiply(ctx, thread, b.rows, n, b.keys, r->ds, 1, b.columns, r->keys, r->row,
                        h->dq + t * d->q_row, d->q_row, h->accumulate_q);
        if (h->dk)
            te_multiply(ctx, thread, b.keys, n, b.rows, r->ds, b.columns, 1, h->q + t * d->q_row,
                        d->q_row, r->dk, r->row, r->accumulate_k);
        r->accumulate_k = r->accumulate_v = 1;
    }
}

typedef struct {
    te_ctx *ctx;
    te_attention_dims d;
    te_attention_back all; /* of the first head */
    te_float *scratch;     /* te_attention_scratch() of each thread */
    int64_t head_floats;
} te_attention_back_work;

static void te_attention_back_range(void *argument, int thread, int64_t first, int64_t last) {
    const te_attention_back_work *w = argument;
    const te_attention_dims *d = &w->d;
    const te_attention_back *all = &w->all;
    te_float *scratch = w->scratch + thread * te_attention_scratch(d);
    for (int64_t i = first; i < last; i++) {
        const int64_t b = i / d->kv_heads, kv_head = i % d->kv_heads;
        const int64_t kv_at = b * d->key_time * d->kv_row + kv_head * d->head_dim;
        te_attention_room room = te_attention_room_at(w->ctx, d, all, kv_at, scratch);
        for (int64_t g = 0; g < d->group; g++) {
            const int64_t head = kv_head * d->group + g;
            const int64_t q_at = b * d->time * d->q_row + head * d->head_dim;
            te_attention_back h = *all;
            h.q += q_at;
            h.d_out += q_at;
            h.dq = te_shifted(h.dq, q_at);
            h.p += (b * d->heads + head) * w->head_floats;
            te_attention_head_backward(w->ctx, thread, d, &h, &room);
        }
        if (!te_gathers(d)) continue;
        if (all->dk)
            w->ctx->kernels->move(d->key_time, d->head_dim, room.dk, d->head_dim, all->dk + kv_at,
                                  d->kv_row, all->accumulate_k);
        if (all->dv)
            w->ctx->kernels->move(d->key_time, d->head_dim, room.dv, d->head_dim, all->dv + kv_at,
                                  d->kv_row, all->accumulate_v);
    }
}

/* The gradient buffer of t, zeroed when the passes over it come in any order. */
static te_float *te_attention_grad(te_tensor *t, int any_order, int *accumulate) {
    if (!any_order) return te_grad_buffer(t, accumulate);
    *accumulate = 1;
    return te_grad_sum_buffer(t);
}

static int te_attention_backward(te_ctx *ctx, te_node *node) {
    te_tensor *q = node->in[0], *k = node->in[1], *v = node->in[2];
    te_attention_back_work work = {.ctx = ctx};
    te_attention_dims *d = &work.d;
    te_attention_back *all = &work.all;
    if (!te_attention_check(ctx, q, k, v, node->ints[0], node->ints[1], (int)node->ints[2], d))
        return 0;
    /* A tensor in two places gets its gradient from both; without queries there is no pass. */
    const int any_order = q == k || q == v || k == v || q->numel == 0;
    int done = 0;
    work.scratch = te_alloc_floats(ctx, ctx->threads * te_attention_scratch(d));
    if (!work.scratch ||
        (q->requires_grad && !(all->dq = te_attention_grad(q, any_order, &all->accumulate_q))) ||
        (k->requires_grad && !(all->dk = te_attention_grad(k, any_order, &all->accumulate_k))) ||
        (v->requires_grad && !(all->dv = te_attention_grad(v, any_order, &all->accumulate_v))))
        goto end;
    all->q = te_values(q);
    all->k = te_values(k);
    all->v = te_values(v);
    all->p = node->saved[0];
    all->d_out = node->out->grad;
    work.head_floats = te_head_floats(d);
    te_share(ctx, d->batch * d->kv_heads, te_attention_grain(d), te_attention_back_range, &work);
    done = 1;
end:
    te_free(ctx, work.scratch);
    return done;
}
