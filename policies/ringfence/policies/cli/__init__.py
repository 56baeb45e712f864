"""Write, check, test, compare, replay and sign policy bundles."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Final, Protocol

from ringfence.policies.cli import (
    check,
    cover,
    diff,
    explain,
    fmt,
    path,
    replay,
    review,
    sign,
    test,
    verify,
)


class Command(Protocol):
    """What a module of this package offers. It imports what is heavy inside its functions."""

    SUMMARY: str
    DESCRIPTION: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds its arguments."""
        ...

    def run(self, arguments: argparse.Namespace) -> int:
        """Runs it; returns 1 where what was looked at does not hold, and raises `RingfenceError` for bad input."""
        ...


COMMANDS: Final[Mapping[str, Command]] = {
    "path": path,
    "fmt": fmt,
    "check": check,
    "test": test,
    "coverage": cover,
    "explain": explain,
    "diff": diff,
    "replay": replay,
    "review": review,
    "sign": sign,
    "verify": verify,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence policy`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, command in COMMANDS.items():
        action = actions.add_parser(name, help=command.SUMMARY, description=command.DESCRIPTION)
        command.configure(action)


def run(arguments: argparse.Namespace) -> int:
    """Runs one action."""
    return COMMANDS[arguments.action].run(arguments)
