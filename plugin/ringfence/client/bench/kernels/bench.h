/* The main program of every kernel, the same on WebAssembly and on bare Linux: no C library on either side.
 *
 * A kernel defines `prepare`, which fills its data and is not timed, and `kernel`, which does one round of work and gives
 * a checksum of it. What BENCH_SETTLE does after each round is not timed. Standard input holds the number of rounds (4 bytes, little-endian). The program prints one line a
 * round: the checksum and the nanoseconds. */
#ifndef BENCH_H
#define BENCH_H
#include <stdint.h>

#ifndef BENCH_SETTLE
#define BENCH_SETTLE()
#endif

static void prepare(void);
static uint64_t kernel(void);

typedef struct {
  void *address;
  uintptr_t bytes;
} bench_vector;

#ifdef __wasm__

#define BENCH_IMPORT(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(name)))
BENCH_IMPORT("fd_read")
int32_t bench_fd_read(int32_t stream, const bench_vector *vectors, int32_t count, uint32_t *done);
BENCH_IMPORT("fd_write")
int32_t bench_fd_write(int32_t stream, const bench_vector *vectors, int32_t count, uint32_t *done);
BENCH_IMPORT("clock_time_get") int32_t bench_clock_time_get(uint32_t clock, uint64_t precision, uint64_t *nanoseconds);

static inline void bench_read(void *address, uintptr_t bytes) {
  bench_vector vector = {address, bytes};
  uint32_t done;
  bench_fd_read(0, &vector, 1, &done);
}

static inline void bench_write(void *address, uintptr_t bytes) {
  bench_vector vector = {address, bytes};
  uint32_t done;
  bench_fd_write(1, &vector, 1, &done);
}

static inline uint64_t bench_now(void) {
  uint64_t nanoseconds;
  bench_clock_time_get(1, 1, &nanoseconds);
  return nanoseconds;
}

#define BENCH_START __attribute__((export_name("_start"))) void _start(void)
#define BENCH_END

#else

#if defined(__x86_64__)
static inline long bench_system(long number, long first, void *second, long third) {
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(first), "S"(second), "d"(third)
                   : "rcx", "r11", "memory");
  return result;
}
enum { BENCH_READ = 0, BENCH_WRITE = 1, BENCH_EXIT = 231, BENCH_CLOCK = 228 };
#define BENCH_ENTER "and $-16, %rsp\n call bench_main\n"
#elif defined(__aarch64__)
static inline long bench_system(long number, long first, void *second, long third) {
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = first;
  register void *x1 __asm__("x1") = second;
  register long x2 __asm__("x2") = third;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  return x0;
}
enum { BENCH_READ = 63, BENCH_WRITE = 64, BENCH_EXIT = 94, BENCH_CLOCK = 113 };
#define BENCH_ENTER "bl bench_main\n"
#else
#error "The kernels know the system calls of x86-64 and AArch64 only."
#endif

static inline void bench_read(void *address, uintptr_t bytes) {
  bench_system(BENCH_READ, 0, address, (long)bytes);
}

static inline void bench_write(void *address, uintptr_t bytes) {
  bench_system(BENCH_WRITE, 1, address, (long)bytes);
}

static inline uint64_t bench_now(void) {
  int64_t time[2];
  bench_system(BENCH_CLOCK, 1, time, 0);
  return (uint64_t)time[0] * 1000000000 + (uint64_t)time[1];
}

__asm__(".globl _start\n_start:\n" BENCH_ENTER);
#define BENCH_START __attribute__((used)) void bench_main(void)
#define BENCH_END bench_system(BENCH_EXIT, 0, 0, 0)

#endif

/* Data made up from a number: the generator xorshift64*. */
static inline uint64_t bench_random(uint64_t *state) {
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * 2685821657736338717u;
}

/* One step of a checksum (FNV-1a over 64-bit words). */
static inline uint64_t bench_mix(uint64_t sum, uint64_t value) { return (sum ^ value) * 1099511628211u; }

static inline uint64_t bench_bits(double value) {
  union {
    double number;
    uint64_t bits;
  } either = {value};
  return either.bits;
}

static inline char *bench_number(char *end, uint64_t value) {
  do *--end = (char)('0' + value % 10);
  while (value /= 10);
  return end;
}

/* Not inlined, and told that memory may have changed: every round does the whole of its work. */
__attribute__((noinline)) static uint64_t bench_round(void) {
  __asm__ volatile("" ::: "memory");
  return kernel();
}

BENCH_START {
  uint32_t rounds = 0;
  bench_read(&rounds, sizeof rounds);
  prepare();
  while (rounds--) {
    uint64_t started = bench_now();
    uint64_t sum = bench_round();
    uint64_t took = bench_now() - started;
    BENCH_SETTLE();
    char line[48], *end = line + sizeof line, *text = end;
    *--text = '\n';
    text = bench_number(text, took);
    *--text = ' ';
    text = bench_number(text, sum);
    bench_write(text, (uintptr_t)(end - text));
  }
  BENCH_END;
}

#endif
