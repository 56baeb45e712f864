/* Bit manipulation: a sieve of Eratosthenes of one bit a number, and a count of what it leaves. */
#include "bench.h"

#define NUMBERS (2 * 1024 * 1024)

static uint64_t composite[NUMBERS / 64];

static void prepare(void) {}

static uint64_t kernel(void) {
  for (uint32_t word = 0; word < NUMBERS / 64; word++) composite[word] = 0;
  composite[0] = 3;
  for (uint32_t number = 2; number * number < NUMBERS; number++) {
    if (composite[number >> 6] >> (number & 63) & 1) continue;
    for (uint32_t multiple = number * number; multiple < NUMBERS; multiple += number)
      composite[multiple >> 6] |= (uint64_t)1 << (multiple & 63);
  }
  uint32_t primes = 0, last = 0, widest = 0;
  for (uint32_t word = 0; word < NUMBERS / 64; word++)
    for (uint64_t left = ~composite[word]; left; left &= left - 1) {
      uint32_t prime = word * 64 + (uint32_t)__builtin_ctzll(left);
      if (prime - last > widest) widest = prime - last;
      last = prime, primes++;
    }
  return (uint64_t)primes << 32 | widest;
}
