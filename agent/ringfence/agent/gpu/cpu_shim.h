// The part of HIP's device language that the catalogue's kernels use, for a CPU that runs one thread after the other.
#pragma once

#define __global__

struct ringfence_index {
  unsigned x;
};

static ringfence_index threadIdx;
static ringfence_index blockIdx;
static ringfence_index blockDim;

static inline unsigned long long atomicAdd(unsigned long long *address, unsigned long long value) {
  const unsigned long long before = *address;
  *address = before + value;
  return before;
}
