"""A minimal job through gateway and agent, split by stage, beside raw fdatasync."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from ringfence.client.bench.figures import cells, ratio, summary
from ringfence.errors import BAD_ARGUMENT, UsageError
from ringfence.terminal import print_table

DEFAULT_REQUESTS: Final = 300
MINIMAL_GUEST: Final = '(module (memory (export "memory") 1) (func (export "_start")))'


SUMMARY: Final = "a minimal job through gateway and agent, split by stage"
DESCRIPTION: Final = (
    "Runs minimal jobs one after another through a gateway and an agent of their own, and splits each into decision, "
    "wait for durability, job and transport. Raw fdatasync is measured between the jobs, on the same file system. "
    "Times in microseconds."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence bench spine`."""
    parser.add_argument(
        "--requests",
        type=int,
        default=DEFAULT_REQUESTS,
        metavar="N",
        help="jobs to run (%(default)s; at least 20); of fewer than 100 the p99 is the maximum",
    )
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="keep the state there; its file system is what is measured"
    )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures; raises `usage.bad_argument` for too few requests."""
    if arguments.requests < 20:
        raise UsageError(
            BAD_ARGUMENT, "Fewer than 20 requests say nothing.", field="requests", hint="Ask for 20, better for 100."
        )
    with tempfile.TemporaryDirectory(prefix="ringfence-bench-") as temporary:
        return spine(arguments.state or Path(temporary), arguments.requests)


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
        "ratios": {"durability_wait_over_fdatasync_p50": ratio(waits, syncs)},
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


def show(figures: dict[str, Any]) -> None:
    """Prints the figures for people."""
    print(f"{figures['requests']} minimal jobs; opening a session took {figures['opening_us']:,} us\n")
    rows = [["", "p50 us", "p99 us"], ["whole job, as the client sees it", *cells(figures["job"])]]
    rows += [[f"  {name.replace('_', ' ')}", *cells(values)] for name, values in figures["split"].items()]
    rows += [["raw fdatasync on the same file system", *cells(figures["raw_fdatasync"])]]
    rows += [[f"stage {name}", *cells(values)] for name, values in figures["warm_request"]["stages"].items()]
    print_table(rows)
    waited = figures["ratios"]["durability_wait_over_fdatasync_p50"]
    print(f"\nThe wait for durability is {waited} times a raw fdatasync at the median.")
