/* ops_bitlinear.c - BitLinear (arXiv 2402.17764): weights rounded to trits, each input vector to
 * int8, products in integers. */
#include "internal.h"
#include "kernels.h"

/* ---- Quantisers ---- */

/* |w| is summed up in pieces of this many elements, which threads share. */
enum { TE_BIT_PIECE = 1 << 12, TE_BIT_PIECES = 256 };

typedef struct {
    const te_kernels *kernels;
    const te_float *w;
    int64_t n;
    double sums[TE_BIT_PIECES];
} te_abs_work;

static void te_abs_range(void *argument, int thread, int64_t first, int64_t last) {
    te_abs_work *a = argument;
    (void)thread;
    for (int64_t i = first; i < last; i++) {
        const int64_t left = a->n - i * TE_BIT_PIECE;
        a->sums[i] = a->kernels->total_abs(left < TE_BIT_PIECE ? left : TE_BIT_PIECE,
                                           a->w + i * TE_BIT_PIECE);
    }
}

/* gamma = mean(|w|), the same on any number of threads; ctx may be NULL: the caller's alone */
static te_float te_mean_abs(te_ctx *ctx, const te_kernels *kernels, const te_float *w, int64_t n) {
    double total = 0;
    for (int64_t done = 0; done < n; done += (int64_t)TE_BIT_PIECES * TE_BIT_PIECE) {
        te_abs_work a = {.kernels = kernels, .w = w + done, .n = n - done};
        int64_t pieces = (a.n + TE_BIT_PIECE - 1) / TE_BIT_PIECE;
        if (pieces > TE_BIT_PIECES) pieces = TE_BIT_PIECES;
        if (ctx)
            te_share(ctx, pieces, 1, te_abs_range, &a);
        else
            te_abs_range(&a, 0, 0, pieces);
        for (int64_t i = 0; i < pieces; i++) total += a.sums[i];
    }
    return n ? (te_float)(total / (double)n) : 0;
}

/* Bytes as the kernels make them, 128 above what they mean, to signed ones. */
static void te_to_signed(int64_t n, int8_t *q) {
    for (int64_t i = 0; i < n; i++) q[i] = (int8_t)((uint8_t)q[i] - 128);
}

te_float te_quantize_ternary(const te_float *w, int64_t n, int8_t *trits) {
    if (!w || !trits || n < 1) return 0;
    const te_kernels *kernels = te_find_kernels("portable");
    const te_float gamma = te_mean_abs(NULL, kernels, w, n);
    kernels->trits(n, gamma + TE_QUANT_EPS, w, (uint8_t *)trits);
    te_to_signed(n, trits);
    return gamma;
}

te_float te_quantize_int8(const te_float *x, int64_t n, int8_t *q) {
    if (!x || !q || n < 1) return 0;
    te_float s;
    te_find_kernels("portable")->codes(1, n, n, TE_QUANT_EPS, x, (uint8_t *)q, &s);
    te_to_signed(n, q);
    return s;
}

/* ---- The layer ---- */

/* Both operands as bytes, 128 above what they mean, in rows of 4 * groups of them, of which the
 * last may mean zero. In memory a block of each, which begins with the scale or scales. */
typedef struct {
    int64_t rows, in, out, groups;
    te_float *gamma;  /* one */
    uint8_t *trits;   /* [out, 4 * groups] */
    te_float *scales; /* [rows]: s of each vector */
    uint8_t *codes;   /* [rows, 4 * groups] */
} te_bit_operands;

static te_bit_operands te_bit_operands_of(const te_tensor *x, const te_tensor *w) {
    const int64_t in = w->shape[1];
    return (te_bit_operands){te_rows(x), in, w->shape[0], (in + 3) / 4, NULL, NULL, NULL, NULL};
}

/* Where scales and bytes lie in the blocks of the weights and of the vectors, each may be NULL. */
static void te_bit_place(te_bit_operands *b, te_float *weights, te_float *vectors) {
    b->gamma = weights;
    b->trits = weights ? (uint8_t *)(weights + 1) : NULL;
    b->scales = vectors;
    b->codes = vectors ? (uint8_t *)(vectors + b->rows) : NULL;
}

typedef struct {
    te_ctx *ctx;
    te_bit_operands b;
    const te_float *x;
    te_float *row_scale; /* [rows]: gamma * s / 127, or NULL */
    te_ternary ternary;
    te_float *floats; /* of the rows in hand: codes as floats, times s / 127 in the backward pass */
    int64_t first;    /* of these rows */
    te_float *weights, factor; /* [out, in]: factor * trits */
    int32_t *panels;           /* of te_ternary */
    const te_float *source;    /* of the trits */
    int scaled;
} te_bit_work;

static void te_bit_codes_range(void *argument, int thread, int64_t first, int64_t last) {
    const te_bit_work *w = argument;
    const te_bit_operands *b = &w->b;
    const int64_t stride = 4 * b->groups;
    (void)thread;
    for (int64_t i = first; i < last && stride > b->in; i++)
        memset(b->codes + i * stride + b->in, 128, (size_t)(stride - b->in));
    w->ctx->kernels->codes(last - first, b->in, stride, TE_QUANT_EPS, w->x + first * b->in,
                           b->codes + first * stride, b->scales + first);
    for (int64_t i = first; i < last && w->row_scale; i++)
        w->row_scale[i] = *b->gamma * b->scales[i] / TE_QUANT_MAX;
}

static void te_bit_product_range(void *argument, int thread, int64_t first, int64_t last) {
    const te_bit_work *w = argument;
    (void)thread;
    w->ctx->kernels->ternary_rows(&w->ternary, first, last);
}

static void te_bit_floats_range(void *argument, int thread, int64_t first, int64_t last) {
    const te_bit_work *w = argument;
    const te_bit_operands *b = &w->b;
    (void)thread;
    for (int64_t i = first; i < last; i++)
        w->ctx->kernels->dequantize(b->in, w->scaled ? b->scales[w->first + i] / TE_QUANT_MAX : 1,
                                    b->codes + (w->first + i) * 4 * b->groups,
                                    w->floats + i * b->in);
}

/* Rows of vectors that are made floats at a time. */
enum { TE_BIT_ROWS = TE_BLOCK_K };

static int64_t te_bit_rows(const te_bit_work *w) {
    const int64_t left = w->b.rows - w->first;
    return left < TE_BIT_ROWS ? left : TE_BIT_ROWS;
}

/* Makes floats of te_bit_rows() vectors from w->first on. */
static void te_bit_floats(te_bit_work *w) {
    te_share(w->ctx, te_bit_rows(w), te_share_rows(w->b.in), te_bit_floats_range, w);
}

static void te_bit_weights_range(void *argument, int thread, int64_t first, int64_t last) {
    const te_bit_work *w = argument;
    const te_bit_operands *b = &w->b;
    (void)thread;
    for (int64_t j = first; j < last; j++)
        w->ctx->kernels->dequantize(b->in, w->factor, b->trits + j * 4 * b->groups,
                                    w->weights + j * b->in);
}

/* New floats [out, in] in w->weights: factor * trits. NULL: no memory. */
static te_float *te_bit_weights(te_bit_work *w, te_float factor) {
    w->factor = factor;
    w->weights = te_alloc_floats(w->ctx, w->b.out * w->b.in);
    if (w->weights) te_share(w->ctx, w->b.out, te_share_rows(w->b.in), te_bit_weights_range, w);
    return w->weights;
}

static int64_t te_bit_panel_words(const te_bit_operands *b) {
    return (1 + b->groups) * TE_TERNARY_COLUMNS;
}

/* Some panels of a te_ternary. */
static void te_bit_panels_range(void *argument, int thread, int64_t first, int64_t last) {
    const te_bit_work *w = argument;
    const te_bit_operands *b = &w->b;
    (void)thread;
    for (int64_t j = first * TE_TERNARY_COLUMNS; j < last * TE_TERNARY_COLUMNS; j++) {
        int32_t *column =
            w->panels + j / TE_TERNARY_COLUMNS * te_bit_panel_words(b) + j % TE_TERNARY_COLUMNS;
        int32_t sum = 0;
        for (int64_t p = 0; p < b->groups; p++) {
            uint32_t word = 0x80808080;
            if (j < b->out) memcpy(&word, b->trits + 4 * (j * b->groups + p), sizeof word);
            /* the bytes are 127, 128 or 129 */
            sum +=
                (int32_t)((word & 0xff) + (word >> 8 & 0xff) + (word >> 16 & 0xff) + (word >> 24)) -
                4 * 128;
            word ^= 0x80808080;
            memcpy(column + (1 + p) * TE_TERNARY_COLUMNS, &word, sizeof word);
        }
        *column = -128 * sum;
    }
}

/* y = codes trits^T, times the scales of the rows. Sums of floats are as exact as those of integers
 * while they stay below 2^24: for in <= 132104. */
static int te_bit_product(te_bit_work *w, te_float *y) {
    te_ctx *ctx = w->ctx;
    const te_bit_operands *b = &w->b;
    if (ctx->kernels->ternary_rows) {
        const int64_t panels = (b->out + TE_TERNARY_COLUMNS - 1) / TE_TERNARY_COLUMNS;
        w->panels = te_alloc(ctx, panels * te_bit_panel_words(b) * (int64_t)sizeof *w->panels);
        if (!w->panels) return 0;
        te_share(ctx, panels, te_share_rows(b->in * TE_TERNARY_COLUMNS), te_bit_panels_range, w);
        w->ternary = (te_ternary){b->groups, b->out, b->codes, w->panels, w->row_scale, y};
        te_share(ctx, b->rows, 1 + TE_SHARE_PRODUCTS / (1 + b->in * b->out), te_bit_product_range,
                 w);
        te_free(ctx, w->panels);
        return 1;
    }
    te_float *weights = te_bit_weights(w, 1);
    w->floats = te_alloc_floats(ctx, TE_BIT_ROWS * b->in);
    for (w->first = 0; weights && w->floats && w->first < b->rows; w->first += TE_BIT_ROWS) {
        te_bit_floats(w);
        te_forward_product(ctx, te_bit_rows(w), b->in, b->out, w->floats, weights,
                           y + w->first * b->out, w->row_scale + w->first, NULL);
    }
    te_free(ctx, weights);
    te_free(ctx, w->floats);
    return ctx->status == TE_OK;
}

static void te_bit_trits_range(void *argument, int thread, int64_t first, int64_t last) {
    const te_bit_work *w = argument;
    const te_bit_operands *b = &w->b;
    (void)thread;
    for (int64_t j = first; j < last; j++) {
        uint8_t *trits = b->trits + j * 4 * b->groups;
        memset(trits + 4 * b->groups - 4, 128, 4);
        w->ctx->kernels->trits(b->in, *b->gamma + TE_QUANT_EPS, w->source + j * b->in, trits);
    }
}

static void te_bit_quantize_weights(te_bit_work *w, const te_tensor *weights) {
    w->source = te_values(weights);
    *w->b.gamma = te_mean_abs(w->ctx, w->ctx->kernels, w->source, weights->numel);
    te_share(w->ctx, w->b.out, te_share_rows(w->b.in), te_bit_trits_range, w);
}

static void te_bit_quantize_vectors(te_bit_work *w) {
    te_share(w->ctx, w->b.rows, te_share_rows(w->b.in), te_bit_codes_range, w);
}

/* Memory for the weights (side 0) or for the vectors (side 1). */
static void *te_bit_alloc(te_ctx *ctx, const te_bit_operands *b, int side) {
    const int64_t bytes = 4 * b->groups, scale = (int64_t)sizeof(te_float);
    return te_alloc(ctx, side ? b->rows * (scale + bytes) : scale + b->out * bytes);
}

te_tensor *te_bitlinear(te_ctx *ctx, te_tensor *x, te_tensor *w) {
    te_tensor *y = te_linear_result(ctx, "bitlinear", x, w);
    if (!y) return NULL;
    te_bit_work work = {.ctx = ctx, .b = te_bit_operands_of(x, w), .x = te_values(x)};
    te_node node = {.op = TE_OP_BITLINEAR, .n_in = 2, .in = {x, w}};
    node.saved[0] = te_bit_alloc(ctx, &work.b, 0);
    node.saved[1] = te_bit_alloc(ctx, &work.b, 1);
    work.row_scale = te_alloc_floats(ctx, work.b.rows);
    int done = node.saved[0] && node.saved[1] && work.row_scale;
    if (done) {
        te_bit_place(&work.b, node.saved[0], node.saved[1]);
        te_bit_quantize_weights(&work, w);
        te_bit_quantize_vectors(&work);
        done = te_bit_product(&work, te_values(y));
    }
    te_free(ctx, work.row_scale);
    if (!done) {
        te_free_saved(ctx, &node);
        te_release(y);
        return NULL;
    }
    /* Each side's gradient needs the other side; where memory matters most, it is made again. */
    for (int side = 0; side < 2; side++) {
        if (te_needs_grad(ctx, node.in[side]) && !ctx->single_use) continue;
        te_free(ctx, node.saved[side]);
        node.saved[side] = NULL;
    }
    return te_record(ctx, &node, y);
}

/* The straight-through estimator differentiates at the dequantised operands:
 * dx = dy (gamma trits), dw = dy^T (s/127 codes). */
static int te_bitlinear_backward(te_ctx *ctx, te_node *node) {
    te_tensor *x = node->in[0], *w = node->in[1];
    te_bit_work work = {.ctx = ctx, .b = te_bit_operands_of(x, w), .x = te_values(x), .scaled = 1};
    const te_bit_operands *b = &work.b;
    const te_float *dy = node->out->grad;
    int accumulate = 0;
    int missing[2];
    for (int side = 0; side < 2; side++) {
        missing[side] = node->in[side]->requires_grad && !node->saved[side];
        if (missing[side] && !(node->saved[side] = te_bit_alloc(ctx, b, side))) return 0;
    }
    te_bit_place(&work.b, node->saved[0], node->saved[1]);
    if (missing[0]) te_bit_quantize_weights(&work, w);
    if (missing[1]) te_bit_quantize_vectors(&work);
    if (x->requires_grad) {
        te_float *weights = te_bit_weights(&work, *b->gamma);
        te_float *dx = weights ? te_grad_buffer(x, &accumulate) : NULL;
        if (dx) te_input_grad(ctx, b->rows, b->in, b->out, dy, weights, dx, accumulate);
        te_free(ctx, weights);
        if (!dx) return 0;
    }
    if (w->requires_grad) {
        work.floats = te_alloc_floats(ctx, TE_BIT_ROWS * b->in);
        te_float *dw = work.floats ? te_grad_buffer(w, &accumulate) : NULL;
        if (dw && !b->rows && !accumulate) te_clear_floats(dw, w->numel);
        for (; dw && work.first < b->rows; work.first += TE_BIT_ROWS, accumulate = 1) {
            te_bit_floats(&work);
            te_weight_grad(ctx, te_bit_rows(&work), b->in, b->out, dy + work.first * b->out,
                           work.floats, dw, accumulate);
        }
        te_free(ctx, work.floats);
        if (!dw) return 0;
    }
    return 1;
}
