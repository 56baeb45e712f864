/* Data processing: a quicksort of 64-bit integers, recursion and branches at random. */
#include "bench.h"

#define COUNT (64 * 1024)
#define SMALL 16

static int64_t given[COUNT], sorted[COUNT];

static void prepare(void) {
  uint64_t state = 5;
  for (int at = 0; at < COUNT; at++) given[at] = (int64_t)bench_random(&state);
}

static void insert_all(int64_t *values, int32_t count) {
  for (int32_t at = 1; at < count; at++) {
    int64_t value = values[at];
    int32_t to = at;
    for (; to > 0 && values[to - 1] > value; to--) values[to] = values[to - 1];
    values[to] = value;
  }
}

static void sort(int64_t *values, int32_t count) {
  while (count > SMALL) {
    int64_t first = values[0], middle = values[count / 2], last = values[count - 1];
    int64_t pivot = first < middle ? (middle < last ? middle : first < last ? last : first)
                                   : (first < last ? first : middle < last ? last : middle);
    int32_t low = 0, high = count - 1;
    while (low <= high) {
      while (values[low] < pivot) low++;
      while (values[high] > pivot) high--;
      if (low <= high) {
        int64_t swapped = values[low];
        values[low++] = values[high];
        values[high--] = swapped;
      }
    }
    sort(values, high + 1);
    values += low;
    count -= low;
  }
  insert_all(values, count);
}

static uint64_t kernel(void) {
  for (int at = 0; at < COUNT; at++) sorted[at] = given[at];
  sort(sorted, COUNT);
  uint64_t sum = 0;
  for (int at = 0; at < COUNT; at += COUNT / 256) sum = bench_mix(sum, (uint64_t)sorted[at]);
  return sum;
}
