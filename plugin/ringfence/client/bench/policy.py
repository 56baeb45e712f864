"""Policies: what a decision costs compiled and by cedarpy, and how long a request waits while a bundle is reloaded."""

from __future__ import annotations

import argparse
from typing import Any, Final, Protocol

from ringfence.client.bench import policy_decisions, policy_reload
from ringfence.errors import BAD_ARGUMENT, UsageError

SUMMARY: Final = "decisions by compiled policies beside cedarpy, and hot reload"
DESCRIPTION: Final = (
    "Decides one job over and over by ten and by a thousand policies, compiled and by cedarpy in the same run, and by "
    "a thousand that no index helps with. Then decides a request every half a millisecond while a thousand policies "
    "are reloaded, and gives the longest time that one of them had to wait."
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
    if arguments.decisions < LEAST_DECISIONS:
        raise UsageError(
            BAD_ARGUMENT,
            f"Fewer than {LEAST_DECISIONS} decisions say nothing about a median.",
            field="decisions",
            hint=f"Ask for {DEFAULT_DECISIONS} or more.",
        )
    return {section.KEY: section.measure(arguments.decisions) for section in SECTIONS}


def show(figures: dict[str, Any]) -> None:
    """Prints the figures for people."""
    for section in SECTIONS:
        section.show(figures[section.KEY])
