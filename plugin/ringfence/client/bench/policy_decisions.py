"""What a decision costs by ten and by a thousand policies: compiled, and by cedarpy in the same run."""

from __future__ import annotations

import gc
import statistics
import time
from typing import TYPE_CHECKING, Any, Final

from ringfence.client.bench.policy_bundles import CANDIDATES, job, ten, thousand, worst
from ringfence.terminal import print_table

if TYPE_CHECKING:
    from ringfence.policies import Decider, Query, Verdict

KEY: Final = "decision"
_ROUND: Final = 20
"""Decisions in one timed round: the clock's own cost is spread over them."""


def measure(decisions: int) -> dict[str, Any]:
    """The figures, in microseconds a decision; raises `AssertionError` where compiled code and cedarpy disagree."""
    from ringfence.policies.compiled.decider import CompiledDecider
    from ringfence.policies.engine import CedarDecider

    query = job()
    figures: dict[str, Any] = {"candidates_1000": CANDIDATES}
    for name, bundle in (("10", ten()), ("1000", thousand()), ("worst", worst())):
        compiled, cedar = CompiledDecider(bundle), CedarDecider(bundle)
        if compiled.uncovered or not _same(compiled.decide(query), cedar.decide(query)):
            raise AssertionError(f"the engines disagree on {bundle.name}")
        rounds = decisions // _ROUND // (10 if name == "worst" else 1)
        suffix = "us_1000" if name == "worst" else f"us_{name}"
        prefix = "worst_" if name == "worst" else ""
        for engine, decider, count in (("", compiled, rounds), ("cedarpy_", cedar, max(5, rounds // 100))):
            times = _times(decider, query, count, 1 if engine else _ROUND)
            figures[f"{prefix}{engine}p50_{suffix}"] = round(statistics.median(times), 2)
            if not engine:
                figures[f"{prefix}p99_{suffix}"] = round(sorted(times)[-(-99 * len(times) // 100) - 1], 2)
    return figures


def show(figures: dict[str, Any]) -> None:
    """Prints the figures for people."""
    print(f"one decision, in microseconds; {figures['candidates_1000']} of 1,000 policies are left by the index\n")
    rows = [["policies", "compiled p50", "p99", "cedarpy p50"]]
    rows += [
        [title, *(f"{figures[prefix + name + suffix]:,.2f}" for name in ("p50_us_", "p99_us_", "cedarpy_p50_us_"))]
        for title, prefix, suffix in (
            ("10", "", "10"),
            ("1,000", "", "1000"),
            ("1,000, no index helps", "worst_", "1000"),
        )
    ]
    print_table(rows)


def _times(decider: Decider, query: Query, rounds: int, each: int) -> list[float]:
    """Microseconds a decision, one number for each round of `each`."""
    decide, clock = decider.decide, time.perf_counter_ns
    times: list[float] = []
    gc.collect()
    for _ in range(rounds):
        started = clock()
        for _ in range(each):
            decide(query)
        times.append((clock() - started) / 1000 / each)
    return times


def _same(one: Verdict, other: Verdict) -> bool:
    return one == other and one.allowed
