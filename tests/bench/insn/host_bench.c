/* host_bench.c - microseconds of a ternary layer on this computer: quantising N activations, the
 * N x N product and scaling, best of many runs. Usage: host_bench N; prints the time. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/tr_kernels.h"

enum { RUNS = 400 };

static double now_us(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static void *aligned_bytes(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!p) exit(2);
    return p;
}

int main(int argc, char **argv) {
    uint32_t n = argc == 2 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0;
    if (n == 0 || n % 64) return 2;
    uint8_t *w = aligned_bytes(n * n / 4);
    float *x = aligned_bytes(4 * n), *y = aligned_bytes(4 * n);
    int8_t *q = aligned_bytes(n);
    void *scratch = aligned_bytes(2 * n + 1408);
    for (uint32_t k = 0; k < n * n / 4; ++k) {
        w[k] = 0;
        for (unsigned f = 0; f < 8; f += 2) w[k] = (uint8_t)(w[k] | rand() % 3 << f);
    }
    for (uint32_t k = 0; k < n; ++k) x[k] = (float)(rand() % 2001 - 1000);

    uint32_t repeats = 1 + 1000000 / (n * n);
    double best = 1e30;
    for (int run = 0; run < RUNS; ++run) {
        double start = now_us();
        for (uint32_t k = 0; k < repeats; ++k) {
            float s = tr_kernel_largest(x, n, 1e-5f);
            tr_kernel_quantize8(q, x, n, 127.0f / s);
            tr_kernel_forward(w, q, (tr_i32 *)(void *)y, n, n, scratch);
            tr_kernel_scale(y, (tr_i32 *)(void *)y, n, s / 127.0f);
        }
        double each = (now_us() - start) / repeats;
        if (each < best) best = each;
    }
    printf("%.3f\n", best);
    return 0;
}
