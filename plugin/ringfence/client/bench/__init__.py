"""Measure what Ringfence promises on speed, on this machine: medians, tails and ratios paired in one run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Final, Protocol

from ringfence.client.bench import audit, crypto, gate, policy, sandbox, spine
from ringfence.terminal import print_json


class Benchmark(Protocol):
    """What a module of this package offers. It imports what is heavy inside its functions."""

    SUMMARY: str
    DESCRIPTION: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds its arguments."""
        ...

    def measure(self, arguments: argparse.Namespace) -> dict[str, Any]:
        """Runs it and gives its figures, as they are printed with `--json`."""
        ...

    def show(self, figures: dict[str, Any]) -> None:
        """Prints the figures for people."""
        ...


BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "audit": audit,
    "crypto": crypto,
    "policy": policy,
    "gate": gate,
    "sandbox": sandbox,
    "spine": spine,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence bench`."""
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, benchmark in BENCHMARKS.items():
        benchmark.configure(names.add_parser(name, help=benchmark.SUMMARY, description=benchmark.DESCRIPTION))


def run(arguments: argparse.Namespace) -> int:
    """Runs one benchmark and prints its figures."""
    benchmark = BENCHMARKS[arguments.name]
    figures = benchmark.measure(arguments)
    if arguments.json:
        print_json(figures)
    else:
        benchmark.show(figures)
    return 0
