"""Policies: what a decision costs compiled and by cedarpy, and how long a request waits while a bundle is reloaded."""

from __future__ import annotations

import argparse
from typing import Any, Final, Protocol

from ringfence.client.bench import policy_decisions, policy_diff, policy_reload, policy_replay
from ringfence.errors import BAD_ARGUMENT, UsageError

SUMMARY: Final = "decisions by compiled policies beside cedarpy, hot reload, replay and semantic difference"
DESCRIPTION: Final = (
    "Decides one job over and over by ten and by a thousand policies, compiled and by cedarpy in the same run, and by "
    "a thousand that no index helps with. Then decides a request every half a millisecond while a thousand policies "
    "are reloaded, and gives the longest time that one of them had to wait. Replays 100,000 recorded decisions, and "
    "compares two bundles of a hundred policies."
)
DEFAULT_DECISIONS: Final = 20_000
LEAST_DECISIONS: Final = 200


class Section(Protocol):
    """One part of the figures, by the key that it has among them."""

    KEY: str

    def measure(self, decisions: int) -> dict[str, Any]:
        """Its figures."""
        ...

    def show(self, figures: dict[str, Any]) -> None:
        """Prints them for people."""
        ...


SECTIONS: Final[tuple[Section, ...]] = (policy_decisions, policy_reload)


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence bench policy`."""
    parser.add_argument(
        "--decisions",
        type=int,
        default=DEFAULT_DECISIONS,
        metavar="N",
        help="compiled decisions to time (%(default)s); cedarpy makes a hundredth of them",
    )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures; raises `usage.bad_argument` for too few decisions."""
    from ringfence.policies.compiled.decider import CompiledDecider

    if arguments.decisions < LEAST_DECISIONS:
        raise UsageError(
            BAD_ARGUMENT,
            f"Fewer than {LEAST_DECISIONS} decisions say nothing about a median.",
            field="decisions",
            hint=f"Ask for {DEFAULT_DECISIONS} or more.",
        )
    figures = {section.KEY: section.measure(arguments.decisions) for section in SECTIONS}
    return figures | {"replay": policy_replay.measure(CompiledDecider), "diff": policy_diff.measure()}


def show(figures: dict[str, Any]) -> None:
    """Prints the figures for people."""
    for section in SECTIONS:
        section.show(figures[section.KEY])
    replay, diff = figures["replay"], figures["diff"]
    print(f"\nreplay: {replay['per_second']:,} recorded decisions a second; the counts agree: {replay['agrees']}")
    print(f"diff of two bundles of 100 policies: {diff['seconds_100']} s, {diff['witnesses']} witnesses, all confirmed")
