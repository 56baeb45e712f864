/* Scientific computing: heat spreading over a square plate, a five-point stencil of 64-bit floats. */
#include "bench.h"

#define SIDE 512
#define STEPS 30

static double plates[2][SIDE][SIDE];

static void prepare(void) {
  uint64_t state = 2;
  for (int row = 0; row < SIDE; row++)
    for (int column = 0; column < SIDE; column++)
      plates[0][row][column] = plates[1][row][column] = (double)(bench_random(&state) >> 11) * 0x1p-53;
}

static void spread(double (*restrict to)[SIDE], double (*restrict from)[SIDE]) {
  for (int row = 1; row < SIDE - 1; row++)
#pragma clang loop interleave_count(4)
    for (int column = 1; column < SIDE - 1; column++)
      to[row][column] = 0.5 * from[row][column] + 0.125 * (from[row - 1][column] + from[row + 1][column] +
                                                           from[row][column - 1] + from[row][column + 1]);
}

static uint64_t kernel(void) {
  for (int step = 0; step < STEPS; step++) spread(plates[~step & 1], plates[step & 1]);
  uint64_t sum = 0;
  for (int row = 0; row < SIDE; row++) sum = bench_mix(sum, bench_bits(plates[0][row][SIDE / 2]));
  return sum;
}
