/* A guest that outgrows its memory: takes a mebibyte at a time, uses it, and gives up when it gets no more. */
#define RINGFENCE_FREESTANDING
#include "ringfence.h"

#define PAGE 65536
#define STEP 16

static int32_t hog(void) {
  for (;;) {
    size_t before = __builtin_wasm_memory_grow(0, STEP);
    if (before == (size_t)-1) return 1;
    for (size_t page = 0; page < STEP; page++) *(volatile char *)((before + page) * PAGE) = 1;
  }
}

RINGFENCE_MAIN(hog)
