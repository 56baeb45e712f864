"""Compute units are a share of thread time: under contention twice the units do about twice the work."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
import wasmtime

from ringfence.agent.sandbox.port import GuestJob, Limits
from ringfence.agent.sandbox.process import ProcessSandbox, open_sandbox

# Counts rounds of arithmetic until the monotonic clock says that its time is over, and prints the count.
COUNTER = """(module
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1 1)
  (func $now (result i64)
    (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 0)))
    (i64.load (i32.const 0)))
  (func $work (local $left i32) (local $sum i32)
    (local.set $left (i32.const 20000))
    (loop $again
      (local.set $sum (i32.add (i32.mul (local.get $sum) (i32.const 31)) (local.get $left)))
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (i32.store (i32.const 64) (local.get $sum)))
  (func (export "_start") (local $end i64) (local $rounds i64)
    (local.set $end (i64.add (call $now) (i64.const 1500000000)))
    (loop $again
      (call $work)
      (local.set $rounds (i64.add (local.get $rounds) (i64.const 1)))
      (br_if $again (i64.lt_u (call $now) (local.get $end))))
    (i64.store (i32.const 8) (local.get $rounds))
    (i32.store (i32.const 16) (i32.const 8))
    (i32.store (i32.const 20) (i32.const 8))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))))"""


@pytest.fixture
def on_one_processor() -> Iterator[ProcessSandbox]:
    """A sandbox whose processes all share one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        with open_sandbox() as sandbox:
            os.sched_setaffinity(0, before)
            yield sandbox
    finally:
        os.sched_setaffinity(0, before)


async def _count(sandbox: ProcessSandbox, units: int) -> int:
    limits = Limits(1 << 20, 1, 30_000, 8, 0, compute_units=units)
    outcome = await sandbox.run(GuestJob(bytes(wasmtime.wat2wasm(COUNTER)), b"", limits))
    return int.from_bytes(outcome.output, "little")


async def test_twice_the_units_do_about_twice_the_work(on_one_processor: ProcessSandbox) -> None:
    await _count(on_one_processor, 64)  # both find the module compiled, and begin together
    whole, half = await asyncio.gather(_count(on_one_processor, 64), _count(on_one_processor, 32))
    assert 1.5 < whole / half < 2.6
