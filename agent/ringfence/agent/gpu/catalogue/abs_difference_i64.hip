// out[i] = |in[i] - centre| for i < n, modulo 2^64: unsigned, because signed overflow is undefined.
#if __has_include(<hip/hip_runtime.h>)
#include <hip/hip_runtime.h>
#endif

extern "C" __global__ void abs_difference_i64(long long *out, const long long *in, long long centre, unsigned n) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) {
    const unsigned long long value = static_cast<unsigned long long>(in[i]);
    const unsigned long long middle = static_cast<unsigned long long>(centre);
    out[i] = static_cast<long long>(in[i] < centre ? middle - value : value - middle);
  }
}
