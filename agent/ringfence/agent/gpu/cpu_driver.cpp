// Runs the catalogue's kernels on the CPU: one export a kernel, which walks the grid thread by thread.
//
// The host writes a launch's arguments, 8 bytes each, where `ringfence_arguments` says, then calls `launch_<kernel>`.
// Everything from `ringfence_pool` to the end of the memory is the job's pool.
#include "cpu_shim.h"

#include "catalogue/abs_difference_i64.hip"
#include "catalogue/affine_f64.hip"
#include "catalogue/block_sum_i64.hip"
#include "catalogue/clip_i64.hip"
#include "catalogue/square_i64.hip"

using u64 = unsigned long long;

static u64 arguments[16];
extern unsigned char __heap_base;

extern "C" __attribute__((export_name("ringfence_arguments"))) u64 *ringfence_arguments() { return arguments; }
extern "C" __attribute__((export_name("ringfence_pool"))) unsigned char *ringfence_pool() { return &__heap_base; }

template <typename T> struct Argument {
  static_assert(sizeof(T) == 8, "8 raw bytes");
  static T from(u64 raw) { return __builtin_bit_cast(T, raw); }
};
template <> struct Argument<unsigned> {
  static unsigned from(u64 raw) { return static_cast<unsigned>(raw); }
};
template <typename T> struct Argument<T *> {
  static T *from(u64 raw) { return reinterpret_cast<T *>(static_cast<__UINTPTR_TYPE__>(raw)); }
};

template <unsigned... Position> struct Positions {};

template <auto Kernel> struct Launch;
template <typename... T, void (*Kernel)(T...)> struct Launch<Kernel> {
  static void run(unsigned grid, unsigned block) {
    run_at(grid, block, __make_integer_seq<Sequence, unsigned, sizeof...(T)>{});
  }

private:
  template <typename, unsigned... Position> using Sequence = Positions<Position...>;

  template <unsigned... Position> static void run_at(unsigned grid, unsigned block, Positions<Position...>) {
    call(grid, block, Argument<T>::from(arguments[Position])...);
  }

  static void call(unsigned grid, unsigned block, T... values) {
    blockDim.x = block;
    for (unsigned b = 0; b < grid; ++b) {
      for (unsigned t = 0; t < block; ++t) {
        blockIdx.x = b;
        threadIdx.x = t;
        Kernel(values...);
      }
    }
  }
};

#define KERNEL(name)                                                                                                   \
  extern "C" __attribute__((export_name("launch_" #name))) void launch_##name(unsigned grid, unsigned block) {         \
    Launch<name>::run(grid, block);                                                                                    \
  }

KERNEL(abs_difference_i64)
KERNEL(affine_f64)
KERNEL(block_sum_i64)
KERNEL(clip_i64)
KERNEL(square_i64)
