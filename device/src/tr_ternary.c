/* tr_ternary.c - quantised activations and ternary linear layers (BitNet b1.58, arXiv 2402.17764),
 * forward and transposed. The integer products are in kernels/. */
#include "kernels/tr_kernels.h"

TR_SMALL TR_NOINLINE void tr_close_row(void *row, uint32_t used, uint32_t unit, float s) {
    uint8_t *bytes = row;
    uint32_t padded = (used + unit - 1) & (0 - unit);
    if (used < padded) memset(bytes + used, 0, padded - used);
    memcpy(bytes + padded, &s, sizeof s);
}

/* dst q8[n0] of a[n0] */
void tr_quantize(const tr_call *call) {
    uint32_t n = call->i->n0;
    const float *a = call->a;
    int8_t *q = call->dst;
    float s = tr_kernel_largest(a, n, 1e-5f);
    tr_kernel_quantize8(q, a, n, 127.0f / s);
    tr_close_row(q, n, 64, s);
}

TR_SMALL TR_NOINLINE void tr_quantize_row16(tr_i16 *dst, const float *a, uint32_t n) {
    float s = tr_kernel_largest(a, n, 1e-30f);
    tr_kernel_quantize16(dst, a, n, 32767.0f / s);
    tr_close_row(dst, 2 * n, 16, s);
}

/* dst q16[n0] of a[n0] */
void tr_quantize16(const tr_call *call) {
    tr_quantize_row16(call->dst, call->a, call->i->n0);
}

/* acc[n1] = b [n1, n0] . q, a: q8[n0], scratch d */
void tr_ternary_sums(const tr_call *call, tr_i32 *acc) {
    uint32_t in = call->i->n0, out = call->i->n1;
    const tr_tensor *tensor = call->b;
    const uint8_t *w = call->session->model->data + tensor->offset;
    if (tensor->dtype == TR_T2D)
        tr_kernel_forward_wd(w, call->a, acc, out, in, call->d);
    else
        tr_kernel_forward(w, call->a, acc, out, in, call->d);
}

/* dst[n1] = (b [n1, n0] . q) * (gamma * s / 127), a: q8[n0], scratch d */
void tr_ternary(const tr_call *call) {
    uint32_t in = call->i->n0, out = call->i->n1;
    const tr_tensor *tensor = call->b;
    const int8_t *q = call->a;
    tr_i32 *acc = call->dst; /* integers first, then the floats in their place */
    float *dst = call->dst, s;
    memcpy(&s, q + tr_round_up(in, 64), sizeof s);
    float scale = tensor->gamma * s / 127.0f;
    tr_ternary_sums(call, acc);
    tr_kernel_scale(dst, acc, out, scale);
}

/* tr_kernel_transposed for a panel of T2D: some rows at a time as T2. */
static void transposed_merged(const tr_u32 *panel, const tr_i16 *e, tr_i32 *acc, uint32_t rows8,
                              uint32_t pitch, void *scratch) {
    enum { ROWS = 32 };
    tr_u32 part[ROWS * TR_PANEL / 16] TR_ALIGNED16;
    tr_i32 sums[TR_PANEL] TR_ALIGNED16;
    uint32_t words = pitch / 4;
    memset(acc, 0, 16 * pitch);
    for (uint32_t done = 0, rows; done < rows8; done += rows) {
        rows = rows8 - done < ROWS ? rows8 - done : ROWS;
        for (tr_u32 *to = part; to < part + rows * words; to += 2 * words, panel += 2 * words)
            for (uint32_t k = 0; k < words; ++k) {
                tr_u32 pair[2];
                tr_unmerge(panel[k], panel[k + words], pair);
                to[k] = pair[0];
                to[k + words] = pair[1];
            }
        tr_kernel_transposed((const uint8_t *)part, e + done, sums, rows, pitch, scratch);
        for (uint32_t k = 0; k < 4 * pitch; ++k) acc[k] += sums[k];
    }
}

/* dst[n0] (+)= (b^T . q) * (gamma * s / 32767), a: q16[n1], b [n1, n0], scratch d */
void tr_ternary_t(const tr_call *call) {
    uint32_t in = call->i->n0, rows8 = (uint32_t)tr_round_up(call->i->n1, 8);
    const tr_tensor *tensor = call->b;
    const uint8_t *panel = call->session->model->data + tensor->offset;
    const tr_i16 *q = call->a;
    tr_i32 *acc = call->d;
    float *y = call->d, *dst = call->dst, s;
    memcpy(&s, q + rows8, sizeof s);
    float scale = tensor->gamma * s / 32767.0f;
    for (uint32_t done = 0; done < in; done += TR_PANEL) {
        uint32_t left = in - done, width = left < TR_PANEL ? left : TR_PANEL;
        uint32_t pitch = (uint32_t)tr_round_up(width, 16) / 4;
        if (tensor->dtype == TR_T2D)
            transposed_merged((const tr_u32 *)(const void *)panel, q, acc, rows8, pitch,
                              acc + TR_PANEL);
        else
            tr_kernel_transposed(panel, q, acc, rows8, pitch, acc + TR_PANEL);
        tr_kernel_scale(tr_acc(call) ? y : dst, acc, width, scale);
        if (tr_acc(call))
            for (uint32_t k = 0; k < width; ++k) dst[k] += y[k];
        dst += width;
        panel += rows8 * pitch;
    }
}
