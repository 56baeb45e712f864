/* Dense linear algebra: the product of two square matrices of 32-bit floats, two rows and sixteen columns at a time, so
 * that sums stay in registers. Written with vectors of 128 bits, as such code is. */
#include "bench.h"

#define SIDE 256
#define PRODUCTS 4
#define LANES 4
#define DOWN 2
#define ACROSS 4

typedef float lanes __attribute__((vector_size(16)));

static float left[SIDE][SIDE];
static lanes right[SIDE][SIDE / LANES], product[SIDE][SIDE / LANES];

static void prepare(void) {
  uint64_t state = 1;
  for (int row = 0; row < SIDE; row++)
    for (int column = 0; column < SIDE; column++) {
      left[row][column] = (float)(bench_random(&state) >> 40) * 0x1p-24f;
      right[row][column / LANES][column % LANES] = (float)(bench_random(&state) >> 40) * 0x1p-24f;
    }
}

static void multiply_tile(int row, int column) {
  lanes sums[DOWN][ACROSS] = {0};
  for (int step = 0; step < SIDE; step++)
    for (int down = 0; down < DOWN; down++)
      for (int across = 0; across < ACROSS; across++)
        sums[down][across] += left[row + down][step] * right[step][column + across];
  for (int down = 0; down < DOWN; down++)
    for (int across = 0; across < ACROSS; across++) product[row + down][column + across] = sums[down][across];
}

static uint64_t kernel(void) {
  uint64_t sum = 0;
  for (int turn = 0; turn < PRODUCTS; turn++) {
    for (int row = 0; row < SIDE; row += DOWN)
      for (int column = 0; column < SIDE / LANES; column += ACROSS) multiply_tile(row, column);
    for (int row = 0; row < SIDE; row++) sum = bench_mix(sum, bench_bits(product[row][row / LANES][row % LANES]));
    left[0][0] = product[turn][turn][0] * 0x1p-8f;
  }
  return sum;
}
