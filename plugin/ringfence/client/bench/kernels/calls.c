/* One kind of host call, over and over. The compiler is told which by -DCALL_GATE and the like. */
#include "ringfence.h"

#if defined(CALL_GATE)
/* Appended to the ring. The measurement that empties it again is not timed. */
#define CALLS 4000
#define CALL() quantum_gate(RINGFENCE_Z, RINGFENCE_ONE(0), 0)
#define BENCH_SETTLE() quantum_measure(0, RINGFENCE_BASIS_Z)
#elif defined(CALL_CHECKPOINT)
/* Progress: no answer, no batch. */
#define CALLS 1000
#define CALL() security_checkpoint(1)
#elif defined(CALL_CLOCK)
/* Answered by the worker itself. */
#define CALLS 500
#define CALL() bench_now()
#elif defined(CALL_SYNC)
/* To the device broker and back. */
#define CALLS 20
#define CALL() amd_gpu_sync(0)
#endif

#include "bench.h"

static void prepare(void) {}

static uint64_t kernel(void) {
  for (int call = 0; call < CALLS; call++) CALL();
  return CALLS;
}
