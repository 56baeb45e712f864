"""The sandbox beside plain wasmtime and beside native code, and what its processes and host calls cost."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ringfence.client.bench.figures import summary
from ringfence.terminal import print_table

if TYPE_CHECKING:
    from ringfence.client.bench.sandbox_jobs import Sandbox
    from ringfence.client.bench.sandbox_kernels import Built, PlainWasmtime, Rounds

SUMMARY: Final = "the sandbox beside plain wasmtime and native code; job start, deadline, host calls, idle memory"
DESCRIPTION: Final = (
    "Compiles seven kernels with the pinned compiler and runs each in the sandbox, in plain wasmtime and natively, in "
    "turn. A kernel times its own rounds; a ratio is the median over the turns, of the fastest quarter of the rounds. "
    "Then it times minimal jobs, endless guests and host calls, and adds up what an idle agent's processes hold."
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How many samples: turns of each kernel, rounds a turn, jobs, endless guests, rounds of host calls."""

    turns: int
    rounds: int
    jobs: int
    kills: int
    call_rounds: int


FULL: Final = Plan(turns=20, rounds=16, jobs=300, kills=100, call_rounds=200)
IDLE_S: Final = 1.0
QUICK: Final = Plan(turns=1, rounds=2, jobs=3, kills=1, call_rounds=10)


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence bench sandbox`."""
    parser.add_argument(
        "--quick", action="store_true", help="a few samples of everything: shows that it works, not how fast it is"
    )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures.

    Raises `usage.missing_extra` without the compiler, `client.kernel_mismatch` when a kernel computes different things,
    and what the sandbox raises when a job does not end as it should.
    """
    from ringfence.client.bench.sandbox_jobs import open_sandbox

    plan = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory(prefix="ringfence-bench-") as folder:
        with open_sandbox() as sandbox:
            figures = asyncio.run(_sandboxed(sandbox, plan, Path(folder)))
        figures |= _idle(Path(folder))
    return {"quick": arguments.quick, **figures, "targets": list(targets(figures))}


async def _sandboxed(sandbox: Sandbox, plan: Plan, folder: Path) -> dict[str, Any]:
    """What is measured in one sandbox. Nothing else runs in this loop, so that blocking it is no harm."""
    import wasmtime

    from ringfence.client.bench import sandbox_jobs as jobs
    from ringfence.client.bench import sandbox_kernels as kernels

    texts = (jobs.MINIMAL, jobs.WITH_DEVICES, jobs.ENDLESS)
    minimal, devices, endless = (bytes(wasmtime.wat2wasm(text)) for text in texts)
    compiler = kernels.compiler()
    plain = kernels.PlainWasmtime(folder)
    rows: list[dict[str, Any]] = []
    for name in kernels.KERNELS:
        _tell(f"kernel {name}")
        rows.append(await _kernel(kernels.build(name, folder), plain, sandbox, plan))
    _tell("starting jobs")
    starts = await jobs.job_starts(sandbox, minimal, plan.jobs)
    in_a_row = await jobs.job_starts(sandbox, minimal, plan.jobs, pause_s=0.0)
    device_starts = await jobs.job_starts(sandbox, devices, plan.jobs)
    _tell("killing endless guests")
    late = await jobs.kills(sandbox, endless, plan.kills)
    calls: dict[str, float] = {}
    for kind in jobs.CALLS:
        _tell(f"host calls, {kind}")
        times = await jobs.call_nanoseconds(sandbox, kind, plan.call_rounds, folder)
        calls[kind] = round(statistics.median(times), 1)
    _tell("")
    return {
        "samples": asdict(plan),
        "compiler": compiler,
        "flags": {
            "wasm": " ".join(kernels.WASM_FLAGS),
            "native": " ".join(kernels.NATIVE_FLAGS),
            "tuned": " ".join(kernels.TUNED_FLAGS),
        },
        "kernels": rows,
        "overhead": kernels.overall(row["over_plain"] for row in rows),
        "native": kernels.overall(row["over_native"] for row in rows),
        "tuned": kernels.overall(row["over_tuned"] for row in rows),
        "job_start_ms": _milliseconds(starts),
        "job_start_in_a_row_ms": _milliseconds(in_a_row),
        "job_start_devices_ms": _milliseconds(device_starts),
        "kill_past_deadline_ms": _milliseconds(late),
        "host_call_ns": calls,
    }


async def _kernel(built: Built, plain: PlainWasmtime, sandbox: Sandbox, plan: Plan) -> dict[str, Any]:
    """One kernel each way in turn, in another order every time, so that whatever slows the machine slows all."""
    from ringfence.client.bench import sandbox_jobs as jobs
    from ringfence.client.bench import sandbox_kernels as kernels

    module = plain.compile(built.wasm)
    turns = []
    for turn in range(plan.turns):
        runs: dict[str, Rounds] = {}
        for way in kernels.WAYS if turn % 2 == 0 else reversed(kernels.WAYS):
            match way:
                case "sandboxed":
                    runs[way] = await jobs.run_kernel(sandbox, built.wasm, plan.rounds)
                case "plain":
                    runs[way] = plain.run(module, plan.rounds)
                case "native":
                    runs[way] = kernels.run_native(built.native, plan.rounds)
                case _:
                    runs[way] = kernels.run_native(built.tuned, plan.rounds)
        kernels.check_agreement(built.name, runs)
        turns.append(runs)
    return kernels.compare(built.name, turns)


def _idle(folder: Path) -> dict[str, Any]:
    """What an agent holds that has run a job and now waits for the next."""
    import wasmtime

    from ringfence.client.bench import sandbox_jobs as jobs
    from ringfence.client.bench import sandbox_memory as memory
    from ringfence.client.local import LocalInstallation

    _tell("starting an agent")
    with LocalInstallation(folder / "installation") as local:
        local.client().open_session().submit(bytes(wasmtime.wat2wasm(jobs.MINIMAL)), b"")
        # An idle agent has the process of its next job waiting; the one of this job is replaced a moment after it.
        time.sleep(IDLE_S)
        processes = memory.held_by(memory.family(local.process("agent").pid))
    _tell("")
    return {
        "idle_pss_mb": round(sum(process.megabytes for process in processes), 1),
        "idle_processes": [asdict(process) for process in processes],
    }


def _milliseconds(micros: Sequence[float]) -> dict[str, float]:
    return {name.removesuffix("_us"): round(value / 1000, 3) for name, value in summary(micros).items()}


def targets(figures: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each promise, what was measured, and whether it held."""
    promises = [
        ("overhead.geomean", figures["overhead"]["geomean"], 1.02),
        ("overhead.worst", figures["overhead"]["worst"], 1.05),
        ("native.geomean", figures["native"]["geomean"], 1.15),
        ("job_start_ms.p50", figures["job_start_ms"]["p50"], 4.0),
        ("job_start_ms.p99", figures["job_start_ms"]["p99"], 10.0),
        ("kill_past_deadline_ms.p99", figures["kill_past_deadline_ms"]["p99"], 5.0),
        ("host_call_ns.asynchronous", figures["host_call_ns"]["asynchronous"], 10.0),
        ("host_call_ns.synchronous", figures["host_call_ns"]["synchronous"], 1_000.0),
        ("host_call_ns.broker", figures["host_call_ns"]["broker"], 20_000.0),
        ("idle_pss_mb", figures["idle_pss_mb"], 100.0),
    ]
    for name, measured, limit in promises:
        yield {"name": name, "measured": measured, "limit": limit, "met": measured <= limit}


def show(figures: dict[str, Any]) -> None:
    """Prints the figures for people."""
    print(f"Seven kernels by {figures['compiler']}, ms a round; native -O3 for every processor, and for this one\n")
    print_table([["kernel", "sandboxed", "over plain", "over native", "over tuned"], *map(_cells, figures["kernels"])])
    spreads = [("plain wasmtime", "overhead"), ("native", "native"), ("native for this processor", "tuned")]
    for what, key in spreads:
        print(f"over {what}: geometric mean {figures[key]['geomean']}, worst {figures[key]['worst']}")
    print()
    times = [
        ("start of a job", "job_start_ms"),
        ("without a pause", "job_start_in_a_row_ms"),
        ("with devices", "job_start_devices_ms"),
    ]
    times.append(("kill past the deadline", "kill_past_deadline_ms"))
    rows = [[what, f"{figures[key]['p50']:.2f}", f"{figures[key]['p99']:.2f}"] for what, key in times]
    print_table([["", "p50 ms", "p99 ms"], *rows])
    print()
    print_table([["host call", "ns"], *([kind, f"{took:,.1f}"] for kind, took in figures["host_call_ns"].items())])
    print(f"\nAn idle agent holds {figures['idle_pss_mb']} MB in {len(figures['idle_processes'])} processes.")
    missed = [target for target in figures["targets"] if not target["met"]]
    print(f"{len(figures['targets']) - len(missed)} of {len(figures['targets'])} targets met.")
    for target in missed:
        print(f"  missed: {target['name']} {target['measured']}, at most {target['limit']:g}")


def _cells(row: dict[str, Any]) -> list[str]:
    ratios = (row["over_plain"], row["over_native"], row["over_tuned"])
    return [row["name"], f"{row['sandboxed_ms']:.2f}", *(f"{ratio:.3f}" for ratio in ratios)]


def _tell(what: str) -> None:
    """Says on a terminal what takes its time; silent elsewhere."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{what}")
