"""The gate: decisions, openings, sessions, risk, and what each host adapter adds to them."""

from __future__ import annotations

import argparse
from typing import Any, Final

from ringfence.client.bench.figures import cells
from ringfence.errors import BAD_ARGUMENT, UsageError
from ringfence.terminal import print_table

SUMMARY: Final = "decisions on signed requests, openings of sessions, the session store, and risk"
DESCRIPTION: Final = (
    "Composes a gateway as its daemon does, with its real audit log and 10,000 sessions, and decides on signed "
    "requests of 4 KiB with a nonce of their own. Decision time and the wait for the record's durability are given "
    "apart. Before it measures, it has each stage refuse what that stage must refuse. Times in microseconds."
)
REQUESTS: Final = 30_000
SESSIONS: Final = 10_000
LIVE: Final = 1_000_000


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence bench gate`."""
    parser.add_argument(
        "--requests", type=int, default=REQUESTS, metavar="N", help="requests to decide on (%(default)s)"
    )
    parser.add_argument(
        "--sessions", type=int, default=LIVE, metavar="N", help="sessions in the store's own measurement (%(default)s)"
    )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures; raises `usage.bad_argument` for too few requests, and `bench.broken`."""
    from ringfence.client.bench import gate_decisions, gate_risk, gate_sessions

    for name, value, least in (("requests", arguments.requests, 1000), ("sessions", arguments.sessions, 1000)):
        if value < least:
            raise UsageError(BAD_ARGUMENT, f"Fewer than {least} say nothing.", field=name, hint=f"Ask for {least}.")
    figures = gate_decisions.measure(requests=arguments.requests, sessions=SESSIONS)
    return figures | {
        "risk": gate_risk.measure(),
        "store": gate_sessions.measure(count=arguments.sessions),
    }


def show(figures: dict[str, Any]) -> None:
    """Prints the figures for people."""
    decision, cedarpy, answer = figures["decision"], figures["with_cedarpy"], figures["whole_answer"]
    print(f"{figures['sessions']:,} sessions, {figures['policies']} policies, signed bodies of 4 KiB\n")
    print_table(
        [
            ["", "p50 us", "p99 us", "a second"],
            ["decision, policies compiled", *cells(decision), f"{decision['per_second']:,}"],
            ["decision, policies in cedarpy", *cells(cedarpy), f"{cedarpy['per_second']:,}"],
            [f"whole answer, {answer['at_once']} at once", *cells(answer["answer"]), f"{answer['per_second']:,}"],
            ["  of it the wait for durability", *cells(answer["wait_for_durability"]), ""],
            ["opening a session", *cells(figures["opening"]), ""],
        ]
    )
    print("\nRefused, as it must be: " + ", ".join(f"{stage} {code}" for stage, code in figures["refused_by"].items()))
    for name in ("store", "risk"):
        print(f"\n{name}")
        for key, value in figures[name].items():
            print(f"  {key}: {value}")
