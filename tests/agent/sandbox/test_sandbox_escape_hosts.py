"""Guests that abuse what the host gives them: streams, clocks, device memory, entry points, names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import wasmtime

from ringfence.agent import errors
from ringfence.agent.errors import SandboxError
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.port import GuestError, GuestJob, Limits, Outcome
from ringfence.agent.sandbox.process import ProcessSandbox
from ringfence.errors import Code

Beside = Callable[[ProcessSandbox, GuestJob], Awaitable[Outcome | SandboxError]]
Clauses = Callable[..., str]
Run = Callable[..., Awaitable[Outcome | SandboxError]]

MEMORY = '(memory (export "memory") 1)'
PROC_EXIT = '(import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))'
BAD_DESCRIPTOR, BAD_VALUE, NO_SEEK = 8, 28, 70


@pytest.fixture
def run(sandbox: ProcessSandbox, beside: Beside, limits: Limits) -> Run:
    """How a guest ends that is given as text."""

    async def run_one(
        text: str, *, given: bytes = b"", level: Level = Level.HIGH, **changes: int
    ) -> Outcome | SandboxError:
        job = GuestJob(bytes(wasmtime.wat2wasm(text)), given, replace(limits, **changes), level)
        return await beside(sandbox, job)

    return run_one


def output(end: Outcome | SandboxError) -> bytes:
    assert isinstance(end, Outcome), end
    return end.output


def code(end: Outcome | SandboxError) -> Code:
    assert isinstance(end, GuestError), end
    return end.code


def command(body: str, imports: str, more: str = "") -> str:
    return f'(module {imports} {MEMORY} {more} (func (export "_start") {body}))'


def expect(number: int, call: str) -> str:
    return f"(if (i32.ne {call} (i32.const {number})) (then unreachable))"


async def test_there_are_no_descriptors_but_three(run: Run, imported: Clauses) -> None:
    names = ("fd_read", "fd_write", "fd_close", "fd_seek", "fd_fdstat_get", "fd_prestat_get", "fd_prestat_dir_name")
    body = ""
    for descriptor in (-1, 3, 4, 5, 63, 1024, 2**31 - 1, -(2**31)):
        number = f"(i32.const {descriptor})"
        for call in (
            f"(call $fd_read {number} (i32.const 0) (i32.const 0) (i32.const 0))",
            f"(call $fd_write {number} (i32.const 0) (i32.const 0) (i32.const 0))",
            f"(call $fd_close {number})",
            f"(call $fd_seek {number} (i64.const 0) (i32.const 0) (i32.const 0))",
            f"(call $fd_fdstat_get {number} (i32.const 0))",
            f"(call $fd_prestat_get {number} (i32.const 0))",
            f"(call $fd_prestat_dir_name {number} (i32.const 0) (i32.const 8))",
        ):
            body += expect(BAD_DESCRIPTOR, call)
    body += expect(BAD_DESCRIPTOR, "(call $fd_write (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))")
    body += expect(BAD_DESCRIPTOR, "(call $fd_read (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0))")
    body += expect(NO_SEEK, "(call $fd_seek (i32.const 1) (i64.const 0) (i32.const 0) (i32.const 0))")
    assert output(await run(command(body, imported(*names)))) == b""


async def test_there_are_no_clocks_but_two_and_no_vectors_beyond_reason(run: Run, imported: Clauses) -> None:
    body = "".join(
        expect(BAD_VALUE, f"(call $clock_time_get (i32.const {clock}) (i64.const 0) (i32.const 0))")
        for clock in (2, 3, -1, 1 << 30)
    )
    for count in (1025, -1, 1 << 31):
        for name, stream in (("fd_read", 0), ("fd_write", 1)):
            arguments = f"(i32.const {stream}) (i32.const 0) (i32.const {count}) (i32.const 0)"
            body += expect(BAD_VALUE, f"(call ${name} {arguments})")
    assert output(await run(command(body, imported("clock_time_get", "fd_read", "fd_write")))) == b""


async def test_vectors_that_are_read_over_themselves(run: Run, imported: Clauses) -> None:
    """The second vector is replaced by what the first one reads: the host follows it, inside the memory or not."""
    body = """(i32.store (i32.const 0) (i32.const 8)) (i32.store (i32.const 4) (i32.const 8))
      (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 2) (i32.const 64)))
      (i32.store (i32.const 68) (i32.const 5))
      (i32.store (i32.const 64) (i32.const 1000))
      (drop (call $fd_write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 8)))"""
    text = command(body, imported("fd_read", "fd_write"))
    inside = (1000).to_bytes(4, "little") + (5).to_bytes(4, "little")
    assert output(await run(text, given=inside + b"hello")) == b"hello"
    assert code(await run(text, given=b"\xff" * 16)) == errors.GUEST_ARGUMENT


@pytest.mark.parametrize(("rounds", "vectors"), [(1_000_000, 1), (1, 1024), (1_000_000, 1024)])
async def test_an_output_flood_ends_at_its_limit(run: Run, imported: Clauses, rounds: int, vectors: int) -> None:
    body = f"""(local $left i32) (local.set $left (i32.const {vectors}))
      (loop $each
        (i32.store (i32.add (i32.const 4) (i32.shl (local.get $left) (i32.const 3))) (i32.const 60000))
        (br_if $each (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
      (i32.store (i32.const 4) (i32.const 60000))
      (local.set $left (i32.const {rounds}))
      (loop $more (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const {vectors}) (i32.const 65000)))
        (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))"""
    assert code(await run(command(body, imported("fd_write")), output_bytes=50_000)) == errors.OUTPUT_LIMIT


async def test_the_last_words_of_a_flood_are_short(run: Run, imported: Clauses) -> None:
    body = """(local $left i32) (local.set $left (i32.const 2000))
      (memory.fill (i32.const 0) (i32.const 120) (i32.const 65000))
      (i32.store (i32.const 65000) (i32.const 0)) (i32.store (i32.const 65004) (i32.const 65000))
      (loop $more (drop (call $fd_write (i32.const 2) (i32.const 65000) (i32.const 1) (i32.const 65100)))
        (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
      (call $proc_exit (i32.const 1))"""
    end = await run(command(body, imported("fd_write") + PROC_EXIT))
    assert code(end) == errors.GUEST_EXIT
    assert len(str(end)) < 1000


async def test_checkpoints_without_number_are_counted_and_cost_nothing(run: Run, imported: Clauses) -> None:
    body = """(local $left i32) (local.set $left (i32.const 5000000))
      (loop $more (call $security_checkpoint (local.get $left))
        (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))"""
    end = await run(command(body, imported("security_checkpoint")))
    assert isinstance(end, Outcome)
    assert end.usage.checkpoints == 5_000_000


async def test_a_flood_of_the_ring_runs_in_order_and_whole(run: Run, imported: Clauses) -> None:
    """Three times as many gates as the ring has slots, without one synchronisation."""
    body = """(local $left i32) (local.set $left (i32.const 100001))
      (loop $more (drop (call $quantum_gate (i32.const 0) (i32.const 1) (f64.const 0)))
        (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))"""
    body += expect(1, "(call $quantum_measure (i32.const 1) (i32.const 0))")
    end = await run(command(body, imported("quantum_gate", "quantum_measure")))
    assert isinstance(end, Outcome), end
    assert (end.usage.gates, end.usage.measurements) == (100_001, 1)


async def test_the_pool_of_a_job_holds_nothing_of_another(run: Run, imported: Clauses) -> None:
    """One fills all of its device memory; the next one finds zeros in all of its own."""
    size = 4 << 20
    allocate = f"(local.set $pool (call $amd_gpu_alloc (i64.const {size}) (i32.const 0)))"
    each = f"""(loop $each {{}}
      (br_if $each (i64.lt_u (local.tee $at (i64.add (local.get $at) (i64.const 32768))) (i64.const {size}))))"""
    place = "(i64.add (local.get $pool) (local.get $at))"
    fill = f"(drop (call $amd_gpu_copy {place} (i64.const 0) (i64.const 32768) (i32.const 1)))"
    look = f"""(drop (call $amd_gpu_copy (i64.const 0) {place} (i64.const 32768) (i32.const 2)))
      (local.set $word (i32.const 32768))
      (loop $words (local.set $word (i32.sub (local.get $word) (i32.const 8)))
        (if (i64.ne (i64.load (local.get $word)) (i64.const 0)) (then unreachable))
        (br_if $words (local.get $word)))"""
    head = "(local $pool i64) (local $at i64) (local $word i32)" + allocate
    imports = imported("amd_gpu_alloc", "amd_gpu_copy")
    secret = "(memory.fill (i32.const 0) (i32.const 83) (i32.const 32768))"
    pool = (4 << 20) + 256
    assert output(await run(command(head + secret + each.format(fill), imports), gpu_memory_bytes=pool)) == b""
    assert output(await run(command(head + each.format(look), imports), gpu_memory_bytes=pool)) == b""


async def test_allocations_end_at_their_number(run: Run, imported: Clauses) -> None:
    """A pool for more than 65,536 of them gives that many, and then none."""
    body = """(local $left i32) (local.set $left (i32.const 65536))
      (loop $more
        (if (i64.eqz (call $amd_gpu_alloc (i64.const 1) (i32.const 0))) (then unreachable))
        (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
      (if (i64.ne (call $amd_gpu_alloc (i64.const 1) (i32.const 0)) (i64.const 0)) (then unreachable))"""
    end = await run(command(body, imported("amd_gpu_alloc")), gpu_memory_bytes=32 << 20, deadline_ms=60_000)
    assert isinstance(end, Outcome), end
    assert end.usage.peak_gpu_bytes == 65_536 * 256


async def test_an_allocation_of_everything_is_refused(run: Run, imported: Clauses) -> None:
    body = "".join(
        f"(if (i64.ne (call $amd_gpu_alloc (i64.const {size}) (i32.const 0)) (i64.const 0)) (then unreachable))"
        for size in (-1, 1 << 62, (4 << 20) + 1)
    )
    assert output(await run(command(body, imported("amd_gpu_alloc")))) == b""


async def test_a_job_without_qubits_has_no_quantum_device(run: Run, imported: Clauses) -> None:
    text = command("(drop (call $quantum_measure (i32.const 0) (i32.const 0)))", imported("quantum_measure"))
    for level in (Level.LOW, Level.QUANTUM):
        assert code(await run(text, qubits=0, level=level)) == errors.QUANTUM_DISABLED


def reactor(allocate: str, main: str = "(i32.const 0)", more: str = "") -> str:
    return f"""(module {MEMORY} {more}
      (func (export "ringfence_alloc") (param i32) (result i32) {allocate})
      (func (export "main") (param i32 i32) (result i32) {main}))"""


@pytest.mark.parametrize("address", [-1, 65536, 65533, -(1 << 31), (1 << 31) - 1])
async def test_a_reactor_that_gives_an_absurd_place_for_its_input(run: Run, address: int) -> None:
    assert code(await run(reactor(f"(i32.const {address})"), given=b"input")) == errors.GUEST_ARGUMENT


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        (reactor("(loop $l (br $l)) (i32.const 0)"), errors.DEADLINE),
        (reactor("(unreachable)"), errors.GUEST_TRAP),
        (reactor("(i32.const 0)", "(i32.const -2147483648)"), errors.GUEST_EXIT),
        (reactor("(i32.const 0)", more='(func (export "_initialize") unreachable)'), errors.GUEST_TRAP),
        (reactor("(i32.const 0)", more='(func (export "_initialize") (loop $l (br $l)))'), errors.DEADLINE),
    ],
)
async def test_a_reactor_that_does_not_end_well(run: Run, text: str, ending: Code) -> None:
    assert code(await run(text, given=b"input", deadline_ms=500)) == ending


async def test_a_reactor_whose_memory_is_full_takes_no_input(run: Run) -> None:
    text = f'(module {MEMORY} (func (export "main") (param i32 i32) (result i32) (i32.const 0)))'
    assert code(await run(text, given=bytes(5 << 20))) == errors.INPUT_TOO_LARGE
    assert output(await run(text, given=bytes(1 << 20))) == b""


EXITS = f"""(module {PROC_EXIT} {MEMORY} (func $s (call $proc_exit (i32.const {{}}))) (start $s)
  (func (export "_start") unreachable))"""


async def test_a_start_function_that_exits(run: Run) -> None:
    """Where a start function may call the host at all, its exit is the guest's."""
    assert output(await run(EXITS.format(0), level=Level.MEDIUM)) == b""
    assert code(await run(EXITS.format(7), level=Level.MEDIUM)) == errors.GUEST_EXIT
    assert code(await run(EXITS.format(0), level=Level.HIGH)) == errors.MODULE_REFUSED


@pytest.mark.parametrize(
    "clause",
    [
        '(import "host" "flush" (func))',
        '(import "ringfence" "flush" (func))',
        '(import "ringfence" "memory" (memory 1))',
        '(import "ringfence" "ringfence.quantum_gate" (func (param i32 i32 f64) (result i32)))',
        '(import "wasi_snapshot_preview1" "sock_open" (func))',
        '(import "wasi_snapshot_preview1" "path_open" (func))',
        '(import "wasi_unstable" "fd_write" (func (param i32 i32 i32 i32) (result i32)))',
        '(import "ringfence" "amd_gpu_alloc\\00" (func (param i64 i32) (result i64)))',
        '(import "ringfence" "amd_gpu_alloc" (func (param i32 i32) (result i64)))',
        '(import "ringfence" "amd_gpu_alloc" (func (param i64 i32)))',
    ],
)
async def test_no_other_name_of_the_host_s_can_be_had(run: Run, clause: str) -> None:
    memory = "" if "(memory" in clause else MEMORY
    text = f'(module {clause} {memory} (func (export "_start")))'
    for level in (Level.LOW, Level.HIGH):
        assert code(await run(text, level=level)) == errors.IMPORT_UNKNOWN


async def test_a_guest_may_call_its_own_functions_what_it_likes(run: Run, imported: Clauses) -> None:
    more = '(func (export "host.flush")) (func (export "ringfence.amd_gpu_sync") unreachable)'
    body = "(drop (call $amd_gpu_sync (i32.const 0)))"
    assert output(await run(command(body, imported("amd_gpu_sync"), more))) == b""


async def test_random_bytes_fill_the_memory_and_differ(run: Run, imported: Clauses) -> None:
    body = """(drop (call $random_get (i32.const 0) (i32.const 65536)))
      (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 64))
      (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))"""
    text = command(body, imported("random_get", "fd_write"))
    assert output(await run(text)) != output(await run(text))
