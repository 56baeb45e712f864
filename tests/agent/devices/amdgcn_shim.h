// The part of HIP's device language that the catalogue's kernels use, on clang's AMDGPU builtins: it stands in for
// ROCm's headers, so that a machine without ROCm can compile the kernels for a real GPU.
#pragma once

#define __global__ __attribute__((global))
#define __device__ __attribute__((device))

struct thread_index {
  __device__ operator unsigned() const { return __builtin_amdgcn_workitem_id_x(); }
};
struct block_index {
  __device__ operator unsigned() const { return __builtin_amdgcn_workgroup_id_x(); }
};
struct block_size {
  __device__ operator unsigned() const { return __builtin_amdgcn_workgroup_size_x(); }
};

static constexpr struct {
  thread_index x;
} threadIdx{};
static constexpr struct {
  block_index x;
} blockIdx{};
static constexpr struct {
  block_size x;
} blockDim{};

inline __device__ unsigned long long atomicAdd(unsigned long long *address, unsigned long long value) {
  return __hip_atomic_fetch_add(address, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}
