/* Cryptography: SHA-256 (FIPS 180-4) of one megabyte, rotations and additions of 32-bit integers. */
#include "bench.h"

#define BYTES (1 * 1024 * 1024)

static const uint32_t constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint8_t message[BYTES + 64];

static void prepare(void) {
  uint64_t state = 3;
  for (int at = 0; at < BYTES; at++) message[at] = (uint8_t)(bench_random(&state) >> 56);
  message[BYTES] = 0x80;
  for (int byte = 0; byte < 8; byte++) message[BYTES + 63 - byte] = (uint8_t)((uint64_t)BYTES * 8 >> 8 * byte);
}

static inline uint32_t rotate(uint32_t word, int by) { return word >> by | word << (32 - by); }

static inline uint32_t schedule(uint32_t words[16], int i) {
  uint32_t first = words[(i + 1) & 15], second = words[(i + 14) & 15];
  return words[i & 15] += (rotate(first, 7) ^ rotate(first, 18) ^ first >> 3) + words[(i + 9) & 15] +
                          (rotate(second, 17) ^ rotate(second, 19) ^ second >> 10);
}

static void compress(uint32_t hash[8], const uint8_t *block) {
  uint32_t words[16];
  for (int i = 0; i < 16; i++, block += 4)
    words[i] = (uint32_t)block[0] << 24 | (uint32_t)block[1] << 16 | (uint32_t)block[2] << 8 | block[3];
  uint32_t a = hash[0], b = hash[1], c = hash[2], d = hash[3], e = hash[4], f = hash[5], g = hash[6], h = hash[7];
  for (int i = 0; i < 64; i++) {
    uint32_t word = i < 16 ? words[i] : schedule(words, i);
    uint32_t one = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + constants[i] + word;
    uint32_t two = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + one, d = c, c = b, b = a, a = one + two;
  }
  hash[0] += a, hash[1] += b, hash[2] += c, hash[3] += d, hash[4] += e, hash[5] += f, hash[6] += g, hash[7] += h;
}

static uint64_t kernel(void) {
  uint32_t hash[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  for (int at = 0; at < BYTES + 64; at += 64) compress(hash, message + at);
  return (uint64_t)hash[0] << 32 | hash[1];
}
