/* ringfence.h: what a guest may ask of its host. Compile for wasm32, as a command (_start) or as a reactor (main).
 * Written by tools/build_header.py.
 *
 * Asynchronous calls (host-to-device and device-to-device copies, launches, gates, checkpoints) are queued and run in
 * order at the next synchronous one: a device-to-host copy, amd_gpu_sync, amd_gpu_alloc, quantum_measure, or the end
 * of the guest. A call that cannot be meant, or that a device refuses, ends the guest with the refusal's code. */
#ifndef RINGFENCE_H
#define RINGFENCE_H

#include <stddef.h>
#include <stdint.h>

#define RINGFENCE_FROM(module, name) __attribute__((import_module(module), import_name(name)))
#define RINGFENCE_IMPORT(name) RINGFENCE_FROM("ringfence", name)

/* Directions of amd_gpu_copy. Host addresses are addresses in the guest's memory. */
#define RINGFENCE_HOST_TO_DEVICE 1
#define RINGFENCE_DEVICE_TO_HOST 2
#define RINGFENCE_DEVICE_TO_DEVICE 3

/* Gates of quantum_gate; RX, RY and RZ take an angle in radians. CX's first qubit is its control. */
#define RINGFENCE_X 0
#define RINGFENCE_Y 1
#define RINGFENCE_Z 2
#define RINGFENCE_H_GATE 3
#define RINGFENCE_S 4
#define RINGFENCE_T 5
#define RINGFENCE_RX 6
#define RINGFENCE_RY 7
#define RINGFENCE_RZ 8
#define RINGFENCE_CX 9
#define RINGFENCE_CZ 10
#define RINGFENCE_SWAP 11

/* The `qubits` argument of quantum_gate. */
#define RINGFENCE_ONE(qubit) ((uint32_t)(qubit))
#define RINGFENCE_TWO(first, second) ((uint32_t)(first) | ((uint32_t)(second) << 16))

/* Bases of quantum_measure. */
#define RINGFENCE_BASIS_Z 0
#define RINGFENCE_BASIS_X 1

/* A launch: `grid` blocks of `block` threads, and up to 16 arguments, each in 8 bytes (a float as its bits). Declare
 * one with room for its arguments: RINGFENCE_LAUNCH(4) launch = {grid, block, {a, b, c, d}}; */
#define RINGFENCE_LAUNCH(count) \
  struct {                      \
    uint32_t grid;              \
    uint32_t block;             \
    uint64_t args[count];       \
  }
typedef struct {
  uint32_t grid;
  uint32_t block;
  uint64_t args[];
} ringfence_launch;

/* Reserves zeroed device memory; 0 when the job's pool is full; `flags` is 0. */
RINGFENCE_IMPORT("amd_gpu_alloc") uint64_t amd_gpu_alloc(uint64_t bytes, uint32_t flags);

/* Copies to the device, from it, or inside it; always 0. */
RINGFENCE_IMPORT("amd_gpu_copy")
int32_t amd_gpu_copy(uint64_t destination, uint64_t source, uint64_t bytes, uint32_t direction);

/* Queues a kernel of the host's catalogue; always 0. */
RINGFENCE_IMPORT("amd_gpu_kernel_launch")
int32_t amd_gpu_kernel_launch(const char *name, const ringfence_launch *launch, uint32_t launch_bytes);

/* Waits until everything queued before has run; always 0. */
RINGFENCE_IMPORT("amd_gpu_sync") int32_t amd_gpu_sync(uint32_t stream);

/* Queues a gate on one or two qubits; always 0. */
RINGFENCE_IMPORT("quantum_gate") int32_t quantum_gate(uint32_t gate, uint32_t qubits, double angle);

/* Waits for the gates before it and measures one qubit, which collapses it: 0 or 1. */
RINGFENCE_IMPORT("quantum_measure") int32_t quantum_measure(uint32_t qubit, uint32_t basis);

/* Reports progress; the receipt counts it. */
RINGFENCE_IMPORT("security_checkpoint") void security_checkpoint(uint32_t id);

#define RINGFENCE_RUN(name, launch) \
  amd_gpu_kernel_launch((name), (const ringfence_launch *)&(launch), (uint32_t)sizeof(launch))
#define RINGFENCE_ADDRESS(pointer) ((uint64_t)(uintptr_t)(pointer))

/* The entry point of a reactor: `int32_t body(const uint8_t *input, uint32_t bytes)` gets the job's input in memory
 * and returns 0 when it has succeeded. */
#define RINGFENCE_REACTOR(body)                                                                          \
  __attribute__((export_name("main"))) int32_t ringfence_reactor(const uint8_t *input, uint32_t bytes) { \
    return body(input, bytes);                                                                           \
  }

/* For a guest without a C library: its streams and its exit, straight from WASI preview 1, and an entry point. Such a
 * guest compiles in a tenth of a second; building a C library for one takes half a minute the first time. */
#ifdef RINGFENCE_FREESTANDING

typedef struct {
  void *address;
  uint32_t bytes;
} ringfence_vector;

RINGFENCE_FROM("wasi_snapshot_preview1", "fd_read")
int32_t ringfence_fd_read(int32_t stream, const ringfence_vector *vectors, uint32_t count, uint32_t *done);
RINGFENCE_FROM("wasi_snapshot_preview1", "fd_write")
int32_t ringfence_fd_write(int32_t stream, const ringfence_vector *vectors, uint32_t count, uint32_t *done);
RINGFENCE_FROM("wasi_snapshot_preview1", "proc_exit") _Noreturn void ringfence_exit(int32_t status);

/* Up to `bytes` of standard input; 0 at its end. */
static inline uint32_t ringfence_read(void *address, uint32_t bytes) {
  ringfence_vector vector = {address, bytes};
  uint32_t done = 0;
  return ringfence_fd_read(0, &vector, 1, &done) ? 0 : done;
}

/* Writes to stream 1 (output) or 2 (diagnostics, shown when the guest fails). */
static inline void ringfence_write(int32_t stream, const void *address, uint32_t bytes) {
  ringfence_vector vector = {(void *)address, bytes};
  uint32_t done = 0;
  ringfence_fd_write(stream, &vector, 1, &done);
}

#define RINGFENCE_MAIN(body)                                     \
  __attribute__((export_name("_start"))) void _start(void) {     \
    int32_t status = body();                                     \
    if (status) ringfence_exit(status);                          \
  }

#endif
#endif
