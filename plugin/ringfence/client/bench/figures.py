"""What the benchmarks make of their samples: medians, tails and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence


def summary(micros: Sequence[float]) -> dict[str, float]:
    """The median and the 99th percentile (nearest rank) of times in microseconds."""
    ordered = sorted(micros)
    return {
        "p50_us": round(statistics.median(ordered), 1),
        "p99_us": round(ordered[-(-99 * len(ordered) // 100) - 1], 1),
    }


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """How many times the median of `below` the median of `above` is."""
    return round(statistics.median(above) / statistics.median(below), 2)


def cells(summarised: Mapping[str, float]) -> list[str]:
    """A summary as two cells of a table."""
    return [f"{summarised['p50_us']:,.0f}", f"{summarised['p99_us']:,.0f}"]
