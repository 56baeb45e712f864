/* Simulation: bodies under gravity, every one drawn by every other, 64-bit floats with square roots and divisions.
 * Written with vectors of 128 bits, as such code is; forces are softened, so that no body flies off. */
#include "bench.h"

#define LANES 2
#define BODIES 256
#define STEPS 40
#define TIME 0x1p-10
#define SOFTENING 0x1p-6

typedef double lanes __attribute__((vector_size(16)));

typedef struct {
  lanes at[3], speed[3], mass;
} bodies;

static bodies all[BODIES / LANES];

static void prepare(void) {
  uint64_t state = 6;
  for (int which = 0; which < BODIES; which++) {
    bodies *pair = &all[which / LANES];
    for (int axis = 0; axis < 3; axis++) {
      pair->at[axis][which % LANES] = (double)(bench_random(&state) >> 11) * 0x1p-53;
      pair->speed[axis][which % LANES] = 0;
    }
    pair->mass[which % LANES] = (double)(bench_random(&state) >> 11) * 0x1p-61;
  }
}

static inline lanes roots(lanes squares) {
  return (lanes){__builtin_sqrt(squares[0]), __builtin_sqrt(squares[1])};
}

static void draw(int which) {
  bodies *own = &all[which / LANES];
  int lane = which % LANES;
  double x = own->at[0][lane], y = own->at[1][lane], z = own->at[2][lane];
  lanes pull[3] = {0};
  for (int other = 0; other < BODIES / LANES; other++) {
    lanes far[3] = {all[other].at[0] - x, all[other].at[1] - y, all[other].at[2] - z};
    lanes squared = far[0] * far[0] + far[1] * far[1] + far[2] * far[2] + SOFTENING;
    lanes weight = all[other].mass / (squared * roots(squared));
    for (int axis = 0; axis < 3; axis++) pull[axis] += far[axis] * weight;
  }
  for (int axis = 0; axis < 3; axis++) own->speed[axis][lane] += TIME * (pull[axis][0] + pull[axis][1]);
}

static uint64_t kernel(void) {
  for (int step = 0; step < STEPS; step++) {
    for (int which = 0; which < BODIES; which++) draw(which);
    for (int pair = 0; pair < BODIES / LANES; pair++)
      for (int axis = 0; axis < 3; axis++) all[pair].at[axis] += TIME * all[pair].speed[axis];
  }
  uint64_t sum = 0;
  for (int pair = 0; pair < BODIES / LANES; pair++) sum = bench_mix(sum, bench_bits(all[pair].at[0][0]));
  return sum;
}
