// out[i] = in[i], at least lo, at most hi; hi wins where lo > hi.
#if __has_include(<hip/hip_runtime.h>)
#include <hip/hip_runtime.h>
#endif

extern "C" __global__ void clip_i64(long long *out, const long long *in, long long lo, long long hi, unsigned n) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) {
    const long long raised = in[i] < lo ? lo : in[i];
    out[i] = raised > hi ? hi : raised;
  }
}
