/* kernels.h - the table of inner loops that every instruction set fills (see gemm.h, rows.h and
 * layers.h for what each does), and the parameters of the larger ones. */
#ifndef TE_KERNELS_H
#define TE_KERNELS_H

#include "internal.h"

/* Blocks of a matrix product: TE_BLOCK_K x TE_BLOCK_N of b are packed at a time (at most 576 KB,
 * for a second-level cache) and multiplied with TE_BLOCK_M rows of a. A b that lies the right way
 * round is read in place when it is small (first-level cache) or when few rows would repay a copy;
 * an a whose columns lie the right way round is packed when they are far apart, and used often
 * enough.
 */
enum {
    TE_BLOCK_M = 96,
    TE_BLOCK_K = 384,
    TE_BLOCK_N = 384,
    TE_PACK_FLOATS = TE_BLOCK_K * (TE_BLOCK_N + TE_BLOCK_M),
    TE_STRIP_STRIDE = 256,
    TE_STRIP_COLUMNS = 256,
    TE_DIRECT_ROWS = 24,
    TE_DIRECT_FLOATS = 8192
};

/* c[i][j] (+)= sum over p of a[i * a_row + p * a_col] * b[p * b_row + j * b_col], then times
 * row_scale[i], then plus bias[j]. One of b_row, b_col is 1; c_row is the stride of rows of c. */
typedef struct {
    int64_t m, n, k;
    const te_float *a;
    int64_t a_row, a_col;
    const te_float *b;
    int64_t b_row, b_col;
    te_float *c;
    int64_t c_row;
    int accumulate;
    const te_float *row_scale; /* [m] or NULL */
    const te_float *bias;      /* [n] or NULL */
} te_gemm;

/* One tile of a product: rows of a times a panel of b. */
typedef struct {
    int64_t k;
    const te_float *a;
    int64_t a_row, a_col;
    const te_float *b;
    int64_t b_row;
    te_float *c;
    int64_t c_row, columns;
    int accumulate;
    const te_float *row_scale, *bias;
} te_tile;

/* y [rows, out] = (codes - 128) trits^T * row_scale, from bytes; see ternary.h. */
typedef struct {
    int64_t groups, out; /* rows of codes have 4 * groups bytes */
    const uint8_t *codes;
    const int32_t *panels; /* [out / 16, 1 + groups, 16]: first -128 * sum of the column's trits,
                              then words of four trits, as signed bytes */
    const te_float *row_scale;
    te_float *y;
} te_ternary;

/* Columns of a panel of trits: two vectors of sums. */
enum { TE_TERNARY_COLUMNS = 16 };

/* Rows [rows, n] of the backward pass of a norm; see layers.h. */
typedef struct {
    int64_t n;
    int centred, accumulate;
    const te_float *x, *dy, *gain, *stats;
    te_float *dx, *dgain, *dbias;
} te_norm_back;

/* p = p * keep - rate * m / (sqrt(v) * root_correction + eps), with l2 * p added to the gradient */
typedef struct {
    te_float beta1, beta2, rest1, rest2; /* rest = 1 - beta */
    te_float rate, root_correction, eps, keep, l2;
} te_adam_step;

enum {
    TE_ACT_RELU,
    TE_ACT_SIGMOID,
    TE_ACT_TANH,
    TE_ACT_SILU,
    TE_ACT_GELU,
    TE_ACT_EXP,
    TE_ACT_LOG,
    TE_ACT_COUNT
};
enum { TE_GATED_SWIGLU, TE_GATED_GEGLU, TE_GATED_COUNT };

typedef struct {
    void (*forward)(int64_t n, const te_float *x, te_float *y);
    void (*back)(int64_t n, const te_float *x, const te_float *dy, te_float *dx, int accumulate);
} te_activation_kernel;

typedef struct {
    void (*forward)(int64_t n, const te_float *a, const te_float *b, te_float *y);
    void (*back)(int64_t n, const te_float *a, const te_float *b, const te_float *dy, te_float *da,
                 int accumulate_a, te_float *db, int accumulate_b);
} te_gated_kernel;

struct te_kernels {
    const char *name;
    void (*gemm)(const te_gemm *g, te_float *pack);
    void (*transpose)(te_float *panel, const te_float *b, int64_t ld, int64_t k, int64_t n,
                      int64_t width);
    void (*add)(int64_t n, const te_float *a, const te_float *b, te_float *y);
    void (*move)(int64_t rows, int64_t n, const te_float *x, int64_t x_row, te_float *y,
                 int64_t y_row, int accumulate);
    void (*mul)(int64_t n, const te_float *a, const te_float *b, te_float *y);
    void (*scale)(int64_t n, te_float factor, const te_float *x, te_float *y);
    void (*axpy)(int64_t n, te_float factor, const te_float *x, te_float *y);
    void (*mul_add)(int64_t n, const te_float *a, const te_float *b, te_float *y);
    te_float (*dot)(int64_t n, const te_float *a, const te_float *b);
    te_float (*sum_squares)(int64_t n, te_float mean, const te_float *x);
    te_float (*total)(int64_t n, const te_float *x);
    double (*total_abs)(int64_t n, const te_float *x);
    void (*codes)(int64_t rows, int64_t n, int64_t stride, te_float eps, const te_float *x,
                  uint8_t *q, te_float *scales);
    void (*trits)(int64_t n, te_float divisor, const te_float *x, uint8_t *q);
    void (*dequantize)(int64_t n, te_float factor, const uint8_t *q, te_float *y);
    void (*ternary_rows)(const te_ternary *t, int64_t first, int64_t last); /* or NULL */
    te_float (*exp_row)(int64_t n, te_float factor, const te_float *x, te_float *y,
                        te_float *largest);
    void (*softmax_back)(int64_t n, te_float factor, te_float inner, const te_float *p,
                         const te_float *dp, te_float *dx, int accumulate);
    void (*softmax_columns)(int64_t keys, int64_t columns, int64_t seen, te_float factor,
                            te_float *s);
    void (*softmax_columns_back)(int64_t keys, int64_t columns, te_float factor, const te_float *p,
                                 te_float *dp);
    te_activation_kernel activation[TE_ACT_COUNT];
    te_gated_kernel gated[TE_GATED_COUNT];
    void (*norm)(int64_t rows, int64_t n, int centred, te_float eps, const te_float *x,
                 const te_float *gain, const te_float *bias, te_float *y, te_float *stats);
    void (*norm_back)(int64_t rows, const te_norm_back *c);
    void (*rotate)(int64_t heads, int64_t n, te_float direction, const te_float *c,
                   const te_float *s, const te_float *x, te_float *y, int accumulate);
    void (*adam)(int64_t n, const te_adam_step *s, const te_float *grad, te_float *param,
                 te_float *m, te_float *v);
};

static const te_kernels *te_find_kernels(const char *name);
static const te_kernels *te_best_kernels(void);

#endif
