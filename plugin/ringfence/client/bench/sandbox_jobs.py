"""The jobs of `ringfence bench sandbox`, run in the sandbox itself, without agent and gateway around it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ringfence.agent.errors import DEADLINE
from ringfence.agent.sandbox import process
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.port import GuestError, GuestJob, Limits
from ringfence.agent.sandbox.port import Sandbox as Sandbox  # its name for the rest of the benchmark
from ringfence.client.bench.sandbox_kernels import WASM_FLAGS, Rounds, compile_source, decode_rounds, encode_rounds

MINIMAL: Final = '(module (memory (export "memory") 1) (func (export "_start")))'
WITH_DEVICES: Final = """(module
  (import "ringfence" "amd_gpu_sync" (func $sync (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (drop (call $sync (i32.const 0)))))"""
ENDLESS: Final = '(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))'
# Each kind of host call: how it is chosen in calls.c, and the level that allows it.
CALLS: Final[Mapping[str, tuple[str, Level]]] = {
    "asynchronous": ("-DCALL_GATE", Level.QUANTUM),
    "checkpoint": ("-DCALL_CHECKPOINT", Level.HIGH),
    "synchronous": ("-DCALL_CLOCK", Level.HIGH),
    "broker": ("-DCALL_SYNC", Level.HIGH),
}
KILL_DEADLINE_MS: Final = 50
WARM_UP: Final = 3
PAUSE_S: Final = 0.02

_MEMORY_BYTES: Final = 64 * 1024 * 1024
_OUTPUT_BYTES: Final = 1024 * 1024
_DEADLINE_MS: Final = 60_000


@contextmanager
def open_sandbox() -> Iterator[Sandbox]:
    """A sandbox with processes of its own, as a host's agent has one."""
    with process.open_sandbox() as sandbox:
        yield sandbox


def job(module: bytes, *, given: bytes = b"", deadline_ms: int = _DEADLINE_MS, level: Level = Level.HIGH) -> GuestJob:
    """A job of ample limits; it has one qubit at the level `quantum`, else none."""
    qubits = 1 if level is Level.QUANTUM else 0
    limits = Limits(_MEMORY_BYTES, _MEMORY_BYTES, deadline_ms, _OUTPUT_BYTES, qubits)
    return GuestJob(module, given, limits, level)


async def run_kernel(sandbox: Sandbox, wasm: bytes, rounds: int, level: Level = Level.HIGH) -> Rounds:
    """One run of a kernel in the sandbox."""
    outcome = await sandbox.run(job(wasm, given=encode_rounds(rounds), level=level))
    return decode_rounds(outcome.output)


async def job_starts(sandbox: Sandbox, module: bytes, count: int, *, pause_s: float = PAUSE_S) -> list[float]:
    """Microseconds from each of `count` jobs' start to its answer, the module being in the cache.

    Each begins `pause_s` after the one before has ended. Without a pause the next standby is not ready yet, and a job
    waits for its own fork.
    """
    micros = []
    for number in range(WARM_UP + count):
        started = time.perf_counter()
        await sandbox.run(job(module))
        took = (time.perf_counter() - started) * 1e6
        if number >= WARM_UP:
            micros.append(took)
        await asyncio.sleep(pause_s)
    return micros


async def kills(sandbox: Sandbox, endless: bytes, count: int) -> list[float]:
    """Microseconds from the deadline of each of `count` endless guests to its answer."""
    micros = []
    for number in range(WARM_UP + count):
        started = time.perf_counter()
        try:
            await sandbox.run(job(endless, deadline_ms=KILL_DEADLINE_MS))
        except GuestError as error:
            if error.code != DEADLINE:
                raise
        late = (time.perf_counter() - started) * 1e6 - KILL_DEADLINE_MS * 1000
        if number >= WARM_UP:
            micros.append(late)
    return micros


async def call_nanoseconds(sandbox: Sandbox, kind: str, rounds: int, folder: Path) -> list[float]:
    """Nanoseconds of one host call of a `kind` of `CALLS`, for each of `rounds` rounds of many of them."""
    flag, level = CALLS[kind]
    target = folder / f"{kind}.wasm"
    compile_source("calls", target, (*WASM_FLAGS, flag))
    done = await run_kernel(sandbox, target.read_bytes(), rounds, level)
    return [took / calls for took, calls in zip(done.nanoseconds, done.checksums, strict=True)]
