/* A guest that never ends. */
#define RINGFENCE_FREESTANDING
#include "ringfence.h"

static volatile uint32_t turns;

static int32_t forever(void) {
  for (;;) turns++;
}

RINGFENCE_MAIN(forever)
