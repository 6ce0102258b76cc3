/* kernel_cases.c - holds the ternary kernels of this build to their plain definition, bit for bit,
 * on made-up matrices: every column count up to 200, odd rows, sums at their bounds, guard bytes
 * around every buffer. Runs on a host and on the emulated boards; prints one checksum of all
 * results, the same everywhere. */
#include "guest.h"
#include "kernels/tr_kernels.h"

/* WEIGHT_BYTES bounds the matrices; the 16 KB of a Cortex-M0 board need it small. */
#ifndef WEIGHT_BYTES
#define WEIGHT_BYTES 4096
#endif

enum { MAX_COLS = 1024, MAX_ROWS = 640, GUARD = 16, GUARD_BYTE = 0xA5 };

/* Patterns of a case: random; sums at the bounds, both signs; only zero trits; inputs at their
 * bounds with random trits. */
enum { RANDOM, ALL_UP, ALL_DOWN, ALTERNATING, ZEROS, EXTREME, PATTERNS };

#define ALIGNED __attribute__((aligned(16)))

static uint8_t weights[WEIGHT_BYTES] ALIGNED;
static int8_t x[MAX_COLS] ALIGNED;
static int16_t e[MAX_ROWS + 8] ALIGNED;
static int32_t expected[MAX_ROWS] ALIGNED;
static uint8_t sums[4 * MAX_ROWS + 2 * GUARD] ALIGNED;
static uint8_t scratch[2 * MAX_COLS + 2 * GUARD] ALIGNED;
static uint32_t state = 1, checksum = 2166136261u;
static int failures;

static uint32_t random_u32(void) {
    state ^= state << 13;
    state ^= state >> 17;
    return state ^= state << 5;
}

static void fail(const char *what, uint32_t rows, uint32_t cols, uint32_t pattern) {
    if (++failures > 10) return;
    say("FAIL ");
    say(what);
    say_number(": rows ", rows, "");
    say_number(" cols ", cols, "");
    say_number(" pattern ", pattern, "\n");
}

static void add_to_checksum(const void *data, uint32_t bytes) {
    const uint8_t *p = data;
    while (bytes--) checksum = (checksum ^ *p++) * 16777619u; /* FNV-1a */
}

static int guarded(const uint8_t *p) {
    for (uint32_t k = 0; k < GUARD; ++k)
        if (p[k] != GUARD_BYTE) return 0;
    return 1;
}

static int32_t trit(uint32_t pattern) {
    if (pattern == ZEROS) return 0;
    if (pattern == ALL_UP) return 1;
    if (pattern == ALL_DOWN) return -1;
    return (int32_t)(random_u32() % 3) - 1;
}

/* Writes a matrix in the layout WU; padding is zero trits. ALTERNATING takes the sign of the input
 * it meets: of x when `transposed` is 0, else of e. */
static void make_weights(uint32_t rows, uint32_t cols, uint32_t pattern, int transposed) {
    uint32_t cols16 = (cols + 15) / 16 * 16, rows8 = (rows + 7) / 8 * 8;
    uint8_t *p = weights;
    for (uint32_t first = 0; first < cols16; first += TR_PANEL) {
        uint32_t left = cols16 - first, pitch = (left < TR_PANEL ? left : TR_PANEL) / 4;
        for (uint32_t r = 0; r < rows8; ++r) {
            for (uint32_t b = 0; b < pitch; ++b, ++p) {
                *p = 0;
                for (uint32_t k = 0; k < 4; ++k) {
                    uint32_t c = first + pitch * k + b;
                    int32_t w = 0;
                    if (r < rows && c < cols) {
                        w = trit(pattern);
                        if (pattern == ALTERNATING) w = (transposed ? e[r] : x[c]) < 0 ? -1 : 1;
                    }
                    *p = (uint8_t)(*p | (uint32_t)(1 - w) << (2 * k));
                }
            }
        }
    }
}

static int32_t input(uint32_t pattern, int32_t bound) {
    if (pattern == ALL_UP || pattern == ALL_DOWN) return bound;
    if (pattern == ALTERNATING || pattern == EXTREME) return random_u32() & 64 ? bound : -bound;
    return (int32_t)(random_u32() % (uint32_t)(2 * bound + 1)) - bound;
}

typedef void forward(const uint8_t *, const int8_t *, tr_i32 *, uint32_t, uint32_t, void *);
#if defined(TR_KERNELS_DSP)
/* Recodes the matrix in place from WU to WD. */
static void merge_rows(uint32_t rows, uint32_t cols) {
    uint32_t cols16 = (cols + 15) / 16 * 16, rows8 = (rows + 7) / 8 * 8;
    tr_u32 *p = (tr_u32 *)(void *)weights;
    for (uint32_t first = 0; first < cols16; first += TR_PANEL) {
        uint32_t left = cols16 - first, words = (left < TR_PANEL ? left : TR_PANEL) / 16;
        for (uint32_t r = 0; r < rows8; r += 2, p += 2 * words) {
            for (uint32_t k = 0; k < words; ++k) {
                uint32_t odd = p[words + k] ^ 0x55555555u;
                odd = odd >> 18 | odd << 14;
                uint32_t swap = (p[k] ^ odd) & 0xCCCCCCCCu;
                p[k] ^= swap;
                p[words + k] = odd ^ swap;
            }
        }
    }
}

#endif

typedef void transposed(const uint8_t *, const tr_i16 *, tr_i32 *, uint32_t, uint32_t, void *);

static void check_forward(forward *kernel, uint32_t rows, uint32_t cols, uint32_t pattern) {
    uint32_t pad64 = (cols + 63) / 64 * 64, bytes = 2 * pad64 > 1408 ? 2 * pad64 : 1408;
    memset(sums, GUARD_BYTE, sizeof sums);
    memset(scratch, GUARD_BYTE, sizeof scratch);
    tr_i32 *acc = (tr_i32 *)(void *)(sums + GUARD);
    kernel(weights, x, acc, rows, cols, scratch + GUARD);
    if (memcmp(acc, expected, 4 * rows)) fail("forward", rows, cols, pattern);
    if (!guarded(sums) || !guarded(sums + GUARD + 4 * rows)) fail("sums", rows, cols, pattern);
    if (!guarded(scratch) || !guarded(scratch + GUARD + bytes))
        fail("scratch", rows, cols, pattern);
}

static void test_forward(uint32_t rows, uint32_t cols, uint32_t pattern) {
    memset(x, 0, sizeof x);
    for (uint32_t c = 0; c < cols; ++c) x[c] = (int8_t)input(pattern, 127);
    make_weights(rows, cols, pattern, 0);
    tr_kernel_forward_plain(weights, x, (tr_i32 *)(void *)expected, rows, cols);
    check_forward(tr_kernel_forward, rows, cols, pattern);
    check_forward(tr_kernel_forward_portable, rows, cols, pattern);
#if defined(TR_KERNELS_DSP)
    merge_rows(rows, cols);
    check_forward(tr_kernel_forward_wd, rows, cols, pattern);
#endif
    add_to_checksum(expected, 4 * rows);
}

static void check_transposed(transposed *kernel, const uint8_t *panel, uint32_t rows8,
                             uint32_t pitch, uint32_t pattern) {
    memset(sums, GUARD_BYTE, sizeof sums);
    memset(scratch, GUARD_BYTE, sizeof scratch);
    tr_i32 *acc = (tr_i32 *)(void *)(sums + GUARD);
    kernel(panel, (const tr_i16 *)(const void *)e, acc, rows8, pitch, scratch + GUARD);
    if (memcmp(acc, expected, 16 * pitch)) fail("transposed", rows8, 4 * pitch, pattern);
    if (!guarded(sums) || !guarded(sums + GUARD + 16 * pitch))
        fail("transposed sums", rows8, 4 * pitch, pattern);
    if (!guarded(scratch) || !guarded(scratch + GUARD + TR_TRANSPOSED_SCRATCH))
        fail("transposed scratch", rows8, 4 * pitch, pattern);
}

static void test_transposed(uint32_t rows, uint32_t cols, uint32_t pattern) {
    uint32_t cols16 = (cols + 15) / 16 * 16, rows8 = (rows + 7) / 8 * 8;
    memset(e, 0, sizeof e);
    for (uint32_t r = 0; r < rows; ++r) e[r] = (int16_t)input(pattern, 32767);
    for (uint32_t r = 0; r < 8; ++r) e[rows8 + r] = 0x5A5A; /* the scale of a q16 row: not read */
    make_weights(rows, cols, pattern, 1);
    const uint8_t *panel = weights;
    for (uint32_t first = 0; first < cols16; first += TR_PANEL) {
        uint32_t left = cols16 - first, pitch = (left < TR_PANEL ? left : TR_PANEL) / 4;
        const tr_i16 *errors = (const tr_i16 *)(const void *)e;
        tr_kernel_transposed_plain(panel, errors, (tr_i32 *)(void *)expected, rows8, pitch);
        check_transposed(tr_kernel_transposed, panel, rows8, pitch, pattern);
        check_transposed(tr_kernel_transposed_portable, panel, rows8, pitch, pattern);
        add_to_checksum(expected, 16 * pitch);
        panel += rows8 * pitch;
    }
}

static int same_float(float a, float b) {
    return tr_bits(a) == tr_bits(b) || (a != a && b != b);
}

/* Scaling against the two float operations, over sizes of sums and of scales, in place as well. */
static void test_scale(uint32_t turn) {
    enum { COUNT = 37 };
    float scaled[COUNT], apart[COUNT];
    tr_i32 *acc = (tr_i32 *)(void *)sums;
    uint32_t bits = random_u32() >> 1;
    if (turn % 4) bits = (bits & 0x007FFFFF) | (100 + random_u32() % 30) << 23;
    if (turn % 8 == 1) bits &= 0xFFF00000; /* few bits: products on the tie */
    if (turn % 8 == 3) bits &= 0x01FFFFFF; /* denormal scales and products */
    float scale = tr_from_bits(bits);
    for (uint32_t k = 0; k < COUNT; ++k) {
        uint32_t value = random_u32();
        acc[k] = (int32_t)value >> value % 31;
        if (k == 0) acc[k] = 0;
        if (k == 1) acc[k] = INT32_MIN;
        if (k == 2) acc[k] = INT32_MAX;
        if (k > 20) acc[k] >>= 16;
        if (turn % 8 == 1) acc[k] = (int32_t)((uint32_t)acc[k] & 0xFFFFF000u) >> (k & 15);
    }
    for (uint32_t k = 0; k < COUNT; ++k) scaled[k] = (float)acc[k] * scale;
    tr_kernel_scale(apart, acc, COUNT, scale);
    tr_kernel_scale((float *)(void *)sums, acc, COUNT, scale);
    for (uint32_t k = 0; k < COUNT; ++k) {
        float in_place = ((float *)(void *)sums)[k];
        if (!same_float(apart[k], scaled[k])) fail("scale", k, bits, turn);
        if (!same_float(in_place, scaled[k])) fail("scale in place", k, bits, turn);
    }
}

/* Quantising against the float operations: ties, neighbours of ties, zeros, denormal and tiny
 * numbers, NaN; factors from usual to extreme. */
static void test_quantize(uint32_t turn) {
    enum { COUNT = 67 };
    static float values[COUNT];
    static int8_t q8[COUNT], expected8[COUNT];
    static tr_i16 q16[COUNT], expected16[COUNT];
    float bound = turn % 5 == 0
                      ? 127.0f
                      : tr_from_bits((20 + random_u32() % 210) << 23 | (random_u32() >> 9));
    for (uint32_t k = 0; k < COUNT; ++k) {
        int32_t step = (int32_t)(random_u32() % 509) - 254;
        values[k] =
            (float)step * (bound / 254.0f); /* at factor 1: halves, so every other is a tie */
        if (k % 3 == 1) values[k] = tr_from_bits(tr_bits(values[k]) + random_u32() % 3 - 1);
        if (k % 3 == 2) values[k] = (float)(int32_t)random_u32() / 2147483648.0f * bound;
        if (k % 13 == 3) values[k] = tr_from_bits(random_u32() & 0x807FFFFFu);
        if (!(values[k] <= bound && values[k] >= -bound)) values[k] = bound;
    }
    values[5] = -0.0f;
    if (turn % 50 == 7) values[9] = tr_from_bits(0x7FC00000);
    float largest = tr_kernel_largest(values, COUNT, 1e-30f);
    if (!same_float(largest, tr_kernel_largest_portable(values, COUNT, 1e-30f)))
        fail("largest", COUNT, 0, turn);
    tr_kernel_quantize8(q8, values, COUNT, 127.0f / largest);
    tr_kernel_quantize8_portable(expected8, values, COUNT, 127.0f / largest);
    tr_kernel_quantize16(q16, values, COUNT, 32767.0f / largest);
    tr_kernel_quantize16_portable(expected16, values, COUNT, 32767.0f / largest);
    if (memcmp(q8, expected8, sizeof q8)) fail("quantize8", COUNT, tr_bits(bound), turn);
    if (memcmp(q16, expected16, sizeof q16)) fail("quantize16", COUNT, tr_bits(bound), turn);
    add_to_checksum(q8, sizeof q8);
    add_to_checksum(q16, sizeof q16);
}

static int fits(uint32_t rows, uint32_t cols) {
    return (rows + 7) / 8 * 8 * ((cols + 15) / 16 * 4) <= WEIGHT_BYTES;
}

int main(void) {
    static const uint16_t some_rows[] = {1, 2, 3, 5, 7, 8, 9, 12, 13, 15, 16, 17, 23, 24, 33, 40};
    for (uint32_t cols = 1; cols <= 200; ++cols) {
        for (uint32_t k = 0; k < 3; ++k) {
            uint32_t rows = some_rows[(cols * 5 + k * 7) % 16];
            test_forward(rows, cols, (cols + 2 * k) % PATTERNS);
            test_transposed(rows, cols, (cols + 2 * k + 1) % PATTERNS);
        }
    }
    static const uint16_t shapes[][2] = {{128, 128}, {300, 48}, {600, 16}, {16, 1000}, {256, 256},
                                         {96, 520},  {636, 80}, {8, 64},   {64, 64}};
    for (uint32_t k = 0; k < sizeof shapes / sizeof shapes[0]; ++k) {
        if (!fits(shapes[k][0], shapes[k][1])) continue;
        for (uint32_t pattern = 0; pattern < PATTERNS; ++pattern) {
            test_forward(shapes[k][0], shapes[k][1], pattern);
            test_transposed(shapes[k][0], shapes[k][1], pattern);
        }
    }
    for (uint32_t turn = 0; turn < 400; ++turn) {
        test_scale(turn);
        test_quantize(turn);
    }
    say_number("checksum ", checksum, "\n");
    say(failures ? "failed\n" : "ok\n");
    return failures != 0;
}
