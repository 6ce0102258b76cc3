/* blas.c - large matrix products by a BLAS library, in builds that ask for it:
 *     cc -O2 -DTE_BLAS program.c engine.c -lopenblas -lm        its cblas_sgemm (double:
 * cblas_dgemm) cc -O2 -DTE_BLAS=scipy_cblas_sgemm ...                    under another name Small
 * products, and those whose rows overlap, stay with the engine's own kernels. How many threads work
 * then, and in which order sums are taken, is the library's business. */
#include "internal.h"
#include "kernels.h"

#ifdef TE_BLAS
#if TE_BLAS + 0 != 1
#define TE_BLAS_GEMM TE_BLAS
#elif defined(TE_DOUBLE)
#define TE_BLAS_GEMM cblas_dgemm
#else
#define TE_BLAS_GEMM cblas_sgemm
#endif
#define TE_BLAS_TEXT_(name) #name
#define TE_BLAS_TEXT(name)  TE_BLAS_TEXT_(name)

/* Numbers of <cblas.h>, which not every library comes with. */
enum { TE_BLAS_ROW_MAJOR = 101, TE_BLAS_PLAIN = 111, TE_BLAS_TURNED = 112 };
void TE_BLAS_GEMM(int order, int turn_a, int turn_b, int m, int n, int k, te_float alpha,
                  const te_float *a, int a_row, const te_float *b, int b_row, te_float beta,
                  te_float *c, int c_row);

/* From about this many products on, a call repays itself. */
enum { TE_BLAS_PRODUCTS = 1 << 17 };

const char *te_blas(void) {
    return TE_BLAS_TEXT(TE_BLAS_GEMM);
}

/* How BLAS sees a matrix [rows, columns] of these strides: rows of stride `leading`, or the same of
 * its transpose. 0: not at all. */
static int te_blas_layout(int64_t rows, int64_t columns, int64_t row, int64_t column, int *turned,
                          int *leading) {
    const int plain = column == 1 && (row >= columns || rows == 1);
    const int turns = row == 1 && (column >= rows || columns == 1);
    const int64_t least = plain ? columns : rows;
    int64_t stride = plain ? row : column;
    if (stride < least) stride = least; /* of a single row, which has none that matters */
    *turned = plain ? TE_BLAS_PLAIN : TE_BLAS_TURNED;
    *leading = (int)stride;
    return (plain || turns) && rows <= INT32_MAX && columns <= INT32_MAX && stride <= INT32_MAX;
}

/* 1: the library made the product. */
static int te_blas_product(te_ctx *ctx, const te_gemm *g) {
    int a_turned, a_row, b_turned, b_row;
    if ((double)g->m * (double)g->n * (double)g->k < TE_BLAS_PRODUCTS ||
        (g->accumulate && (g->row_scale || g->bias)) || g->c_row > INT32_MAX ||
        !te_blas_layout(g->m, g->k, g->a_row, g->a_col, &a_turned, &a_row) ||
        !te_blas_layout(g->k, g->n, g->b_row, g->b_col, &b_turned, &b_row))
        return 0;
    TE_BLAS_GEMM(TE_BLAS_ROW_MAJOR, a_turned, b_turned, (int)g->m, (int)g->n, (int)g->k, 1, g->a,
                 a_row, g->b, b_row, g->accumulate ? 1 : 0, g->c, (int)g->c_row);
    for (int64_t i = 0; i < g->m && (g->row_scale || g->bias); i++) {
        te_float *row = g->c + i * g->c_row;
        if (g->row_scale) ctx->kernels->scale(g->n, g->row_scale[i], row, row);
        if (g->bias) ctx->kernels->add(g->n, row, g->bias, row);
    }
    return 1;
}
#else
const char *te_blas(void) {
    return "";
}

static int te_blas_product(te_ctx *ctx, const te_gemm *g) {
    (void)ctx;
    (void)g;
    return 0;
}
#endif
