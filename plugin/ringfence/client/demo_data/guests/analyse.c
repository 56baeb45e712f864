/* The demo's job: reads a CSV of amounts, sums them and their squares with GPU kernels, runs a small quantum circuit,
 * and lets the bit measured in its middle choose the last kernel. Prints one JSON object.
 *
 * Input: a header line, then rows `id,amount_cents,region`. Blank lines, spaces, CRLF and a missing last newline are
 * accepted; a row that is not three fields with a whole number in the middle ends the guest with status 1. */
#define RINGFENCE_FREESTANDING
#include "ringfence.h"

#define BLOCK 256
#define PAGE 65536
#define MAX_DIGITS 15

extern unsigned char __heap_base;

static struct {
  char bytes[PAGE];
  uint32_t at, end;
} input;

static int64_t *amounts;
static uint32_t rows, capacity;
static uint32_t line = 1;

static uint32_t length_of(const char *text) {
  uint32_t length = 0;
  while (text[length]) length++;
  return length;
}

static char *put_text(char *to, const char *text) {
  while (*text) *to++ = *text++;
  return to;
}

static char *put_number(char *to, int64_t value) {
  char digits[20];
  uint32_t count = 0;
  uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
  if (value < 0) *to++ = '-';
  do digits[count++] = (char)('0' + left % 10);
  while (left /= 10);
  while (count) *to++ = digits[--count];
  return to;
}

static _Noreturn void fail(const char *why) {
  char text[160], *end = put_number(put_text(text, "line "), line);
  end = put_text(put_text(end, ": "), why);
  ringfence_write(2, text, (uint32_t)(end - text));
  ringfence_exit(1);
}

static _Noreturn void fail_whole(const char *why) {
  ringfence_write(2, why, length_of(why));
  ringfence_exit(1);
}

/* The next character, or -1 at the end of the input. */
static int next(void) {
  if (input.at == input.end) {
    input.at = 0;
    input.end = ringfence_read(input.bytes, sizeof input.bytes);
    if (!input.end) return -1;
  }
  return (unsigned char)input.bytes[input.at++];
}

static int is_blank(int character) { return character == ' ' || character == '\t' || character == '\r'; }

static int next_visible(void) {
  int character = next();
  while (is_blank(character)) character = next();
  return character;
}

static void store(int64_t amount) {
  if (rows == capacity) {
    if (__builtin_wasm_memory_grow(0, 16) == (size_t)-1) fail_whole("the rows do not fit into the guest's memory");
    capacity += 16 * PAGE / sizeof(int64_t);
  }
  amounts[rows++] = amount;
}

static int64_t read_amount(void) {
  int character = next_visible(), negative = character == '-';
  int64_t value = 0;
  uint32_t digits = 0;
  if (character == '-' || character == '+') character = next();
  for (; character >= '0' && character <= '9'; character = next()) {
    if (++digits > MAX_DIGITS) fail("the amount has more than 15 digits");
    value = value * 10 + (character - '0');
  }
  while (is_blank(character)) character = next();
  if (!digits || character != ',') fail("the second field is not a whole number of cents");
  return negative ? -value : value;
}

/* Reads one row that begins with `first`. */
static void read_row(int first) {
  int character = first;
  while (character != ',') {
    if (character == '\n' || character < 0) fail("the row has no second field");
    character = next();
  }
  int64_t amount = read_amount();
  character = next_visible();
  if (character == '\n' || character < 0) fail("the third field is missing");
  for (; character != '\n' && character >= 0; character = next())
    if (character == ',') fail("the row has more than three fields");
  store(amount);
}

static void read_rows(void) {
  amounts = (int64_t *)(__builtin_wasm_memory_size(0) * PAGE);
  int character = next();
  while (character >= 0 && character != '\n') character = next();
  for (;;) {
    line++;
    character = next_visible();
    if (character < 0) break;
    if (character != '\n') read_row(character);
  }
  if (!rows) fail_whole("the input has no rows");
}

/* The sum of squares is kept in 64 bits; refuse amounts for which it might not fit. */
static void check_range(void) {
  int64_t largest = 0;
  for (uint32_t row = 0; row < rows; row++) {
    int64_t size = amounts[row] < 0 ? -amounts[row] : amounts[row];
    if (size > largest) largest = size;
  }
  if (largest && largest > INT64_MAX / largest / rows) fail_whole("the amounts are too large: squares would overflow");
}

static uint64_t reserve(uint64_t bytes) {
  uint64_t address = amd_gpu_alloc(bytes, 0);
  if (!address) fail_whole("the device pool is full");
  return address;
}

static uint32_t blocks(void) { return (rows + BLOCK - 1) / BLOCK; }

/* The sum of the `rows` values at `values` on the device. */
static int64_t device_sum(uint64_t values, int64_t *partial) {
  uint64_t on_device = reserve(8ull * blocks());
  RINGFENCE_LAUNCH(3) launch = {blocks(), BLOCK, {on_device, values, rows}};
  RINGFENCE_RUN("block_sum_i64", launch);
  amd_gpu_copy(RINGFENCE_ADDRESS(partial), on_device, 8ull * blocks(), RINGFENCE_DEVICE_TO_HOST);
  int64_t sum = 0;
  for (uint32_t block = 0; block < blocks(); block++) sum += partial[block];
  return sum;
}

static int32_t analyse(void) {
  read_rows();
  check_range();
  security_checkpoint(1);

  /* The amounts are not needed here once the device has them; their memory takes the partial sums. */
  uint64_t values = reserve(8ull * rows), changed = reserve(8ull * rows);
  amd_gpu_copy(values, RINGFENCE_ADDRESS(amounts), 8ull * rows, RINGFENCE_HOST_TO_DEVICE);
  amd_gpu_sync(0);
  int64_t sum = device_sum(values, amounts);
  RINGFENCE_LAUNCH(3) square = {blocks(), BLOCK, {changed, values, rows}};
  RINGFENCE_RUN("square_i64", square);
  int64_t sum_of_squares = device_sum(changed, amounts);
  security_checkpoint(2);

  /* A Bell pair: measuring the first qubit decides the second. Undoing that with a gate conditioned on the bit leaves
   * the second in |0>, so after H it is |+>, and measuring it in basis X gives 0 every time. */
  quantum_gate(RINGFENCE_H_GATE, RINGFENCE_ONE(0), 0);
  quantum_gate(RINGFENCE_CX, RINGFENCE_TWO(0, 1), 0);
  int32_t bit = quantum_measure(0, RINGFENCE_BASIS_Z);
  if (bit) quantum_gate(RINGFENCE_X, RINGFENCE_ONE(1), 0);
  quantum_gate(RINGFENCE_H_GATE, RINGFENCE_ONE(1), 0);
  int32_t second_bit = quantum_measure(1, RINGFENCE_BASIS_X);
  security_checkpoint(3);

  int64_t centre = sum / (int64_t)rows;
  int64_t spread = (centre < 0 ? -centre : centre) / 2;
  if (bit) {
    RINGFENCE_LAUNCH(4) launch = {blocks(), BLOCK, {changed, values, (uint64_t)centre, rows}};
    RINGFENCE_RUN("abs_difference_i64", launch);
  } else {
    RINGFENCE_LAUNCH(5)
    launch = {blocks(), BLOCK, {changed, values, (uint64_t)(centre - spread), (uint64_t)(centre + spread), rows}};
    RINGFENCE_RUN("clip_i64", launch);
  }
  int64_t branch_sum = device_sum(changed, amounts);
  security_checkpoint(4);

  char text[512], *end = put_number(put_text(text, "{\"rows\": "), rows);
  end = put_number(put_text(end, ", \"sum\": "), sum);
  end = put_number(put_text(end, ", \"sum_of_squares\": "), sum_of_squares);
  end = put_number(put_text(end, ", \"bit\": "), bit);
  end = put_text(put_text(end, ", \"branch\": "), bit ? "\"abs_difference_i64\"" : "\"clip_i64\"");
  end = put_number(put_text(end, ", \"centre\": "), centre);
  end = put_number(put_text(end, ", \"spread\": "), spread);
  end = put_number(put_text(end, ", \"branch_sum\": "), branch_sum);
  end = put_number(put_text(end, ", \"second_bit\": "), second_bit);
  end = put_text(end, "}\n");
  ringfence_write(1, text, (uint32_t)(end - text));
  return 0;
}

RINGFENCE_MAIN(analyse)
