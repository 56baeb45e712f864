/* Compression: greedy LZ77 over text, byte loads, a hash table of positions, and branches that are hard to foresee. */
#include "bench.h"

#define BYTES (2 * 1024 * 1024)
#define WORDS 512
#define HASH_BITS 15
#define WINDOW 65535
#define LEAST 4
#define LONGEST 255

static uint8_t text[BYTES];
static uint32_t heads[1 << HASH_BITS];

/* Words of a made-up vocabulary, the common ones more often, as in a language. */
static void prepare(void) {
  uint64_t state = 4;
  uint8_t words[WORDS][12];
  for (int word = 0; word < WORDS; word++) {
    uint64_t letters = bench_random(&state);
    int length = 2 + (int)(letters % 9);
    for (int at = 0; at < 12; at++, letters = letters >> 5 | letters << 59)
      words[word][at] = at < length ? (uint8_t)('a' + letters % 26) : at == length ? ' ' : 0;
  }
  for (int at = 0; at < BYTES;) {
    uint64_t choice = bench_random(&state);
    const uint8_t *word = words[(choice >> 32) % WORDS * ((choice & 0xffffffff) % WORDS) / WORDS];
    for (int letter = 0; letter < 12 && word[letter] && at < BYTES; letter++) text[at++] = word[letter];
  }
}

static inline uint32_t four(uint32_t at) {
  uint32_t value;
  __builtin_memcpy(&value, text + at, 4);
  return value;
}

static uint64_t kernel(void) {
  for (int slot = 0; slot < 1 << HASH_BITS; slot++) heads[slot] = 0;
  uint64_t sum = 0;
  uint32_t at = 1;
  while (at + LEAST <= BYTES) {
    uint32_t next = four(at), slot = next * 2654435761u >> (32 - HASH_BITS);
    uint32_t before = heads[slot], length = 0;
    heads[slot] = at;
    if (before && at - before <= WINDOW && four(before) == next) {
      uint32_t most = BYTES - at < LONGEST ? BYTES - at : LONGEST;
      length = LEAST;
      while (length < most && text[before + length] == text[at + length]) length++;
    }
    sum = bench_mix(sum, length ? (uint64_t)(at - before) << 8 | length : text[at]);
    at += length ? length : 1;
  }
  return sum;
}
