"""The audit log: what a record costs its caller, how many a second become durable, and how fast they are checked."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ringfence.client.bench.figures import cells, summary
from ringfence.errors import BAD_ARGUMENT, UsageError
from ringfence.terminal import print_table

if TYPE_CHECKING:
    from ringfence.audit import AuditLog, Record

SUMMARY: Final = "append, durability and verification of the audit log, beside raw fdatasync"
DESCRIPTION: Final = (
    "Writes the three records of a job (the gateway's decision, the agent's admission and its end) over and over into "
    "a log signed by the composite key, and checks the log afterwards. The rates are of one core: the process is held "
    "to a single one. The wait for durability is measured with one caller, in turns with a raw write and fdatasync of "
    "as many bytes on the same file system."
)
DEFAULT_RECORDS: Final = 300_000
LEAST_RECORDS: Final = 10_000
WAITS: Final = 500
APPENDS: Final = 20_000
PAUSE_EVERY: Final = 100
SAMPLES: Final = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence bench audit`."""
    parser.add_argument(
        "--records",
        type=int,
        default=DEFAULT_RECORDS,
        metavar="N",
        help="records to make durable and to check (%(default)s; about 720 bytes of disk each)",
    )
    parser.add_argument("--state", type=Path, metavar="DIR", help="write there; its file system is what is measured")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures; raises `usage.bad_argument` for too few records."""
    if arguments.records < LEAST_RECORDS:
        raise UsageError(
            BAD_ARGUMENT,
            f"Fewer than {LEAST_RECORDS} records say nothing about a rate.",
            field="records",
            hint=f"Ask for {DEFAULT_RECORDS} or more.",
        )
    if arguments.state is not None:
        arguments.state.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="ringfence-bench-audit-", dir=arguments.state))
    try:
        return audit(folder, arguments.records)
    finally:
        shutil.rmtree(folder)


def audit(folder: Path, records: int) -> dict[str, Any]:
    """The figures of logs in `folder`."""
    from ringfence.audit import AuditLog, Keys
    from ringfence.crypto import COMPOSITE
    from ringfence.trust import KeyPair

    signer = KeyPair(*COMPOSITE.generate())
    some = [record for number in range(1000) for record in _job(number)]

    def opened(name: str) -> AuditLog:
        return AuditLog.open(folder / name, signer, clock_ns=time.time_ns, verify=COMPOSITE.verify)

    with opened("append") as log:
        appends = _appends(log, some)
    with opened("wait") as log:
        waits, syncs = _waits(log, some, folder / "raw")
    with _one_core():
        with opened("rate") as log:
            rate, cpu_us, resident = _rate(log, some, records)
        started = time.perf_counter()
        opened("rate").close()
        opening_s = time.perf_counter() - started
        checked_s = _verify(folder / "rate", Keys(signer.public, COMPOSITE.verify), records)
    size = sum(path.stat().st_size for path in (folder / "rate").glob("records-*"))
    return {
        "records": records,
        "bytes_per_record": round(size / records),
        "append": summary(appends),
        "durable_per_second": round(rate),
        "cpu_us_per_durable_record": round(cpu_us, 2),
        "durability_wait": summary(waits),
        "raw_fdatasync": summary(syncs),
        "durability_wait_over_fdatasync": {
            "p50": _over(summary(waits)["p50_us"], summary(syncs)["p50_us"]),
            "p99": _over(summary(waits)["p99_us"], summary(syncs)["p99_us"]),
        },
        "resident_mib": {"first_half": resident[0], "second_half": resident[1]},
        "opening_s": round(opening_s, 3),
        "verified_per_second": round(records / checked_s),
    }


def show(figures: dict[str, Any]) -> None:
    """Prints the figures for people."""
    print(f"{figures['records']:,} records of {figures['bytes_per_record']} bytes, held to one core\n")
    rows = [["", "p50 us", "p99 us"]]
    rows += [
        [title, *cells(figures[name])]
        for title, name in (
            ("wait for durability, one caller", "durability_wait"),
            ("raw write and fdatasync of as much", "raw_fdatasync"),
        )
    ]
    print_table(rows)
    append, over, resident = figures["append"], figures["durability_wait_over_fdatasync"], figures["resident_mib"]
    print(
        f"\nappend: {append['p50_us']:.1f} us of the caller's CPU (p99 {append['p99_us']:.1f})\n"
        f"durable: {figures['durable_per_second']:,} records a second, {figures['cpu_us_per_durable_record']} us of "
        f"CPU each\nwait over raw fdatasync: {over['p50']} at the median, {over['p99']} at p99\n"
        f"verified: {figures['verified_per_second']:,} records a second; opened again in {figures['opening_s']} s\n"
        f"resident: {resident['first_half']} MiB in the first half, {resident['second_half']} in the second"
    )


def _job(number: int) -> Iterator[Record]:
    """The records of one job, as gateway and agent write them."""
    from ringfence.audit import Decision, Job, JobLimits, Stage

    digest = f"{number:064x}"
    names = (("session", 12), ("integrity", 41), ("device", 4), ("risk", 9), ("policy", 93))
    session, grant, job = f"s-{number:030x}", f"g-{number:030x}", f"{number:032x}"
    yield Decision(
        decision_id=f"{number:032x}",
        pipeline="request",
        verdict="allow",
        session=session,
        principal="alice@example.com",
        action="submit",
        resource="/v1/jobs",
        stages=tuple(Stage(name, "allow", "", micros) for name, micros in names),
        policies=("permit-jobs",),
        bundle_digest=digest,
        attestation_digest=digest,
        grant_id=grant,
        body_digest=digest,
        duration_us=159,
    )
    limits = JobLimits(memory_bytes=2**30, deadline_ms=1000, output_bytes=2**20)
    yield Job(
        event="admitted",
        job_id=job,
        session=session,
        principal="alice@example.com",
        grant_id=grant,
        spent_until=1_900_000_000,
        nonce=f"{number:032x}",
        module_digest=digest,
        input_digest=digest,
        limits=limits,
    )
    yield Job(
        event="finished",
        job_id=job,
        session=session,
        principal="alice@example.com",
        grant_id=grant,
        result_digest=digest,
        receipt_digest=digest,
        duration_us=4321,
    )


def _appends(log: AuditLog, records: list[Record]) -> list[float]:
    """Microseconds of its own CPU that each append took its caller, without the clock's; in bursts, as jobs come."""
    clock = time.thread_time_ns
    overhead = statistics.median(-(clock() - clock()) for _ in range(1000))
    taken: list[float] = []
    for number in range(APPENDS):
        record = records[number % len(records)]
        started = clock()
        ticket = log.append(record)
        taken.append((clock() - started - overhead) / 1000)
        if number % PAUSE_EVERY == 0:
            log.wait(ticket)
    return taken


def _waits(log: AuditLog, records: list[Record], raw: Path) -> tuple[list[float], list[float]]:
    """Microseconds from append to durable for one caller, and of a raw write and fdatasync, in turns."""
    from ringfence.audit.records import encode_data

    waits: list[float] = []
    syncs: list[float] = []
    descriptor = os.open(raw, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for number in range(WAITS):
            record = records[number % len(records)]
            started = time.perf_counter()
            log.wait(log.append(record))
            waits.append((time.perf_counter() - started) * 1e6)
            data = encode_data(record).ljust(720, b" ")
            started = time.perf_counter()
            os.write(descriptor, data)
            os.fdatasync(descriptor)
            syncs.append((time.perf_counter() - started) * 1e6)
    finally:
        os.close(descriptor)
    return waits, syncs


def _rate(log: AuditLog, records: list[Record], count: int) -> tuple[float, float, tuple[int, int]]:
    """Durable records a second, CPU microseconds for each, and the most memory in either half, in MiB."""
    halves: list[list[int]] = [[], []]
    every = max(1, count // SAMPLES)
    cpu, started = time.process_time(), time.perf_counter()
    for number in range(count):
        ticket = log.append(records[number % len(records)], timeout_s=60.0)
        if number % every == every - 1:
            halves[number * 2 // count].append(_resident_mib())
    log.wait(ticket, timeout_s=60.0)
    wall, spent = time.perf_counter() - started, time.process_time() - cpu
    return count / wall, spent / count * 1e6, (max(halves[0]), max(halves[1]))


def _verify(folder: Path, keys: Any, records: int) -> float:
    from ringfence.audit import verify_log
    from ringfence.audit.folder import read_layout

    layout = read_layout(folder)
    started = time.perf_counter()
    report = verify_log(layout.pieces(), layout.notes(layout.note_sizes()), keys)
    taken = time.perf_counter() - started
    report.check()
    if report.records != records or report.uncovered:
        raise AssertionError(f"{report.records} of {records} records were found, {report.uncovered} not covered")
    return taken


@contextmanager
def _one_core() -> Iterator[None]:
    """Holds the process, and the threads it starts meanwhile, to one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _resident_mib() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


def _over(above: float, below: float) -> float:
    return round(above / below, 2)
