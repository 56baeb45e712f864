// out[i] = a * in[i] + b for i < n, rounded twice: a fused multiply-add would differ from device to device.
#if __has_include(<hip/hip_runtime.h>)
#include <hip/hip_runtime.h>
#endif

extern "C" __global__ void affine_f64(double *out, const double *in, double a, double b, unsigned n) {
#pragma clang fp contract(off)
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) {
    out[i] = a * in[i] + b;
  }
}
