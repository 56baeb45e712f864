"""End sessions of a running gateway at once and for good."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence gateway revoke`."""
    parser.description = (
        "Ends one session, or all sessions that a principal, a host or a policy bundle has now, and waits until that "
        "is durable: they do not come back when the gateway starts again. It does not keep anybody from opening new "
        "ones; `ringfence trust remove` does."
    )
    parser.add_argument("--socket", type=Path, required=True, metavar="PATH", help="the gateway's `admin` socket")
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--session", metavar="ID", help="this session")
    whose.add_argument("--principal", metavar="NAME", help="all sessions of this pin, by its name or key id")
    whose.add_argument("--host", metavar="KEY_ID", help="all sessions for this host")
    whose.add_argument("--bundle", metavar="DIGEST", help="all sessions opened under this policy bundle")


def run(arguments: argparse.Namespace) -> int:
    """Revokes, and says how many live sessions have ended. Raises `GateError`."""
    import sys

    from ringfence.errors import BAD_ARGUMENT, UsageError
    from ringfence.plugin.sessions.desk_client import Desk
    from ringfence.plugin.sessions.revocations import Of
    from ringfence.terminal import print_json

    asked: list[tuple[Of, str | None]] = [
        ("session", arguments.session),
        ("principal", arguments.principal),
        ("host", arguments.host),
        ("bundle", arguments.bundle),
    ]
    of, value = next((of, value) for of, value in asked if value is not None)
    if not 1 <= len(value) <= 256:
        raise UsageError(BAD_ARGUMENT, f"--{of} has 1 to 256 characters.", field=f"--{of}", hint="Name one.")
    with Desk(arguments.socket) as desk:
        ended = desk.revoke(of, value)
    if arguments.json:
        print_json({"revoked": {"of": of, "value": value, "sessions": ended}})
    else:
        sys.stdout.write(f"revoked; {ended} live {'session' if ended == 1 else 'sessions'} ended\n")
    return 0
