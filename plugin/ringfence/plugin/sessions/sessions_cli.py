"""List the live sessions of a running gateway."""

from __future__ import annotations

import argparse
from pathlib import Path

DEFAULT_LIMIT = 1000


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence gateway sessions`."""
    parser.description = "Lists the live sessions of a running gateway, in no particular order, without their keys."
    parser.add_argument("--socket", type=Path, required=True, metavar="PATH", help="the gateway's `admin` socket")
    parser.add_argument("--session", metavar="ID", default="", help="only this session")
    parser.add_argument("--principal", metavar="NAME", default="", help="only those of this pin, by its name or key id")
    parser.add_argument("--host", metavar="KEY_ID", default="", help="only sessions for this host")
    parser.add_argument("--bundle", metavar="DIGEST", default="", help="only sessions opened under this policy bundle")
    parser.add_argument(
        "--limit", type=int, metavar="N", default=DEFAULT_LIMIT, help="at most so many (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the sessions. Raises `GateError` where the gateway cannot be asked or refuses."""
    from itertools import islice

    import msgspec

    from ringfence.audit.selection import SECOND_NS, iso_time
    from ringfence.errors import BAD_ARGUMENT, UsageError
    from ringfence.plugin.sessions.desk import List
    from ringfence.plugin.sessions.desk_client import Desk
    from ringfence.terminal import print_json, print_table

    if arguments.limit < 1:
        raise UsageError(BAD_ARGUMENT, "--limit must be 1 or more.", field="--limit", hint="Leave it out for 1000.")
    question = List(arguments.session, arguments.principal, arguments.host, arguments.bundle)
    with Desk(arguments.socket) as desk:
        shown = list(islice(desk.sessions(question), arguments.limit))
    if arguments.json:
        print_json({"sessions": [msgspec.to_builtins(view) for view in shown]})
        return 0
    rows = [["session", "principal", "host", "status", "factors", "bound", "source", "expires"]]
    rows += [
        [
            view.session,
            view.principal,
            view.host,
            view.status,
            ",".join(view.factors),
            "yes" if view.channel_bound else "no",
            view.source,
            iso_time(view.expires_at * SECOND_NS),
        ]
        for view in shown
    ]
    print_table(rows)
    return 0
