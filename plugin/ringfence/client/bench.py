"""Measure what Ringfence promises on speed, on this machine: medians, tails and ratios paired in one run."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ringfence.errors import BAD_ARGUMENT, UsageError
from ringfence.terminal import print_json, print_table

DEFAULT_REQUESTS: Final = 300
MINIMAL_GUEST: Final = '(module (memory (export "memory") 1) (func (export "_start")))'


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence bench`."""
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    spine = names.add_parser(
        "spine",
        help="a minimal job through gateway and agent, split by stage",
        description="Runs minimal jobs one after another through a gateway and an agent of their own, and splits each "
        "into decision, wait for durability, job and transport. Raw fdatasync is measured between the jobs, on the "
        "same file system. Times in microseconds.",
    )
    spine.add_argument(
        "--requests",
        type=int,
        default=DEFAULT_REQUESTS,
        metavar="N",
        help="jobs to run (%(default)s; at least 20); of fewer than 100 the p99 is the maximum",
    )
    spine.add_argument(
        "--state", type=Path, metavar="DIR", help="keep the state there; its file system is what is measured"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs one benchmark and prints its figures."""
    if arguments.requests < 20:
        raise UsageError(
            BAD_ARGUMENT, "Fewer than 20 requests say nothing.", field="requests", hint="Ask for 20, better for 100."
        )
    with tempfile.TemporaryDirectory(prefix="ringfence-bench-") as temporary:
        figures = spine(arguments.state or Path(temporary), arguments.requests)
    if arguments.json:
        print_json(figures)
    else:
        _show(figures)
    return 0


def spine(state: Path, requests: int) -> dict[str, Any]:
    """The figures of `requests` minimal jobs against a local installation in `state`."""
    import wasmtime

    from ringfence.client.local import LocalInstallation

    module = bytes(wasmtime.wat2wasm(MINIMAL_GUEST))
    totals: list[float] = []
    decisions: list[float] = []
    waits: list[float] = []
    jobs: list[float] = []
    syncs: list[float] = []
    stages: dict[str, list[float]] = {}
    with LocalInstallation(state) as local:
        opened = time.perf_counter()
        session = local.client().open_session()
        opening = (time.perf_counter() - opened) * 1e6
        for number in range(requests + 3):
            started = time.perf_counter()
            job = session.submit(module, b"")
            total = (time.perf_counter() - started) * 1e6
            if number < 3:  # the first ones load code
                continue
            totals.append(total)
            jobs.append(job.receipt.usage.wall_ms * 1000)
            for view in job.trace:
                stages.setdefault(view.name, []).append(view.micros)
            waits.append(stages["audit"][-1])
            decisions.append(sum(view.micros for view in job.trace if view.name != "audit"))
            syncs.append(_raw_sync(state))
            if session.expires_at - time.time() < 60:
                session = local.client().open_session()
            if sys.stderr.isatty() and number % 20 == 0:
                sys.stderr.write(f"\r{number}/{requests} jobs")
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    rest = [t - d - w - j for t, d, w, j in zip(totals, decisions, waits, jobs, strict=True)]
    return {
        "requests": requests,
        "opening_us": round(opening),
        "job": summary(totals),
        "split": {
            "decision": summary(decisions),
            "durability_wait": summary(waits),
            "sandbox": summary(jobs),
            "transport_and_agent": summary(rest),
        },
        "warm_request": {"stages": {name: summary(values) for name, values in stages.items()}},
        "raw_fdatasync": summary(syncs),
        "ratios": {"durability_wait_over_fdatasync_p50": _ratio(waits, syncs)},
    }


def _raw_sync(folder: Path) -> float:
    """Microseconds of one append of 512 bytes and its fdatasync."""
    descriptor = os.open(folder / "raw-sync", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, b"\0" * 512)
        started = time.perf_counter()
        os.fdatasync(descriptor)
        return (time.perf_counter() - started) * 1e6
    finally:
        os.close(descriptor)


def summary(micros: Sequence[float]) -> dict[str, float]:
    """The median and the 99th percentile (nearest rank) of times in microseconds."""
    ordered = sorted(micros)
    return {
        "p50_us": round(statistics.median(ordered), 1),
        "p99_us": round(ordered[-(-99 * len(ordered) // 100) - 1], 1),
    }


def _ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return round(statistics.median(above) / statistics.median(below), 2)


def _show(figures: dict[str, Any]) -> None:
    print(f"{figures['requests']} minimal jobs; opening a session took {figures['opening_us']:,} us\n")
    rows = [["", "p50 us", "p99 us"], ["whole job, as the client sees it", *_cells(figures["job"])]]
    rows += [[f"  {name.replace('_', ' ')}", *_cells(values)] for name, values in figures["split"].items()]
    rows += [["raw fdatasync on the same file system", *_cells(figures["raw_fdatasync"])]]
    rows += [[f"stage {name}", *_cells(values)] for name, values in figures["warm_request"]["stages"].items()]
    print_table(rows)
    ratio = figures["ratios"]["durability_wait_over_fdatasync_p50"]
    print(f"\nThe wait for durability is {ratio} times a raw fdatasync at the median.")


def _cells(times: dict[str, float]) -> list[str]:
    return [f"{times['p50_us']:,.0f}", f"{times['p99_us']:,.0f}"]
