"""Guests through the whole sandbox: what they may do, and how each breach ends."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import wasmtime

from ringfence.agent import errors
from ringfence.agent.errors import SandboxError
from ringfence.agent.sandbox.port import MAX_MODULE_BYTES, GuestError, GuestJob, Limits, Outcome
from ringfence.agent.sandbox.process import ProcessSandbox
from ringfence.errors import Code

Run = Callable[..., Awaitable[Outcome]]
Fail = Callable[..., Awaitable[SandboxError]]

STREAMS = """
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
"""


def guest(body: str, *, imports: str = "", memory: str = "1", more: str = "") -> str:
    return f'(module {imports} (memory (export "memory") {memory}) {more} (func (export "_start") {body}))'


ECHO = guest(
    """(i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 1000))
       (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
       (i32.store (i32.const 4) (i32.load (i32.const 8)))
       (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))""",
    imports=STREAMS,
)


async def test_input_comes_back_as_output(run_text: Run) -> None:
    outcome = await run_text(ECHO, standard_input=b"hello")
    assert outcome.output == b"hello"
    assert outcome.usage.peak_memory_bytes == 65536
    assert outcome.usage.wall_ms > 0
    assert outcome.usage.cpu_ms > 0


async def test_devices_answer_and_are_counted(run_text: Run) -> None:
    imports = """
      (import "ringfence" "amd_gpu_alloc" (func $alloc (param i64 i32) (result i64)))
      (import "ringfence" "amd_gpu_copy" (func $copy (param i64 i64 i64 i32) (result i32)))
      (import "ringfence" "amd_gpu_sync" (func $sync (param i32) (result i32)))
      (import "ringfence" "quantum_gate" (func $gate (param i32 i32 f64) (result i32)))
      (import "ringfence" "quantum_measure" (func $measure (param i32 i32) (result i32)))
      (import "ringfence" "security_checkpoint" (func $checkpoint (param i32)))
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    """
    body = """(local $device i64)
      (local.set $device (call $alloc (i64.const 4096) (i32.const 0)))
      (i64.store (i32.const 128) (i64.const 0x2121216f6c6c6568))
      (drop (call $copy (local.get $device) (i64.const 128) (i64.const 8) (i32.const 1)))
      (drop (call $copy (i64.add (local.get $device) (i64.const 512)) (local.get $device) (i64.const 8) (i32.const 3)))
      (drop (call $copy (i64.const 256) (i64.add (local.get $device) (i64.const 512)) (i64.const 8) (i32.const 2)))
      (drop (call $gate (i32.const 0) (i32.const 1) (f64.const 0)))
      (i32.store8 (i32.const 264) (i32.add (i32.const 48) (call $measure (i32.const 1) (i32.const 0))))
      (call $checkpoint (i32.const 7))
      (i32.store (i32.const 0) (i32.const 256)) (i32.store (i32.const 4) (i32.const 9))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))"""
    outcome = await run_text(guest(body, imports=imports))
    assert outcome.output == b"hello!!!1"
    usage = outcome.usage
    assert (usage.gates, usage.measurements, usage.checkpoints) == (1, 1, 1)
    assert usage.peak_gpu_bytes >= 4096


async def test_a_full_pool_gives_address_zero(run_text: Run) -> None:
    imports = '(import "ringfence" "amd_gpu_alloc" (func $alloc (param i64 i32) (result i64)))'
    body = "(if (i64.ne (call $alloc (i64.const 999999999) (i32.const 0)) (i64.const 0)) (then unreachable))"
    await run_text(guest(body, imports=imports))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (guest("unreachable"), errors.GUEST_TRAP),
        (guest("(drop (i32.load (i32.const -4)))"), errors.GUEST_TRAP),
        (guest("(call $f)", more="(func $f (call $f))"), errors.GUEST_TRAP),
        (guest("(drop (i32.div_u (i32.const 1) (i32.const 0)))"), errors.GUEST_TRAP),
        (guest("", more="(func $s unreachable) (start $s)"), errors.GUEST_TRAP),
        (guest("", imports='(import "env" "system" (func))'), errors.IMPORT_UNKNOWN),
        (guest("", imports='(import "ringfence" "security_checkpoint" (func (param i64)))'), errors.IMPORT_UNKNOWN),
        (guest("", imports='(import "ringfence" "security_checkpoint" (global i32))'), errors.IMPORT_UNKNOWN),
        (guest("", imports='(import "wasi_snapshot_preview1" "path_open" (func))'), errors.IMPORT_UNKNOWN),
        ('(module (import "ringfence" "memory" (memory 1)) (func (export "_start")))', errors.IMPORT_UNKNOWN),
        ('(module (memory (export "memory") 1) (func (export "other")))', errors.ENTRY_POINT_MISSING),
        ('(module (memory (export "memory") 1) (func (export "main")))', errors.ENTRY_POINT_TYPE),
        ('(module (memory (export "memory") 1) (func (export "_start") (param i32)))', errors.ENTRY_POINT_TYPE),
        ('(module (memory 1) (func (export "_start")))', errors.ENTRY_POINT_MISSING),
        ('(module (memory (export "memory") 1) (memory 1) (func (export "_start")))', errors.MODULE_INVALID),
        ('(module (memory (export "memory") i64 1) (func (export "_start")))', errors.MODULE_INVALID),
        ('(module (memory (export "memory") 1 1 shared) (func (export "_start")))', errors.MODULE_INVALID),
        (
            '(module (memory (export "memory") 1) (table 9999999 funcref) (func (export "_start")))',
            errors.MODULE_REFUSED,
        ),
    ],
)
async def test_each_breach_has_its_code(failure: Fail, text: str, code: Code) -> None:
    assert (await failure(text)).code == code


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (guest("(call $inner)", more="(func $inner nop unreachable)"), ", in function 0 (inner), at offset 0x"),
        (guest("unreachable", more="(func nop)"), ", in function 1, at offset 0x"),
        (guest("(call $f)", more='(func $f (@name "a\\n\\u{e9}") unreachable)'), ", in function 0 (a), at offset 0x"),
        (guest("(call $f)", more="(func $f (call $f))"), ": stack overflow, in function 0 (f)."),
        (guest("(call $f)", more=f"(func ${'n' * 200} unreachable) (func $f (call 0))"), f" ({'n' * 64}), at offset"),
    ],
)
async def test_a_trap_says_where(failure: Fail, text: str, said: str) -> None:
    assert said in (await failure(text)).message


async def test_a_trap_s_offset_is_the_module_s(failure: Fail) -> None:
    text = guest("(call $f)", more="(func $f (drop (i32.const 77)) unreachable)")
    offset = bytes(wasmtime.wat2wasm(text)).index(b"\x41\xcd\x00\x1a\x00") + 4
    place = f"in function 0 (f), at offset {offset:#x}"
    assert (await failure(text)).message == f"The guest trapped: unreachable, {place}."


async def test_a_stack_that_runs_out_in_the_shim_is_the_guest_s(failure: Fail) -> None:
    imports = '(import "ringfence" "security_checkpoint" (func $c (param i32)))'
    text = guest("(call $f)", imports=imports, more="(func $f (call $c (i32.const 0)) (call $f))")
    said = (await failure(text)).message
    assert "stack overflow" in said
    assert ", in function 1 (f)" in said


@pytest.mark.parametrize(
    ("module", "code"),
    [
        (b"", errors.MODULE_INVALID),
        (b"\0asm", errors.MODULE_INVALID),
        (b"garbage", errors.MODULE_INVALID),
        (b"\0asm\x01\0\0\0\xff", errors.MODULE_INVALID),
        (b"\0asm\x02\0\0\0", errors.MODULE_INVALID),
        (b"\0asm\x0d\0\1\0", errors.COMPONENT_GIVEN),
        (b"(module)", errors.MODULE_INVALID),
    ],
)
async def test_garbage_is_no_guest(module: bytes, code: Code, sandbox: ProcessSandbox, limits: Limits) -> None:
    with pytest.raises(GuestError) as caught:
        await sandbox.run(GuestJob(module, b"", limits))
    assert caught.value.code == code


def test_a_module_beyond_the_largest_is_refused_before_anything_starts(limits: Limits) -> None:
    with pytest.raises(SandboxError) as caught:
        GuestJob(bytes(MAX_MODULE_BYTES + 1), b"", limits)
    assert caught.value.code == errors.MODULE_TOO_LARGE


@pytest.mark.parametrize("name", ["memory_bytes", "gpu_memory_bytes", "deadline_ms", "output_bytes", "qubits"])
@pytest.mark.parametrize("value", [-1, 1 << 62, True])
def test_a_limit_outside_its_range_is_refused(limits: Limits, name: str, value: int) -> None:
    with pytest.raises(SandboxError) as caught:
        replace(limits, **{name: value})
    assert (caught.value.code, caught.value.field) == (errors.LIMIT_OUT_OF_RANGE, name)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("bad\\nrow\\1b", "The guest exited with status 3, saying: bad row."),
        ("bad row.", "The guest exited with status 3, saying: bad row."),
        ("bad row!", "The guest exited with status 3, saying: bad row!"),
        ("why now?", "The guest exited with status 3, saying: why now?"),
        ("        ", "The guest exited with status 3."),
    ],
)
async def test_a_guest_says_why_it_failed_in_one_sentence(failure: Fail, text: str, sentence: str) -> None:
    body = """(i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 8))
      (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8))) (call $exit (i32.const 3))"""
    error = await failure(guest(body, imports=STREAMS, more=f'(data (i32.const 64) "{text}")'))
    assert error.code == errors.GUEST_EXIT
    assert error.message == sentence


async def test_exit_status_zero_is_success(run_text: Run) -> None:
    assert (await run_text(guest("(call $exit (i32.const 0)) unreachable", imports=STREAMS))).output == b""


GROW_UNTIL_REFUSED = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))"


@pytest.mark.parametrize("end", ["unreachable", "(call $exit (i32.const 1))"])
async def test_a_guest_that_outgrows_its_memory(failure: Fail, end: str, limits: Limits) -> None:
    error = await failure(guest(GROW_UNTIL_REFUSED + end, imports=STREAMS))
    assert (error.code, error.field) == (errors.MEMORY_LIMIT, "memory_bytes")
    assert isinstance(error, GuestError)
    assert error.usage.peak_memory_bytes == limits.memory_bytes


async def test_one_request_far_beyond_the_limit_is_known_as_such(failure: Fail) -> None:
    assert (await failure(guest("(drop (memory.grow (i32.const 50000))) unreachable"))).code == errors.MEMORY_LIMIT


async def test_a_guest_that_starts_too_large(failure: Fail) -> None:
    assert (await failure(guest("", memory="65"))).code == errors.MEMORY_LIMIT


async def test_a_guest_may_live_with_a_refusal(run_text: Run, failure: Fail) -> None:
    await run_text(guest(GROW_UNTIL_REFUSED))
    later = "(drop (memory.grow (i32.const 50000))) (drop (memory.grow (i32.const 1))) unreachable"
    assert (await failure(guest(later))).code == errors.GUEST_TRAP


async def test_more_output_than_allowed(failure: Fail, run_text: Run) -> None:
    def flood(rounds: int) -> str:
        body = f"""(local $left i32) (local.set $left (i32.const {rounds})) (i32.store (i32.const 4) (i32.const 1024))
          (loop $more (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))"""
        return guest(body, imports=STREAMS)

    assert len((await run_text(flood(4))).output) == 4096
    assert (await failure(flood(5))).code == errors.OUTPUT_LIMIT


async def test_a_guest_that_never_ends_is_killed_at_its_deadline(failure: Fail, limits: Limits) -> None:
    error = await failure(guest("(loop $l (br $l))"), within=replace(limits, deadline_ms=700))
    assert (error.code, error.field) == (errors.DEADLINE, "deadline_ms")
    assert isinstance(error, GuestError)
    assert error.usage.wall_ms >= 700


@pytest.mark.parametrize(
    "call",
    [
        "(drop (call $write (i32.const 1) (i32.const 65530) (i32.const 1) (i32.const 8)))",
        "(drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const -1)))",
        """(i32.store (i32.const 4) (i32.const -1))
           (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))""",
    ],
)
async def test_a_pointer_outside_memory_ends_the_guest(failure: Fail, call: str) -> None:
    assert (await failure(guest(call, imports=STREAMS))).code == errors.GUEST_ARGUMENT


@pytest.mark.parametrize(
    ("imports", "call", "code"),
    [
        ('"quantum_gate" (func $f (param i32 i32 f64) (result i32))', "(i32.const 99) (i32.const 0) (f64.const 0)",
         errors.QUANTUM_ARGUMENT),
        ('"amd_gpu_copy" (func $f (param i64 i64 i64 i32) (result i32))',
         "(i64.const 8) (i64.const 0) (i64.const 8) (i32.const 1)", errors.DEVICE_FAULT),
    ],
)  # fmt: skip
async def test_a_refusal_by_a_device_ends_the_guest(failure: Fail, imports: str, call: str, code: Code) -> None:
    text = guest(f"(drop (call $f {call}))", imports=f'(import "ringfence" {imports})')
    assert (await failure(text)).code == code


async def test_a_large_input_arrives_whole(run_text: Run) -> None:
    body = """(local $sum i64) (local $at i32)
      (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 65000))
      (loop $more
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (local.set $sum (i64.add (local.get $sum) (i64.extend_i32_u (i32.load (i32.const 8)))))
        (br_if $more (i32.load (i32.const 8))))
      (i64.store (i32.const 64) (local.get $sum)) (i32.store (i32.const 4) (i32.const 8))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))"""
    data = os.urandom(5_000_000)
    outcome = await run_text(guest(body, imports=STREAMS), standard_input=data)
    assert int.from_bytes(outcome.output, "little") == len(data)
