/* tr_hash.c - CRC-32 against accidents, SHA-256 (FIPS 180-4) for identity. */
#include "tr_internal.h"

/* Reflected polynomial 0xEDB88320, four bits a step: 64 bytes of table instead of 1024. */
uint32_t tr_crc32(uint32_t crc, const void *data, uint32_t bytes) {
    static const uint32_t table[16] = {
        0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4,
        0x4DB26158, 0x5005713C, 0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C,
        0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
    };
    const uint8_t *p = data;
    crc = ~crc;
    while (bytes--) {
        crc ^= *p++;
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

/* First 32 bits of the fractional parts of the cube roots of the first 64 primes. */
static const uint32_t sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t ror(uint32_t x, unsigned n) {
    return x >> n | x << (32 - n);
}

/* One block of 64 bytes. The message schedule is a ring of 16 words. */
static void sha256_block(uint32_t state[8], const uint8_t *p) {
    uint32_t w[16], a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (unsigned r = 0; r < 64; ++r) {
        uint32_t *x = &w[r & 15];
        if (r < 16) {
            *x = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
            p += 4;
        } else {
            uint32_t w1 = w[(r + 1) & 15], w14 = w[(r + 14) & 15];
            *x += (ror(w1, 7) ^ ror(w1, 18) ^ w1 >> 3) + w[(r + 9) & 15] +
                  (ror(w14, 17) ^ ror(w14, 19) ^ w14 >> 10);
        }
        uint32_t t1 = h + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) + ((e & f) ^ (~e & g));
        t1 += sha256_k[r] + *x;
        uint32_t t2 = (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + t1;
        d = c;
        c = b;
        b = a;
        a = t1 + t2;
    }
    const uint32_t sums[8] = {a, b, c, d, e, f, g, h};
    for (unsigned k = 0; k < 8; ++k) state[k] += sums[k];
}

void tr_sha256(const void *data, uint32_t bytes, uint8_t digest[32]) {
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    const uint8_t *p = data;
    uint32_t left = bytes;
    for (; left >= 64; left -= 64, p += 64) sha256_block(state, p);
    uint8_t tail[64] = {0};
    if (left) memcpy(tail, p, left);
    tail[left] = 0x80;
    if (left >= 56) { /* the length needs a block of its own */
        sha256_block(state, tail);
        memset(tail, 0, sizeof tail);
    }
    uint64_t bits = (uint64_t)bytes * 8;
    for (unsigned k = 0; k < 8; ++k) tail[63 - k] = (uint8_t)(bits >> (8 * k));
    sha256_block(state, tail);
    for (unsigned k = 0; k < 32; ++k) digest[k] = (uint8_t)(state[k / 4] >> (24 - 8 * (k & 3)));
}
