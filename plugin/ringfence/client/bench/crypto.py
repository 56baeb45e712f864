"""The cryptography, each operation beside the raw calls of its provider."""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ringfence.client.bench.figures import summary
from ringfence.errors import BAD_ARGUMENT, UsageError
from ringfence.terminal import print_table

if TYPE_CHECKING:
    from ringfence.client.bench.crypto_cases import Case

SUMMARY: Final = "each algorithm beside the raw calls of its provider"
DESCRIPTION: Final = (
    "Times each operation in turn with the calls of its provider that it comes down to, over plain bytes and with "
    "prepared keys. `over` is what ours costs on top: the median difference in the fastest quarter of the rounds (of "
    "ML-DSA signatures, whose time is random, between ours and the provider's part of the same one). An ML-DSA key in "
    "use stays expanded: its first use is a row of its own, without a target. Times in microseconds."
)
DEFAULT_ROUNDS: Final = 600
LEAST_ROUNDS: Final = 20

OVERHEAD_US: Final = 5.0
FAST_US: Final = 1_000.0
BIKE_US: Final = 10_000.0
PAGE_GBPS: Final = 10.0
PAGE_RATIO: Final = 1.15
# What is to take less than a millisecond; SLH-DSA where it verifies.
FAST: Final = ("ML-KEM-768", "ML-DSA-65", "X25519", "Ed25519", "HPKE-MLKEM768-X25519")
# The form whose key has to be expanded first. It is reported as it is: the provider alone takes about a millisecond.
FIRST_USE: Final = "first use"


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence bench crypto`."""
    parser.add_argument(
        "--rounds",
        type=int,
        default=DEFAULT_ROUNDS,
        metavar="N",
        help=f"how often to time the fast operations (%(default)s; at least {LEAST_ROUNDS}); slow ones less often",
    )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures; raises `usage.bad_argument` for too few rounds."""
    if arguments.rounds < LEAST_ROUNDS:
        raise UsageError(BAD_ARGUMENT, f"Fewer than {LEAST_ROUNDS} rounds give no median.", field="rounds")
    from ringfence.client.bench import crypto_cases as cases

    operations: list[dict[str, Any]] = []
    for family in (cases.kems, cases.envelopes, cases.signatures, cases.bikes):
        operations += [_row(case, arguments.rounds) for case in family()]
    pages = [_page(_row(case, 5 * arguments.rounds), cases.PAGE) for case in cases.pages()]
    return {
        "rounds": arguments.rounds,
        "operations": operations,
        "pages": pages,
        "targets": list(_targets(operations, pages)),
    }


def _row(case: Case, rounds: int) -> dict[str, Any]:
    ours, raw = _time(case, max(1, round(rounds * case.share)))
    row: dict[str, Any] = {
        "algorithm": case.algorithm,
        "operation": case.operation,
        "form": case.form,
        "ours": summary(ours),
        "raw": None,
        "overhead_us": None,
        "ratio": None,
    }
    if raw:
        row["raw"] = summary(raw)
    if raw and case.comparable:
        pairs = _undisturbed(ours, raw)
        row["overhead_us"] = round(statistics.median(mine - its for mine, its in pairs), 2)
        row["ratio"] = round(statistics.median(mine / its for mine, its in pairs), 3)
    return row


def _time(case: Case, rounds: int) -> tuple[list[float], list[float]]:
    """Microseconds of ours and of the provider's, one round of each in turn, or of the provider's part of ours.

    So whatever slows the machine slows both.
    """
    times: tuple[list[float], list[float]] = ([], [])
    calls = [(case.ours, times[0])] if case.raw is None else [(case.ours, times[0]), (case.raw, times[1])]
    for call, _ in calls:
        call()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            for call, into in calls:
                started = time.perf_counter_ns()
                call()
                into.append((time.perf_counter_ns() - started) / 1000)
            if case.within is not None:
                times[1].append(case.within())
            calls.reverse()
    finally:
        if collecting:
            gc.enable()
    return times


def _undisturbed(ours: Sequence[float], raw: Sequence[float]) -> Sequence[tuple[float, float]]:
    """The quarter of the rounds that were fastest: nothing else was running, and the clock had one speed for both."""
    rounds = sorted(zip(ours, raw, strict=True), key=sum)
    return rounds[: max(1, len(rounds) // 4)]


def _page(row: dict[str, Any], size: int) -> dict[str, Any]:
    speeds = {f"{who}_gbps": round(size / row[who]["p50_us"] / 1000, 1) for who in ("ours", "raw")}
    return {**row, **speeds}


def _targets(operations: Iterable[dict[str, Any]], pages: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for row in operations:
        name = f"{row['algorithm']} {row['operation']}, {row['form']}"
        verifies = row["algorithm"].startswith("SLH-DSA") and row["operation"] == "verify"
        if row["form"] == FIRST_USE:
            continue
        if row["algorithm"] in FAST or verifies:
            yield _target(f"{name}: p50 us", row["ours"]["p50_us"], FAST_US)
            yield _target(f"{name}: us over its provider", row["overhead_us"], OVERHEAD_US)
        elif row["algorithm"].startswith("BIKE-L1") and row["operation"] != "generate":
            yield _target(f"{name}: p50 us", row["ours"]["p50_us"], BIKE_US)
    for row in pages:
        if row["algorithm"] == "AES-256-GCM":
            met = row["ours_gbps"] >= PAGE_GBPS
            target = _target(f"AES-256-GCM {row['operation']}: times the raw call", row["ratio"], PAGE_RATIO)
            yield {**target, "met": met or target["met"]}


def _target(name: str, measured: float, limit: float) -> dict[str, Any]:
    return {"name": name, "measured": measured, "limit": limit, "met": measured <= limit}


def show(figures: dict[str, Any]) -> None:
    """Prints the figures for people."""
    heading = ["", "", "p50 us", "p99 us", "raw p50", "over us"]
    print_table([heading, *(_operation(row) for row in figures["operations"])])
    print()
    print_table([["pages", "GB/s", "raw GB/s", "ratio"], *(_speeds(row) for row in figures["pages"])])
    missed = [target for target in figures["targets"] if not target["met"]]
    print(f"\n{len(figures['targets']) - len(missed)} of {len(figures['targets'])} targets met.")
    for target in missed:
        print(f"  missed: {target['name']} {target['measured']}, at most {target['limit']:g}")


def _operation(row: dict[str, Any]) -> list[str]:
    ours, raw = row["ours"], row["raw"]
    over = row["overhead_us"]
    beside = ["" if raw is None else f"{raw['p50_us']:,.1f}", "" if over is None else f"{over:.2f}"]
    times = [f"{ours['p50_us']:,.1f}", f"{ours['p99_us']:,.1f}", *beside]
    return [f"{row['algorithm']} {row['operation']}", row["form"], *times]


def _speeds(row: dict[str, Any]) -> list[str]:
    name = f"{row['algorithm']} {row['operation']}"
    return [name, f"{row['ours_gbps']}", f"{row['raw_gbps']}", f"{row['ratio']:.3f}"]
