"""Guests that try to get out, or to take more than their share: each ends with its code, and nobody else notices."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import wasmtime

from ringfence.agent import errors
from ringfence.agent.errors import SandboxError
from ringfence.agent.sandbox.imports import IMPORTS, Import
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.port import GuestJob, Limits, Outcome
from ringfence.agent.sandbox.process import ProcessSandbox
from ringfence.errors import Code

Beside = Callable[[ProcessSandbox, GuestJob], Awaitable[Outcome | SandboxError]]
Clauses = Callable[..., str]
Try = Callable[..., Awaitable[Outcome | SandboxError]]

LOW, MEDIUM, HIGH, QUANTUM = Level


@pytest.fixture
def attempt(sandbox: ProcessSandbox, beside: Beside, limits: Limits, imported: Clauses) -> Try:
    """How a guest ends that runs `body` at `level`, with `imports` by their names and `more` in its module."""

    async def run(
        body: str,
        *imports: str,
        more: str = "",
        memory: str = "1",
        level: Level = HIGH,
        given: bytes = b"",
        **changes: int,
    ) -> Outcome | SandboxError:
        text = f"""(module {imported(*imports)} (memory (export "memory") {memory}) {more}
          (func (export "_start") {body}))"""
        job = GuestJob(bytes(wasmtime.wat2wasm(text)), given, replace(limits, **changes), level)
        return await beside(sandbox, job)

    return run


def code(end: Outcome | SandboxError) -> Code | None:
    return None if isinstance(end, Outcome) else end.code


WIDTHS = {
    "i32.load8_u": 1,
    "i64.load16_s": 2,
    "i32.load": 4,
    "f32.load": 4,
    "i64.load": 8,
    "f64.load": 8,
    "v128.load": 16,
    "v128.load32_splat": 4,
    "v128.load8x8_s": 8,
    "i32.store8": 1,
    "i64.store16": 2,
    "i32.store": 4,
    "f32.store": 4,
    "i64.store32": 4,
    "i64.store": 8,
    "f64.store": 8,
    "v128.store": 16,
}


@pytest.mark.parametrize("instruction", WIDTHS)
async def test_no_access_reaches_past_the_memory(instruction: str, attempt: Try) -> None:
    """One byte over its end, at addresses that wrap around, and 8 GiB further on."""
    kind = instruction.split(".")[0]
    zero = "(v128.const i64x2 0 0)" if kind == "v128" else f"({kind}.const 0)"
    for place in (f"(i32.const {65537 - WIDTHS[instruction]})", "(i32.const -1)", "offset=4294967295 (i32.const -1)"):
        offset, _, address = place.rpartition("(")
        access = f"({instruction} {offset}({address}"
        body = f"{access} {zero})" if ".store" in instruction else f"(drop {access}))"
        assert code(await attempt(body)) == errors.GUEST_TRAP


TYPES = "(type $none (func)) (type $one (func (param i64))) (func $f) (elem declare func $f)"
TABLE = f"{TYPES} (table 2 3 funcref) (elem (i32.const 0) $f)"
BULK = '(data $bytes "0123456789")'

TRAPS = {
    "memory.fill": ("(memory.fill (i32.const 65000) (i32.const 1) (i32.const 537))", ""),
    "memory.copy": ("(memory.copy (i32.const 0) (i32.const 65000) (i32.const -1))", ""),
    "memory.init": ("(memory.init $bytes (i32.const 0) (i32.const 5) (i32.const 6))", BULK),
    "dropped data": ("(data.drop $bytes) (memory.init $bytes (i32.const 0) (i32.const 0) (i32.const 1))", BULK),
    "v128.load8_lane": ("(drop (v128.load8_lane 15 (i32.const -1) (v128.const i64x2 0 0)))", ""),
    "v128.store64_lane": ("(v128.store64_lane 1 (i32.const 65529) (v128.const i64x2 0 0))", ""),
    "call past the table": ("(call_indirect (type $none) (i32.const 2))", TABLE),
    "call far past the table": ("(call_indirect (type $none) (i32.const -1))", TABLE),
    "call nothing": ("(call_indirect (type $none) (i32.const 1))", TABLE),
    "call by another type": ("(call_indirect (type $one) (i64.const 0) (i32.const 0))", TABLE),
    "table.get": ("(drop (table.get 0 (i32.const 2)))", TABLE),
    "table.set": ("(table.set 0 (i32.const -1) (ref.func $f))", TABLE),
    "table.fill": ("(table.fill 0 (i32.const 1) (ref.null func) (i32.const 2))", TABLE),
    "table.copy": ("(table.copy (i32.const 1) (i32.const 0) (i32.const 2))", TABLE),
    "table.init": (
        "(table.init $e (i32.const 0) (i32.const 0) (i32.const 3))",
        TABLE + "(elem $e func $f)",
    ),
    "recursion": ("(call $deeper)", "(func $deeper (call $deeper))"),
    "recursion with values": (
        "(drop (call $deeper (i64.const 1)))",
        "(func $deeper (param i64) (result i64)"
        " (i64.add (local.get 0) (call $deeper (i64.add (local.get 0) (i64.const 1)))))",
    ),
    "recursion through a table": (
        "(call_indirect $t (type $none) (i32.const 0))",
        "(type $none (func)) (table $t 1 1 funcref) (elem (i32.const 0) $again)"
        "(func $again (call_indirect $t (type $none) (i32.const 0)))",
    ),
    "division by zero": ("(drop (i64.rem_u (i64.const 1) (i64.const 0)))", ""),
    "a quotient that overflows": ("(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))", ""),
    "no integer": ("(drop (i32.trunc_f64_u (f64.const nan)))", ""),
    "an integer too large": ("(drop (i64.trunc_f32_s (f32.const 1e30)))", ""),
    "a start function": ("", "(func $s unreachable) (start $s)"),
}


@pytest.mark.parametrize("name", TRAPS)
async def test_a_guest_that_breaks_its_own_rules_traps(name: str, attempt: Try) -> None:
    body, more = TRAPS[name]
    assert code(await attempt(body, more=more)) == errors.GUEST_TRAP


async def test_an_address_of_64_bits_is_checked_in_all_of_them(attempt: Try) -> None:
    for address in ("0x10000", "0x100000000", "0x8000000000000000", "-1"):
        end = await attempt(f"(drop (i64.load (i64.const {address})))", memory="i64 1", level=LOW)
        assert code(end) == errors.GUEST_TRAP


GROW = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))"
DEADLY = {
    "a loop": ("(loop $l (br $l))", ()),
    "growing by nothing": ("(loop $l (drop (memory.grow (i32.const 0))) (br $l))", ()),
    "growing when full": (f"{GROW} (loop $l (drop (memory.grow (i32.const 65535))) (br $l))", ()),
    "touching all of it": (
        f"{GROW} (loop $l (memory.fill (i32.const 0) (i32.const 7) (i32.const 4194304)) (br $l))",
        (),
    ),
    "checkpoints": ("(loop $l (call $security_checkpoint (i32.const -1)) (br $l))", ("security_checkpoint",)),
    "gates": (
        "(loop $l (drop (call $quantum_gate (i32.const 3) (i32.const 0) (f64.const 0))) (br $l))",
        ("quantum_gate",),
    ),
    "copies to the device": (
        """(local $a i64) (local.set $a (call $amd_gpu_alloc (i64.const 65536) (i32.const 0)))
        (loop $l (drop (call $amd_gpu_copy (local.get $a) (i64.const 0) (i64.const 65536) (i32.const 1))) (br $l))""",
        ("amd_gpu_alloc", "amd_gpu_copy"),
    ),
    "launches": (
        """(i32.store (i32.const 100) (i32.const 1)) (i32.store (i32.const 104) (i32.const 1))
        (i64.store (i32.const 108) (call $amd_gpu_alloc (i64.const 64) (i32.const 0)))
        (i64.store (i32.const 116) (i64.load (i32.const 108))) (i64.store (i32.const 124) (i64.const 8))
        (loop $l (drop (call $amd_gpu_kernel_launch (i32.const 0) (i32.const 100) (i32.const 32))) (br $l))""",
        ("amd_gpu_alloc", "amd_gpu_kernel_launch"),
    ),
    "measurements": (
        "(loop $l (drop (call $quantum_measure (i32.const 1) (i32.const 1))) (br $l))",
        ("quantum_measure",),
    ),
    "randomness": ("(loop $l (drop (call $random_get (i32.const 0) (i32.const 65536))) (br $l))", ("random_get",)),
    "the clock": (
        "(loop $l (drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 0))) (br $l))",
        ("clock_time_get",),
    ),
    "yielding": ("(loop $l (drop (call $sched_yield)) (br $l))", ("sched_yield",)),
    "last words": (
        """(i32.store (i32.const 100) (i32.const 0)) (i32.store (i32.const 104) (i32.const 65536))
        (loop $l (drop (call $fd_write (i32.const 2) (i32.const 100) (i32.const 1) (i32.const 8))) (br $l))""",
        ("fd_write",),
    ),
}
NAME = '(data (i32.const 0) "square_i64\\00")'


@pytest.mark.parametrize("name", DEADLY)
async def test_a_guest_that_does_something_for_ever_is_killed_at_its_deadline(name: str, attempt: Try) -> None:
    body, imports = DEADLY[name]
    end = await attempt(body, *imports, more=NAME, deadline_ms=250)
    assert code(end) == errors.DEADLINE


async def test_a_tail_call_for_ever_is_a_loop(attempt: Try) -> None:
    end = await attempt("(call $f)", more="(func $f (return_call $f))", level=LOW, deadline_ms=250)
    assert code(end) == errors.DEADLINE


async def test_a_start_function_for_ever_is_killed_too(attempt: Try) -> None:
    end = await attempt("", more="(func $s (loop $l (br $l))) (start $s)", deadline_ms=250)
    assert code(end) == errors.DEADLINE


ADDRESSED = [one for one in IMPORTS.values() if one.name != "proc_exit"]
VALUES = (-1, -(1 << 31), (1 << 31) - 1, 65536, 65533)
# What may become of a call with such arguments: an answer, or one of these.
REFUSALS = {
    None,
    errors.GUEST_ARGUMENT,
    errors.DEVICE_ARGUMENT,
    errors.DEVICE_FAULT,
    errors.QUANTUM_ARGUMENT,
    errors.OUTPUT_LIMIT,
}


@pytest.mark.parametrize("one", ADDRESSED, ids=lambda one: one.name)
async def test_no_argument_of_any_import_breaks_anything(one: Import, attempt: Try) -> None:
    for value in VALUES:
        call = f"(call ${one.name} {' '.join(f'({kind}.const {value})' for kind in one.parameters)})"
        assert code(await attempt(f"(drop {call})" if one.results else call, one.name)) in REFUSALS


WRITE = "(drop (call $fd_write (i32.const {}) (i32.const {}) (i32.const {}) (i32.const {})))"
READ = "(drop (call $fd_read (i32.const {}) (i32.const {}) (i32.const {}) (i32.const {})))"
COPY = "(drop (call $amd_gpu_copy (i64.const {}) (i64.const {}) (i64.const {}) (i32.const {})))"
LAUNCH = "(drop (call $amd_gpu_kernel_launch (i32.const {}) (i32.const {}) (i32.const {})))"
GATE = "(drop (call $quantum_gate (i32.const {}) (i32.const {}) (f64.const {})))"
MEASURE = "(drop (call $quantum_measure (i32.const {}) (i32.const {})))"
HEAD = "(i32.store (i32.const 100) (i32.const {})) (i32.store (i32.const 104) (i32.const {}))"

CALLS = [
    # Addresses and lengths that only fit when they wrap around.
    ("fd_write", WRITE.format(1, 65532, 1, 0), errors.GUEST_ARGUMENT),
    ("fd_write", WRITE.format(1, -8, 2, 0), errors.GUEST_ARGUMENT),
    ("fd_write", WRITE.format(1, 0, 1, 65533), errors.GUEST_ARGUMENT),
    ("fd_write", "(i32.store (i32.const 0) (i32.const -1))(i32.store (i32.const 4) (i32.const 2))"
     + WRITE.format(1, 0, 1, 8), errors.GUEST_ARGUMENT),
    ("fd_write", "(i32.store (i32.const 4) (i32.const -1))" + WRITE.format(2, 0, 1, 8), errors.GUEST_ARGUMENT),
    ("fd_read", "(i32.store (i32.const 4) (i32.const 65537))" + READ.format(0, 0, 1, 8), errors.GUEST_ARGUMENT),
    ("random_get", "(drop (call $random_get (i32.const 1) (i32.const 65536)))", errors.GUEST_ARGUMENT),
    ("random_get", "(drop (call $random_get (i32.const 65536) (i32.const -1)))", errors.GUEST_ARGUMENT),
    ("amd_gpu_copy", COPY.format(4096, 65530, 8, 1), errors.GUEST_ARGUMENT),
    ("amd_gpu_copy", COPY.format(4096, 0, 1 << 63, 1), errors.GUEST_ARGUMENT),
    ("amd_gpu_copy", COPY.format(65530, 4096, 8, 2), errors.GUEST_ARGUMENT),
    ("amd_gpu_copy", COPY.format(1 << 32, 4096, 8, 2), errors.GUEST_ARGUMENT),
    ("amd_gpu_copy", COPY.format(0, 0, 8, 0), errors.GUEST_ARGUMENT),
    ("amd_gpu_copy", COPY.format(0, 0, 8, 4), errors.GUEST_ARGUMENT),
    # A device's memory that is not this job's: the host's own block below the pool, nothing, and the end of all.
    *(("amd_gpu_copy", COPY.format(place, 0, 8, 1), errors.DEVICE_FAULT) for place in (0, 64, 1 << 20, -8, 1 << 62)),
    *(("amd_gpu_copy", COPY.format(0, place, 8, 2), errors.DEVICE_FAULT) for place in (0, 64, 1 << 20, -8, 1 << 62)),
    *(("amd_gpu_copy", COPY.format(64, place, 8, 3), errors.DEVICE_FAULT) for place in (0, 1 << 33)),
    ("amd_gpu_copy", COPY.format(0, 0, 1 << 62, 3), errors.DEVICE_FAULT),
    ("amd_gpu_alloc", "(drop (call $amd_gpu_alloc (i64.const 0) (i32.const 0)))", errors.DEVICE_ARGUMENT),
    ("amd_gpu_alloc", "(drop (call $amd_gpu_alloc (i64.const 8) (i32.const 1)))", errors.GUEST_ARGUMENT),
    ("amd_gpu_sync", "(drop (call $amd_gpu_sync (i32.const 1)))", errors.DEVICE_ARGUMENT),
    # Kernels: a name that does not end, none, an unknown one; launches that are none; pointers outside the pool.
    ("amd_gpu_kernel_launch", "(memory.fill (i32.const 60000) (i32.const 65) (i32.const 5536))"
     + LAUNCH.format(65500, 100, 8), errors.GUEST_ARGUMENT),
    ("amd_gpu_kernel_launch", "(memory.fill (i32.const 200) (i32.const 65) (i32.const 100))"
     + LAUNCH.format(200, 100, 8), errors.GUEST_ARGUMENT),
    ("amd_gpu_kernel_launch", LAUNCH.format(10, 100, 8), errors.GUEST_ARGUMENT),
    ("amd_gpu_kernel_launch", LAUNCH.format(1, 100, 8), errors.KERNEL_UNKNOWN),
    ("amd_gpu_kernel_launch", LAUNCH.format(0, 100, 7), errors.GUEST_ARGUMENT),
    ("amd_gpu_kernel_launch", LAUNCH.format(0, 100, -1), errors.GUEST_ARGUMENT),
    ("amd_gpu_kernel_launch", LAUNCH.format(0, 65532, 8), errors.GUEST_ARGUMENT),
    ("amd_gpu_kernel_launch", HEAD.format(-1, -1) + LAUNCH.format(0, 100, 32), errors.DEVICE_ARGUMENT),
    ("amd_gpu_kernel_launch", HEAD.format(1, 1) + LAUNCH.format(0, 100, 32), errors.DEVICE_FAULT),
    ("amd_gpu_kernel_launch", HEAD.format(1, 1) + LAUNCH.format(0, 100, 16), errors.DEVICE_ARGUMENT),
    # Quantum: gates, qubits and bases that there are none of.
    ("quantum_gate", GATE.format(12, 0, 0), errors.QUANTUM_ARGUMENT),
    ("quantum_gate", GATE.format(-1, 0, 0), errors.QUANTUM_ARGUMENT),
    ("quantum_gate", GATE.format(0, 2, 0), errors.QUANTUM_ARGUMENT),
    ("quantum_gate", GATE.format(0, -1, 0), errors.QUANTUM_ARGUMENT),
    ("quantum_gate", GATE.format(9, 0, 0), errors.QUANTUM_ARGUMENT),
    ("quantum_gate", GATE.format(9, 0x30000, 0), errors.QUANTUM_ARGUMENT),
    ("quantum_gate", GATE.format(6, 0, "nan"), errors.QUANTUM_ARGUMENT),
    ("quantum_gate", GATE.format(6, 0, "inf"), errors.QUANTUM_ARGUMENT),
    ("quantum_measure", MEASURE.format(2, 0), errors.QUANTUM_ARGUMENT),
    ("quantum_measure", MEASURE.format(-1, 0), errors.QUANTUM_ARGUMENT),
    ("quantum_measure", MEASURE.format(0, 2), errors.QUANTUM_ARGUMENT),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body", "ending"), CALLS)
async def test_a_call_that_cannot_be_meant_ends_the_guest(name: str, body: str, ending: Code, attempt: Try) -> None:
    assert code(await attempt(body, name, more=NAME)) == ending
