// partial[block] += the block's elements of in, modulo 2^64. Integer addition commutes, so every device agrees.
// The caller gives zeroed partial sums, one for each block; fresh device memory is zero.
#if __has_include(<hip/hip_runtime.h>)
#include <hip/hip_runtime.h>
#endif

extern "C" __global__ void block_sum_i64(unsigned long long *partial, const unsigned long long *in, unsigned n) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) {
    atomicAdd(&partial[blockIdx.x], in[i]);
  }
}
