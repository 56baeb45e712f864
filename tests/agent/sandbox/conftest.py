"""What the sandbox's tests share: sandboxes over real and hostile zygotes, guests written as text, process trees."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import wasmtime

from ringfence.agent.errors import SandboxError
from ringfence.agent.sandbox.imports import IMPORTS
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.port import GuestJob, Limits, Outcome
from ringfence.agent.sandbox.process import ProcessSandbox, open_sandbox

HERE = Path(__file__).parent
MIB = 1024 * 1024
GIVE_UP_S = 10.0


@pytest.fixture
def limits() -> Limits:
    return Limits(memory_bytes=4 * MIB, gpu_memory_bytes=4 * MIB, deadline_ms=20_000, output_bytes=4096, qubits=2)


@pytest.fixture(scope="session")
def imported() -> Callable[..., str]:
    """The import clauses of host functions, by their names; each is called by its name."""
    named = {one.name: one for one in IMPORTS.values()}

    def clauses(*names: str) -> str:
        return "".join(
            f'(import "{one.module}" "{one.name}" (func ${one.name} (param {" ".join(one.parameters)})'
            f" (result {' '.join(one.results)})))"
            for one in map(named.__getitem__, names)
        )

    return clauses


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ProcessSandbox]:
    """A sandbox over a zygote that this module's tests share."""
    with open_sandbox() as opened:
        yield opened


@pytest.fixture(scope="session")
def hostile_zygote() -> Callable[..., tuple[str, ...]]:
    """The command of a zygote whose children may be hostile; see hostile_zygote.py."""
    return lambda *words: (sys.executable, "-I", str(HERE / "hostile_zygote.py"), *words)


@pytest.fixture(scope="module")
def hostile(hostile_zygote: Callable[..., tuple[str, ...]]) -> Iterator[ProcessSandbox]:
    """A sandbox whose workers and compilers do what they are told."""
    with open_sandbox(hostile_zygote()) as opened:
        yield opened


@pytest.fixture
def run_text(sandbox: ProcessSandbox, limits: Limits) -> Callable[..., Awaitable[Outcome]]:
    """Runs a guest written in the text format."""

    async def run(
        text: str, *, standard_input: bytes = b"", within: Limits = limits, level: Level = Level.HIGH
    ) -> Outcome:
        return await sandbox.run(GuestJob(bytes(wasmtime.wat2wasm(text)), standard_input, within, level))

    return run


@pytest.fixture
def failure(run_text: Callable[..., Awaitable[Outcome]]) -> Callable[..., Awaitable[SandboxError]]:
    """The error that a guest ends with."""

    async def run(text: str, **arguments: object) -> SandboxError:
        with pytest.raises(SandboxError) as caught:
            await run_text(text, **arguments)
        return caught.value

    return run


@pytest.fixture(scope="session")
def neighbour(imported: Callable[..., str]) -> GuestJob:
    """A job that uses every device and ends with `hello!!!1`, if nobody has touched its broker."""
    names = ("amd_gpu_alloc", "amd_gpu_copy", "amd_gpu_sync", "quantum_gate", "quantum_measure", "fd_write")
    text = f"""(module {imported(*names, "security_checkpoint")} (memory (export "memory") 1)
      (func (export "_start") (local $device i64) (local $left i32)
        (local.set $device (call $amd_gpu_alloc (i64.const 4096) (i32.const 0)))
        (i64.store (i32.const 128) (i64.const 0x2121216f6c6c6568))
        (drop (call $amd_gpu_copy (local.get $device) (i64.const 128) (i64.const 8) (i32.const 1)))
        (local.set $left (i32.const 100))
        (loop $again
          (drop (call $amd_gpu_copy
            (i64.add (local.get $device) (i64.const 512)) (local.get $device) (i64.const 8) (i32.const 3)))
          (drop (call $amd_gpu_sync (i32.const 0)))
          (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        (drop (call $amd_gpu_copy
          (i64.const 256) (i64.add (local.get $device) (i64.const 512)) (i64.const 8) (i32.const 2)))
        (drop (call $quantum_gate (i32.const 0) (i32.const 1) (f64.const 0)))
        (i32.store8 (i32.const 264) (i32.add (i32.const 48) (call $quantum_measure (i32.const 1) (i32.const 0))))
        (call $security_checkpoint (i32.const 7))
        (i32.store (i32.const 0) (i32.const 256)) (i32.store (i32.const 4) (i32.const 9))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""
    return GuestJob(bytes(wasmtime.wat2wasm(text)), b"", Limits(MIB, MIB, 60_000, 16, 2), Level.HIGH)


@pytest.fixture
def beside(
    neighbour: GuestJob, children: Callable[[int], set[int]]
) -> Callable[[ProcessSandbox, GuestJob], Awaitable[Outcome | SandboxError]]:
    """Runs a job beside a healthy one, which must not notice; how the job ended."""

    async def run(sandbox: ProcessSandbox, job: GuestJob) -> Outcome | SandboxError:
        zygotes = children(os.getpid())
        healthy, end = await asyncio.gather(sandbox.run(neighbour), sandbox.run(job), return_exceptions=True)
        assert isinstance(healthy, Outcome), healthy
        assert healthy.output == b"hello!!!1"
        assert children(os.getpid()) == zygotes
        if not isinstance(end, Outcome | SandboxError):
            raise end
        return end

    return run


def _parents() -> dict[int, int]:
    """Every process and its parent."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            after_name = Path(f"/proc/{entry}/stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[int(entry)] = int(after_name.split()[1])
    return found


@pytest.fixture(scope="session")
def children() -> Callable[[int], set[int]]:
    """The processes whose parent is the given one."""
    return lambda parent: {pid for pid, its in _parents().items() if its == parent}


@pytest.fixture(scope="session")
def descendants() -> Callable[[int], set[int]]:
    """The processes that the given one has started, and those that they have."""

    def find(root: int) -> set[int]:
        parents = _parents()
        found = {root}
        while more := {pid for pid, its in parents.items() if its in found} - found:
            found |= more
        return found - {root}

    return find


@pytest.fixture(scope="session")
def waiting(
    children: Callable[[int], set[int]], descendants: Callable[[int], set[int]]
) -> Callable[[], dict[int, set[int]]]:
    """The forking process of each of this process's zygotes, and its children: two of them wait while it has no job."""

    def find() -> dict[int, set[int]]:
        found = {}
        for zygote in children(os.getpid()):
            # Where there are namespaces, the process that was executed waits for the first one in them.
            inner = next((pid for pid in descendants(zygote) if children(pid)), zygote)
            found[inner] = children(inner)
        return found

    return find


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Waits until something holds."""

    async def wait(holds: Callable[[], bool]) -> None:
        give_up = time.monotonic() + GIVE_UP_S
        while not holds():
            if time.monotonic() > give_up:
                pytest.fail("it never came about")
            await asyncio.sleep(0.005)

    return wait
