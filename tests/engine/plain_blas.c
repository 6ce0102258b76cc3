/* plain_blas.c - a cblas_sgemm of a few lines, as strict about leading dimensions as a real one,
 * that counts its calls: what tests link where they build the engine with -DTE_BLAS. */
#include <stdlib.h>

long plain_blas_calls;

void cblas_sgemm(int order, int turn_a, int turn_b, int m, int n, int k, float alpha,
                 const float *a, int a_row, const float *b, int b_row, float beta, float *c,
                 int c_row) {
    const int turned = 112;
    plain_blas_calls++;
    if (order != 101 || a_row < (turn_a == turned ? m : k) || b_row < (turn_b == turned ? k : n) ||
        c_row < n)
        abort();
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++) {
            double sum = 0;
            for (int p = 0; p < k; p++) {
                const float u = turn_a == turned ? a[p * a_row + i] : a[i * a_row + p];
                const float v = turn_b == turned ? b[j * b_row + p] : b[p * b_row + j];
                sum += (double)u * (double)v;
            }
            float *at = &c[i * c_row + j];
            *at = alpha * (float)sum + (beta == 0 ? 0 : beta * *at);
        }
    }
}
