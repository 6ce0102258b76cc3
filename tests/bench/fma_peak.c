/* fma_peak.c - multiply-adds of one core that wait for nothing: what no matrix product can exceed.
 *     cc -O2 -march=native -ffp-contract=fast -shared -fPIC fma_peak.c -o fma_peak.so */

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif

/* Sums side by side, more than a multiply-add takes cycles on two pipes, fewer than registers. */
enum { SUMS = 12, LANES = BYTES / (int)sizeof(float) };

typedef float vector __attribute__((vector_size(BYTES)));

/* Floating-point operations of a round. */
int fma_peak_operations(void) {
    return 2 * SUMS * LANES;
}

/* Makes `rounds` of them; the result, which tends to 1 from any start, is of no use. */
float fma_peak(long rounds) {
    vector sum[SUMS], keep = (vector){0} + 0.999f, rest = (vector){0} + 0.001f;
    for (int i = 0; i < SUMS; i++) sum[i] = (vector){0} + (float)i;
    for (long n = 0; n < rounds; n++)
#if defined(__clang__)
#pragma clang loop unroll(full)
#else
#pragma GCC unroll 12
#endif
        for (int i = 0; i < SUMS; i++) sum[i] = sum[i] * keep + rest;
    for (int i = 1; i < SUMS; i++) sum[0] += sum[i];
    return sum[0][0];
}
