"""Write ringfence.h, the guests' C header, from the sandbox's description of its imports.

    .venv/bin/python tools/build_header.py [--output FILE]

Names, types and meanings come from `ringfence.agent.sandbox.imports`, gates and bases from
`ringfence.agent.quantum.gates`; what is C alone stands below. A test compares the committed file with a new one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from ringfence.agent.quantum.gates import Basis, Gate
from ringfence.agent.sandbox.imports import IMPORTS, RINGFENCE, WASI, Import

HEADER = Path(__file__).resolve().parent.parent / "agent" / "ringfence" / "agent" / "sandbox" / "guest" / "ringfence.h"
WIDTH = 120

TEMPLATE = r"""
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
#define RINGFENCE_IMPORT(name) RINGFENCE_FROM("@RINGFENCE@", name)

/* Directions of amd_gpu_copy. Host addresses are addresses in the guest's memory. */
#define RINGFENCE_HOST_TO_DEVICE 1
#define RINGFENCE_DEVICE_TO_HOST 2
#define RINGFENCE_DEVICE_TO_DEVICE 3

/* Gates of quantum_gate; @TURNING@ take an angle in radians. CX's first qubit is its control. */
@GATES@

/* The `qubits` argument of quantum_gate. */
#define RINGFENCE_ONE(qubit) ((uint32_t)(qubit))
#define RINGFENCE_TWO(first, second) ((uint32_t)(first) | ((uint32_t)(second) << 16))

/* Bases of quantum_measure. */
@BASES@

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

@IMPORTS@

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

@WASI@

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
"""


def header() -> str:
    """The header's text."""
    turning = [gate.name for gate in Gate if gate.takes_angle]
    declared = [one for one in IMPORTS.values() if one.c_name]
    parts = {
        "RINGFENCE": RINGFENCE,
        "TURNING": f"{', '.join(turning[:-1])} and {turning[-1]}",
        "GATES": "\n".join(f"#define {_gate_name(gate)} {gate.number}" for gate in Gate),
        "BASES": "\n".join(f"#define RINGFENCE_BASIS_{basis.name} {basis.value}" for basis in Basis),
        "IMPORTS": "\n\n".join(_documented(one) for one in _of(declared, RINGFENCE)),
        "WASI": "\n".join(_from_wasi(one) for one in _of(declared, WASI)),
    }
    text = TEMPLATE.lstrip()
    for name, part in parts.items():
        text = text.replace(f"@{name}@", part)
    return text


def _of(imports: Iterable[Import], module: str) -> list[Import]:
    return [one for one in imports if one.module == module]


def _gate_name(gate: Gate) -> str:
    # RINGFENCE_H says that the header is there.
    return f"RINGFENCE_{gate.name}" + ("_GATE" if gate is Gate.H else "")


def _documented(one: Import) -> str:
    meaning = one.meaning[0].upper() + one.meaning[1:]
    attribute = f'RINGFENCE_IMPORT("{one.name}")'
    return f"/* {meaning}. */\n{_declaration(one, attribute)}"


def _from_wasi(one: Import) -> str:
    return _declaration(one, f'RINGFENCE_FROM("{WASI}", "{one.name}")')


def _declaration(one: Import, attribute: str) -> str:
    prototype = f"{one.c_result} {one.c_name}({one.c_parameters});"
    joined = f"{attribute} {prototype}"
    return joined if len(joined) <= WIDTH else f"{attribute}\n{prototype}"


def main() -> int:
    """Parse the command line and write the header."""
    parser = argparse.ArgumentParser(description="Write the guests' C header from the description of the imports.")
    parser.add_argument("--output", type=Path, default=HEADER, help="where to write (default: in place)")
    parser.parse_args().output.write_text(header(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
