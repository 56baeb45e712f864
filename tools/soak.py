"""Run very many jobs of every kind through one sandbox, and look whether anything of them stays.

    .venv/bin/python tools/soak.py [--jobs N] [--together N] [--json]

Jobs end well, with and without devices, trap, outgrow their memory, are refused, killed at their deadline, or cancelled
at any moment; some bring a module of their own. Between batches this process (the agent's part) and the zygote are
looked at. Exit status 1 when in the last quarter any figure is larger than in the second one; memory may differ by as
much as an allocator's arena.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import wasmtime

from ringfence.agent.errors import SandboxError
from ringfence.agent.sandbox.modules import open_store
from ringfence.agent.sandbox.port import GuestJob, Limits
from ringfence.agent.sandbox.process import ProcessSandbox, open_sandbox

MIB = 1 << 20
LIMITS = Limits(memory_bytes=MIB, gpu_memory_bytes=MIB, deadline_ms=60_000, output_bytes=4096, qubits=2)
SHORT = replace(LIMITS, deadline_ms=40)
STORE_BYTES = 2 * MIB
# More modules of their own than the sandbox keeps, so that what it keeps has stopped growing in the second quarter.
DISTINCT_FIRST = 300
# Of every hundred jobs: how many of each kind.
MIX = {"ok": 40, "devices": 15, "trap": 8, "memory": 7, "refused": 5, "garbage": 3, "distinct": 5, "deadline": 7}
KINDS = (*MIX, "cancelled")
WEIGHTS = (*MIX.values(), 100 - sum(MIX.values()))
LATEST_CANCEL_S = 0.02
# What the memory of a process may differ by, in KiB: an arena of Python's allocator.
ARENA_KIB = 1024
IDLE_LOOKS = 2000
# What else may differ: which modules are kept, and of these only the accepted ones hold a descriptor; and how many
# threads of its pool the agent's part has needed so far, each with a stack, its guard and an arena.
ROOM = {"resident_kib": ARENA_KIB, "address_space_kib": ARENA_KIB, "descriptors": 2, "mappings": 32}
PAGE_KIB = os.sysconf("SC_PAGESIZE") // 1024
POSIX_SHARED = "/dev/shm"  # noqa: S108 - counted, not written

BODIES = {
    "ok": "(memory.fill (i32.const 0) (i32.const 7) (i32.const 65536))",
    "trap": "unreachable",
    "memory": "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable",
    "deadline": "(loop $l (br $l))",
}
DEVICES = """(module
  (import "ringfence" "amd_gpu_alloc" (func $alloc (param i64 i32) (result i64)))
  (import "ringfence" "amd_gpu_copy" (func $copy (param i64 i64 i64 i32) (result i32)))
  (import "ringfence" "quantum_measure" (func $measure (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (local $at i64)
    (local.set $at (call $alloc (i64.const 65536) (i32.const 0)))
    (drop (call $copy (local.get $at) (i64.const 0) (i64.const 65536) (i32.const 1)))
    (drop (call $copy (i64.const 0) (local.get $at) (i64.const 65536) (i32.const 2)))
    (drop (call $measure (i32.const 0) (i32.const 1)))))"""


def main() -> int:
    """Parse the command line, run, and say what grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2000, help="how many (%(default)s)")
    parser.add_argument("--together", type=int, default=4, help="how many at a time (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder) / "modules", STORE_BYTES)
        with open_sandbox(store=store) as sandbox:
            ends, samples = asyncio.run(soak(sandbox, arguments.jobs, arguments.together))
    report = {
        "jobs": arguments.jobs,
        "seconds": round(time.monotonic() - started, 1),
        "ends": dict(ends.most_common()),
        "figures": compare(samples),
    }
    grown = sorted(name for name, row in compare(samples).items() if row["grown"])
    if arguments.json:
        print(json.dumps(report | {"grown": grown}, indent=2))
    else:
        show(report, grown)
    return 1 if grown else 0


async def soak(sandbox: ProcessSandbox, jobs: int, together: int) -> tuple[Counter[str], list[Mapping[str, int]]]:
    """How the jobs ended, by code; and a sample after every batch, of which there are 40."""
    source = random.Random(2026)  # noqa: S311 - which job comes next is no secret
    modules = {
        kind: _module(f'(memory (export "memory") 1) (func (export "_start") {BODIES[kind]})') for kind in BODIES
    }
    modules |= {"devices": bytes(wasmtime.wat2wasm(DEVICES)), "garbage": b"garbage"}
    modules |= {"refused": _module('(memory 1) (func (export "_start"))')}
    ends: Counter[str] = Counter()
    samples: list[Mapping[str, int]] = []
    begun = own = 0

    async def take_turns(until: int) -> None:
        nonlocal begun, own
        while begun < until:
            begun += 1
            (kind,) = source.choices(KINDS, WEIGHTS) if begun > DISTINCT_FIRST else ["distinct"]
            own += kind == "distinct"
            modules["distinct"] = _distinct(own)
            ends[await _run(sandbox, kind, modules, source.random() * LATEST_CANCEL_S)] += 1

    for batch in range(1, 41):
        await asyncio.gather(*(take_turns(jobs * batch // 40) for _ in range(together)))
        samples.append(await _sample())
    return ends, samples


async def _run(sandbox: ProcessSandbox, kind: str, modules: Mapping[str, bytes], cancel_s: float) -> str:
    """Run one job of a kind; the code that it ended with."""
    if kind != "cancelled":
        return await _end(sandbox, GuestJob(modules[kind], b"", SHORT if kind == "deadline" else LIMITS))
    task = asyncio.create_task(_end(sandbox, GuestJob(modules["devices"], b"", LIMITS)))
    await asyncio.wait({task}, timeout=cancel_s)
    task.cancel()
    await asyncio.wait({task})
    return "cancelled" if task.cancelled() else task.result()


def _distinct(number: int) -> bytes:
    """A module that no other job has; every other one is refused."""
    text = f'(memory (export "memory") 1) (data (i32.const 0) "{number}")'
    return _module(f'{text} (func (export "_start"))' if number % 2 else text)


async def _end(sandbox: ProcessSandbox, job: GuestJob) -> str:
    try:
        await sandbox.run(job)
    except SandboxError as error:
        return error.code.name
    return "ok"


def _module(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(f"(module {text})"))


async def _sample() -> dict[str, int]:
    """The figures of both processes, once the zygote has no child but the two that wait for a job."""
    parents = _parents()
    for _ in range(IDLE_LOOKS):
        if len(_zygote(parents)[1]) == 2:
            break
        await asyncio.sleep(0.01)
        parents = _parents()
    figures: dict[str, int] = {}
    for name, pid in (("agent", os.getpid()), ("zygote", _zygote(parents)[0])):
        size, resident = (int(words) * PAGE_KIB for words in _read(pid, "statm").split()[:2])
        figures |= {f"{name}.resident_kib": resident, f"{name}.address_space_kib": size}
        # An ordinary user may not look into a process that is not dumpable.
        if name == "agent" or os.geteuid() == 0:
            figures[f"{name}.mappings"] = _read(pid, "maps").count("\n")
            figures[f"{name}.descriptors"] = len(os.listdir(f"/proc/{pid}/fd"))
    below = _below(os.getpid(), parents)
    figures["processes"] = len(below)
    figures["zombies"] = sum(_fields(pid)[:1] == ["Z"] for pid in below)
    figures["shared_memory_segments"] = _segments()
    return figures


def _zygote(parents: Mapping[int, int]) -> tuple[int, set[int]]:
    """The process that forks, and its children: where there are namespaces, the one that was executed waits for it."""
    (executed,) = (pid for pid, parent in parents.items() if parent == os.getpid())
    inner = next((pid for pid in _below(executed, parents) if pid in parents.values()), executed)
    return inner, {pid for pid, parent in parents.items() if parent == inner}


def _parents() -> dict[int, int]:
    """Every process and its parent."""
    fields = {int(entry): _fields(int(entry)) for entry in os.listdir("/proc") if entry.isdigit()}
    return {pid: int(its[1]) for pid, its in fields.items() if its}


def _fields(pid: int) -> list[str]:
    """What stat says of a process behind its name (proc_pid_stat(5)): its state, its parent, and more."""
    return _read(pid, "stat").rsplit(")", 1)[-1].split()


def _below(pid: int, parents: Mapping[int, int]) -> set[int]:
    """The processes that one has started, and those that they have."""
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def _segments() -> int:
    """System V segments, and POSIX ones."""
    return len(Path("/proc/sysvipc/shm").read_text(encoding="ascii").splitlines()[1:]) + len(os.listdir(POSIX_SHARED))


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def compare(samples: Sequence[Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Each figure in the second and in the last quarter, and whether it has grown, 0 or 1."""
    quarter = len(samples) // 4
    rows = {}
    for name in samples[-1]:
        second = [sample[name] for sample in samples[quarter : 2 * quarter]]
        last = [sample[name] for sample in samples[-quarter:]]
        middle = statistics.median_high if name.endswith("_kib") else max
        before, after, room = middle(second), middle(last), ROOM.get(name.rpartition(".")[2], 0)
        rows[name] = {"second_quarter": before, "last_quarter": after, "grown": int(after > before + room)}
    return rows


def show(report: Mapping[str, object], grown: Sequence[str]) -> None:
    """The report for a reader."""
    print(f"soak: {report['jobs']} jobs in {report['seconds']} s: {report['ends']}")
    figures = report["figures"]
    for name, row in figures.items() if isinstance(figures, dict) else ():
        print(f"  {name:28s} {row['second_quarter']:>10} {row['last_quarter']:>10}{'  GROWN' if row['grown'] else ''}")
    print(f"soak: grown: {', '.join(grown)}" if grown else "soak: nothing grew from the second quarter to the last")


if __name__ == "__main__":
    sys.exit(main())
