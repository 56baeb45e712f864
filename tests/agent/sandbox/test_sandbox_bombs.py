"""Modules that are made to cost their compiler: bounded time, bounded memory, a clear error, and nobody else waits."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import wasmtime

from ringfence.agent import errors
from ringfence.agent.errors import SandboxError
from ringfence.agent.sandbox.children import Child, Children
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.orders import CompileOrder, Order
from ringfence.agent.sandbox.port import GuestJob, Limits, Outcome
from ringfence.agent.sandbox.process import ProcessSandbox
from ringfence.errors import Code

Beside = Callable[[ProcessSandbox, GuestJob], Awaitable[Outcome | SandboxError]]
Until = Callable[[Callable[[], bool]], Awaitable[None]]

MIB = 1 << 20
AGENT_GROWTH = 64 * MIB
TYPES, IMPORTS, FUNCTIONS, TABLES, MEMORIES, GLOBALS, EXPORTS, ELEMENTS, CODES, DATA = 1, 2, 3, 4, 5, 6, 7, 9, 10, 11
I32, I64, CONST, DROP, END = b"\x7f", b"\x7e", b"\x41", b"\x1a", b"\x0b"
NO_LOCALS, ONE_I64 = b"\0", b"\1\1" + I64


def leb(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def section(number: int, content: bytes) -> bytes:
    return bytes([number]) + leb(len(content)) + content


def vector(items: list[bytes]) -> bytes:
    return leb(len(items)) + b"".join(items)


def text(name: bytes) -> bytes:
    return leb(len(name)) + name


def function(code: bytes, local: bytes = NO_LOCALS) -> bytes:
    body = local + code + END
    return leb(len(body)) + body


def module(functions: list[bytes], changed: dict[int, bytes] | None = None) -> bytes:
    """A command whose first function is its entry point, with sections `changed` or added."""
    sections = {
        TYPES: vector([b"\x60\0\0"]),
        FUNCTIONS: vector([b"\0"] * len(functions)),
        MEMORIES: vector([b"\0\1"]),
        EXPORTS: vector([text(b"_start") + b"\0\0", text(b"memory") + b"\2\0"]),
        CODES: vector(functions),
    } | (changed or {})
    return b"\0asm\1\0\0\0" + b"".join(section(number, sections[number]) for number in sorted(sections))


EMPTY = [function(b"")]
CHECKPOINT = text(b"ringfence") + text(b"security_checkpoint") + b"\0\1"
PARAMETERS = b"\x60" + leb(1000) + I64 * 1000 + b"\0"

REFUSED: dict[str, tuple[bytes, Code]] = {
    "a function of 6 MB": (module([function((CONST + b"\1" + DROP) * 1_500_000)]), errors.MODULE_TOO_LARGE),
    "300,000 functions": (module([function(b"")] * 300_000), errors.MODULE_TOO_LARGE),
    "a branch to a million places": (
        module([function(b"\x02\x40" + CONST + b"\0\x0e" + leb(1_000_000) + bytes(1_000_001) + END)]),
        errors.MODULE_INVALID,
    ),
    "50,000 locals": (module([function(b"", leb(1) + leb(50_000) + I64)]), errors.MODULE_TOO_LARGE),
    "locals beyond counting": (module([function(b"", leb(1) + leb(2**32 - 1) + I64)]), errors.MODULE_INVALID),
    "more locals than 64 bits": (module([function(b"", leb(99) + (leb(2**32 - 1) + I64) * 99)]), errors.MODULE_INVALID),
    "100,000 types": (module(EMPTY, {TYPES: vector([b"\x60\0\0"] * 100_000)}), errors.MODULE_TOO_LARGE),
    "100,000 imports": (
        module(EMPTY, {TYPES: vector([b"\x60\0\0", b"\x60\1\x7f\0"]), IMPORTS: vector([CHECKPOINT] * 100_000)}),
        errors.MODULE_TOO_LARGE,
    ),
    "100,000 globals": (module(EMPTY, {GLOBALS: vector([I64 + b"\1\x42\0\x0b"] * 100_000)}), errors.MODULE_TOO_LARGE),
    "100,000 exports": (
        module(
            EMPTY,
            {EXPORTS: vector([text(b"_start") + b"\0\0"] + [text(b"e%d" % at) + b"\0\0" for at in range(100_000)])},
        ),
        errors.MODULE_TOO_LARGE,
    ),
    "a table of 4 billion": (module(EMPTY, {TABLES: vector([b"\x70\0" + leb(2**32 - 1)])}), errors.MODULE_REFUSED),
    "16 tables of 100,000": (module(EMPTY, {TABLES: vector([b"\x70\0" + leb(100_000)] * 16)}), errors.MODULE_REFUSED),
    "a memory of 4 GiB": (module(EMPTY, {MEMORIES: vector([b"\0" + leb(65_536)])}), errors.MEMORY_LIMIT),
    "a section longer than the module": (b"\0asm\1\0\0\0\x0a" + leb(2**32 - 1), errors.MODULE_INVALID),
    "a vector longer than its section": (b"\0asm\1\0\0\0" + section(CODES, leb(2**32 - 1)), errors.MODULE_INVALID),
}
# What takes its time: it ends well, or its deadline comes first.
HEAVY: dict[str, bytes] = {
    "100,000 functions": module([function(b"")] * 100_000),
    "one function of 4 MB": module([function(b"\x20\0\x42\1\x7c\x21\0" * 550_000, ONE_I64)]),
    "200,000 branches": module([function(b"\x02\x40" + (CONST + b"\0\x0d\0") * 200_000 + END)]),
    "9,000 blocks in each other": module([function(b"\x02\x40" * 9_000 + END * 9_000)]),
    "a branch to 60,000 places": module(
        [function(b"\x02\x40" + CONST + b"\0\x0e" + leb(60_000) + bytes(60_001) + END)]
    ),
    "1,000 parameters": module(EMPTY, {TYPES: vector([b"\x60\0\0", PARAMETERS])}),
    "100,000 data segments": module(EMPTY, {DATA: vector([b"\0" + CONST + b"\0\x0b\0"] * 100_000)}),
    "a million elements": module(
        EMPTY,
        {
            TABLES: vector([b"\x70\0" + leb(1_000_000)]),
            ELEMENTS: vector([b"\0" + CONST + b"\0\x0b" + leb(1_000_000) + bytes(1_000_000)]),
        },
    ),
    "15 MB of nothing": module(EMPTY) + section(0, text(b"x") + bytes(15_000_000)),
    "a million sections of nothing": module(EMPTY) + section(0, text(b"x")) * 1_000_000,
}
# More memory than a compiler may have.
HUNGRY = module([function((b"\x02\x40\x20\0\xa7\x0d\0\x42\1\x21\0" + END) * 250_000, ONE_I64)])
SLOW = HEAVY["one function of 4 MB"]


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("level", [Level.LOW, Level.HIGH])
async def test_a_bomb_is_refused_with_its_reason(
    name: str, level: Level, sandbox: ProcessSandbox, beside: Beside, limits: Limits
) -> None:
    code, ending = REFUSED[name]
    before = resident()
    end = await beside(sandbox, GuestJob(code, b"", limits, level))
    assert isinstance(end, SandboxError)
    assert (end.code, end.field) == (ending, "module")
    assert end.hint
    assert resident() - before < AGENT_GROWTH


async def test_deep_nesting_ends_where_a_level_says(sandbox: ProcessSandbox, beside: Beside, limits: Limits) -> None:
    code = module([function(b"\x02\x40" * 50_000 + END * 50_000)])
    assert isinstance(await beside(sandbox, GuestJob(code, b"", limits, Level.LOW)), Outcome)
    end = await beside(sandbox, GuestJob(code, b"", limits, Level.HIGH))
    assert isinstance(end, SandboxError)
    assert end.code == errors.MODULE_TOO_LARGE


@pytest.mark.parametrize("name", HEAVY)
async def test_what_takes_its_time_takes_no_more_than_its_job_has(
    name: str, sandbox: ProcessSandbox, beside: Beside, limits: Limits
) -> None:
    before = resident()
    end = await beside(sandbox, GuestJob(HEAVY[name], b"", replace(limits, deadline_ms=800)))
    assert isinstance(end, Outcome) or end.code == errors.DEADLINE
    assert resident() - before < AGENT_GROWTH


async def test_a_compiler_gets_no_more_memory_than_it_may_have(
    sandbox: ProcessSandbox, beside: Beside, limits: Limits
) -> None:
    before = resident()
    end = await beside(sandbox, GuestJob(HUNGRY, b"", replace(limits, deadline_ms=60_000)))
    assert isinstance(end, SandboxError)
    assert (end.code, end.field) == (errors.MODULE_INVALID, "module")
    assert resident() - before < AGENT_GROWTH


async def test_no_change_of_a_module_breaks_its_compiler(sandbox: ProcessSandbox, limits: Limits) -> None:
    """Whatever its bytes are, it is a verdict: no compiler dies of them, and no worker."""
    source = random.Random(11)  # noqa: S311 - data of a test
    real = bytes(
        wasmtime.wat2wasm("""(module (import "ringfence" "quantum_gate" (func (param i32 i32 f64) (result i32)))
          (memory (export "memory") 1 2) (table 2 funcref) (elem (i32.const 0) 1) (data (i32.const 8) "bytes")
          (global (mut i64) (i64.const 7)) (func (export "_start")
            (loop $l (br_if $l (i32.const 0))) (call_indirect (i32.const 0))) (func (local f64)))""")
    )
    jobs = []
    for _ in range(60):
        code = bytearray(real)
        for _ in range(source.randrange(1, 4)):
            code[source.randrange(8, len(code))] = source.randrange(256)
        jobs.append(GuestJob(bytes(code), b"", replace(limits, deadline_ms=5000), source.choice(list(Level))))
    ends = await asyncio.gather(*map(sandbox.run, jobs), return_exceptions=True)
    codes = {end.code for end in ends if isinstance(end, SandboxError)}
    assert codes
    assert not codes & {errors.WORKER_LOST, errors.SYSCALL_DENIED}
    assert all(isinstance(end, Outcome | SandboxError) for end in ends)


class Compilers(Children):
    """Keeps the compile children that it forks."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Child] = []

    async def fork(self, order: Callable[[int], Order], descriptors: Sequence[int]) -> Child:
        child = await super().fork(order, descriptors)
        if isinstance(order(0), CompileOrder):
            self.made.append(child)
        return child


@pytest.fixture
def compilers() -> Iterator[Compilers]:
    with closing(Compilers()) as children:
        yield children


@pytest.fixture
def counted(compilers: Compilers) -> Iterator[ProcessSandbox]:
    """A sandbox whose compile children are known."""
    with closing(ProcessSandbox(compilers)) as opened:
        yield opened


async def test_a_compiler_is_killed_at_the_deadline_and_with_its_job(
    counted: ProcessSandbox, compilers: Compilers, limits: Limits, until: Until
) -> None:
    with pytest.raises(SandboxError) as caught:
        await counted.run(GuestJob(SLOW, b"", replace(limits, deadline_ms=200)))
    assert caught.value.code == errors.DEADLINE
    assert "while its module was compiled" in caught.value.message
    job = asyncio.create_task(counted.run(GuestJob(SLOW, b"", limits)))
    await until(lambda: len(compilers.made) == 2)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert [child.ended.result().status for child in compilers.made] == [-signal.SIGKILL] * 2


async def test_a_module_that_several_jobs_want_is_compiled_once(
    counted: ProcessSandbox, compilers: Compilers, limits: Limits
) -> None:
    """One of them gives up, and another's deadline comes; the rest get what they wait for."""
    slow = HEAVY["200,000 branches"]
    jobs = [asyncio.create_task(counted.run(GuestJob(slow, b"", limits))) for _ in range(3)]
    late = asyncio.create_task(counted.run(GuestJob(slow, b"", replace(limits, deadline_ms=100))))
    await asyncio.sleep(0.05)
    jobs[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await jobs[0]
    with pytest.raises(SandboxError) as caught:
        await late
    assert caught.value.code == errors.DEADLINE
    await asyncio.gather(*jobs[1:])
    await counted.run(GuestJob(slow, b"", limits))
    assert len(compilers.made) == 1


async def test_another_level_and_other_limits_are_compiled_for_themselves(
    counted: ProcessSandbox, compilers: Compilers, limits: Limits
) -> None:
    job = GuestJob(module(EMPTY), b"", limits)
    for _ in range(2):
        await counted.run(job)
        await counted.run(replace(job, limits=replace(limits, memory_bytes=5 * MIB)))
        await counted.run(replace(job, limits=replace(limits, qubits=1)))
        await counted.run(replace(job, level=Level.LOW))
    assert len(compilers.made) == 4


async def test_a_compiler_that_was_lost_with_its_zygote_is_not_the_module_s_fault(
    counted: ProcessSandbox, compilers: Compilers, limits: Limits, until: Until
) -> None:
    job = asyncio.create_task(counted.run(GuestJob(SLOW, b"", limits)))
    await until(lambda: len(compilers.made) == 1 and compilers.made[0].pid > 0)
    os.kill(compilers.zygote_pid, signal.SIGKILL)
    with pytest.raises(SandboxError) as caught:
        await job
    assert caught.value.code == errors.WORKER_LOST
    assert "compiler was lost" in caught.value.message
