"""List the cryptographic algorithms, who provides each of them here, and how far its standard has come."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from ringfence.terminal import print_json, print_table

if TYPE_CHECKING:
    from ringfence.crypto.catalogue import Entry

UNAVAILABLE: Final = "unavailable"


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence crypto`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser(
        "list",
        help="each algorithm, its provider, its standard and its status",
        description="List each algorithm with its provider, its standard and its status. `*` marks the provider in "
        "use where there are several. A status is `standard`, `draft` (published, may still change), `experimental` "
        "(only ever an additional share of a session key), or `unavailable` with the reason.",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the list."""
    from ringfence.crypto.catalogue import entries

    rows = entries()
    if arguments.json:
        print_json({"algorithms": [_document(entry) for entry in rows]})
        return 0
    print_table([["", "ALGORITHM", "FOR", "PROVIDER", "STANDARD", "STATUS"], *map(_row, rows)])
    reasons = dict.fromkeys(f"{entry.provider}: {entry.absence}" for entry in rows if entry.absence)
    if reasons:
        print("\nUnavailable, and why:")
        for reason in reasons:
            print(f"  {reason}")
    return 0


def _status(entry: Entry) -> str:
    return UNAVAILABLE if entry.absence else entry.offer.standing.value


def _row(entry: Entry) -> list[str]:
    offer = entry.offer
    return ["*" if entry.used else "", offer.name, offer.family.value, entry.provider, offer.standard, _status(entry)]


def _document(entry: Entry) -> dict[str, object]:
    return {
        "name": entry.offer.name,
        "family": entry.offer.family.value,
        "provider": entry.provider,
        "standard": entry.offer.standard,
        "status": _status(entry),
        "reason": entry.absence,
        "used": entry.used,
    }
