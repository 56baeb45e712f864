"""The trusted shim: a small WebAssembly module of ours that stands between a guest and its host functions.

A guest is linked to the shim's exports only. `quantum_gate` appends a slot (`ringfence.agent.ring`) to a queue in the
shim's own memory, which the guest cannot name, and `security_checkpoint` stores into the progress page at that
memory's end: a few nanoseconds each, where a call into Python takes hundreds. Every other import is a wrapper that
stores its parameters at a fixed place and calls a host function without any: reading them there costs Python half of
what reading them off the native stack does.

The module's text is made from `imports.IMPORTS` and from the layout below, so neither is written down twice; the
runtime assembles it in less than a millisecond, once a process.

The shim's memory: u32 bytes queued at 0, 8-byte parameters from `PARAMETERS`, the result at `RESULT`, the queue from
`_QUEUE`, and the progress page from `PROGRESS` to its end.
"""

from __future__ import annotations

import struct
from typing import Final

import wasmtime

from ringfence.agent import ring
from ringfence.agent.sandbox import progress
from ringfence.agent.sandbox.imports import IMPORTS, RINGFENCE, Import

NAME: Final = "ringfence_shim"
"""What a trap calls the shim's own frames."""
HOST: Final = "host"
FLUSH: Final = "flush"
PROGRESS: Final = 4 * 65536
MEMORY_BYTES: Final = PROGRESS + progress.PAGE_BYTES
QUEUE_BYTES: Final = PROGRESS - 4096

PARAMETERS: Final = 64
RESULT: Final = 192

_QUEUED, _QUEUE = 0, 4096
# A guest that has waited for its broker finds the queue in no cache. A load that nobody needs begins to fetch a place
# that many bytes before it is written, and few wide stores leave room for more such waits at a time: the two take a
# quarter off a gate. The last gates look into the progress page, which is as good.
_AHEAD: Final = 1024
_QUEUED_LAYOUT: Final = struct.Struct("<I")
_CODES: Final = {"i32": "I4x", "i64": "Q", "f64": "d"}

_OWN: Final = {
    (RINGFENCE, "quantum_gate"): f"""(param $gate i32) (param $qubits i32) (param $angle f64) (result i32)
    (local $at i32)
    (local.set $at (i32.load (i32.const {_QUEUED})))
    (if (i32.ge_u (local.get $at) (i32.const {QUEUE_BYTES}))
      (then (call $flush) (local.set $at (i32.load (i32.const {_QUEUED})))))
    (drop (i32.load offset={_QUEUE + _AHEAD} (local.get $at)))
    (v128.store offset={_QUEUE} (local.get $at)
      (i64x2.replace_lane 1
        (i64x2.splat
          (i64.or
            (i64.shl (i64.extend_i32_u (local.get $gate)) (i64.const 32))
            (i64.const {ring.GATE_OPCODE})))
        (i64.extend_i32_u (local.get $qubits))))
    (f64.store offset={_QUEUE + 24} (local.get $at) (local.get $angle))
    (i32.store (i32.const {_QUEUED}) (i32.add (local.get $at) (i32.const {ring.SLOT_BYTES})))
    (i32.const 0)""",
    (RINGFENCE, "security_checkpoint"): f"""(param $id i32)
    (i64.store (i32.const {PROGRESS + progress.CHECKPOINTS})
      (i64.add (i64.load (i32.const {PROGRESS + progress.CHECKPOINTS})) (i64.const 1)))
    (i64.store (i32.const {PROGRESS + progress.LAST_CHECKPOINT}) (i64.extend_i32_u (local.get $id)))""",
}
HOSTED: Final = tuple(one for key, one in IMPORTS.items() if key not in _OWN)
"""The imports that the shim only passes on to a host function."""


def exported(module: str, name: str) -> str:
    """What the shim calls the function that a guest imports as `name` from `module`."""
    return f"{module}.{name}"


def binary() -> bytes:
    """The shim as a WebAssembly module."""
    passed_on = [(exported(one.module, one.name), one) for one in HOSTED]
    lines = [f'(import "{HOST}" "{name}" (func ${name}))' for name, _ in passed_on]
    lines.append(f'(import "{HOST}" "{FLUSH}" (func $flush))')
    lines.append(f"(memory {MEMORY_BYTES // 65536} {MEMORY_BYTES // 65536})")
    lines += [f'(func (export "{name}") {_pass_on(name, one)})' for name, one in passed_on]
    lines += [f'(func (export "{exported(*key)}") {body})' for key, body in _OWN.items()]
    return bytes(wasmtime.wat2wasm("(module ${} {})".format(NAME, "\n".join(lines))))


def _pass_on(name: str, one: Import) -> str:
    head = [f"(param {' '.join(one.parameters)})", *(f"(result {kind})" for kind in one.results)]
    stores = [
        f"({kind}.store (i32.const {PARAMETERS + 8 * index}) (local.get {index}))"
        for index, kind in enumerate(one.parameters)
    ]
    # A host function that gives 0, as most do, leaves the result as it is.
    stores += [f"({kind}.store (i32.const {RESULT}) ({kind}.const 0))" for kind in one.results]
    loads = [f"({kind}.load (i32.const {RESULT}))" for kind in one.results]
    return " ".join([*head, *stores, f"(call ${name})", *loads])


def parameters(one: Import) -> struct.Struct:
    """How the parameters of a call of `one` lie at `PARAMETERS` of the shim's memory; integers are unsigned."""
    return struct.Struct("<" + "".join(_CODES[kind] for kind in one.parameters))


class Queue:
    """The slots in the shim's memory that have not crossed yet."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._slots = memory[_QUEUE : _QUEUE + QUEUE_BYTES]

    @property
    def free(self) -> int:
        """How many bytes may be appended."""
        return QUEUE_BYTES - int(_QUEUED_LAYOUT.unpack_from(self._memory, _QUEUED)[0])

    def append(self, slots: bytes | memoryview) -> None:
        """Append `slots`, at most `free` bytes, filled up to a whole slot."""
        start = QUEUE_BYTES - self.free
        end = start + len(slots)
        self._slots[start:end] = slots
        _QUEUED_LAYOUT.pack_into(self._memory, _QUEUED, end + -len(slots) % ring.SLOT_BYTES)

    def take(self, last: bytes = b"") -> memoryview:
        """Empty the queue; returns a view of what was in it and of the `last` slots, of at most `free` bytes.

        The next append overwrites it.
        """
        start = QUEUE_BYTES - self.free
        end = start + len(last)
        self._slots[start:end] = last
        _QUEUED_LAYOUT.pack_into(self._memory, _QUEUED, 0)
        return self._slots[:end]
