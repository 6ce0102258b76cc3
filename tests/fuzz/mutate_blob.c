/* mutate_blob.c - drives fuzz_blob.c with random damage to a good blob: `mutate_blob blob count
 * seed`. Most of it goes where directories and programs are. Prints how many damaged blobs were
 * accepted and run. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
extern unsigned long fuzz_accepted;

static uint64_t state;

static uint32_t draw(uint32_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % below;
}

static uint32_t interesting(const uint8_t *blob, uint32_t size) {
    static const uint32_t values[] = {0,          1,          2,          0xFFFFFFFF, 0x7FFFFFFF,
                                      0x80000000, 0x0FFFFFFF, 0x10000000, 0x7F800000, 0x00010000,
                                      0x20000000, 0x30000000, 0x40000000, 0x60000000, 0xFFFF};
    uint32_t word;
    if (draw(2)) return values[draw(sizeof values / sizeof values[0])];
    memcpy(&word, blob + 4 * draw(size / 4), 4);
    return draw(2) ? word : word + draw(65) - 32;
}

static void damage(uint8_t *blob, uint32_t size) {
    uint32_t head = size < 4096 ? size : 4096, reach = draw(8) ? head : size;
    uint32_t at = draw(reach - 40), word = interesting(blob, size);
    switch (draw(6)) {
    case 0:
        blob[at] ^= (uint8_t)(1u << draw(8));
        break;
    case 1:
        blob[at] = (uint8_t)draw(256);
        break;
    case 2:
        memcpy(blob + at / 2 * 2, &word, 2);
        break;
    case 3:
        memcpy(blob + at / 4 * 4, &word, 4);
        break;
    case 4:
        memmove(blob + at / 8 * 8, blob + draw(size / 8 - 5) * 8, 40);
        break;
    default:
        memcpy(blob + at / 4 * 4, blob + draw(size / 4) * 4, 4);
        break;
    }
}

int main(int argc, char **argv) {
    FILE *file = argc == 4 ? fopen(argv[1], "rb") : NULL;
    if (!file) return 2;
    static uint8_t good[1 << 20], bad[1 << 20];
    uint32_t size = (uint32_t)fread(good, 1, sizeof good, file);
    fclose(file);
    unsigned long count = strtoul(argv[2], NULL, 10);
    state = 0x9E3779B97F4A7C15u ^ strtoull(argv[3], NULL, 10);
    for (unsigned long n = 0; n < count; ++n) {
        memcpy(bad, good, size);
        for (uint32_t k = 1 + draw(n % 2 ? 8 : 1); k; --k) damage(bad, size);
        LLVMFuzzerTestOneInput(bad, draw(16) ? size : 16 + draw(size / 16) * 16);
    }
    printf("%lu\n", fuzz_accepted);
    return 0;
}
