"""Watch what a gateway decides, live: decisions, threats and the ends of sessions."""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ringfence.errors import BAD_ARGUMENT, UsageError
from ringfence.plugin.threats.errors import WATCH_UNAVAILABLE, WatchError
from ringfence.plugin.threats.watch import MAX_LINE, DecisionSeen, Event, Gap, SessionEnded, ThreatSeen, decode_event
from ringfence.terminal import printable


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.description = (
        "Prints each decision, threat and end of a session as it happens, until it is interrupted. With --json one "
        "document a line. Only the gateway's own user and root may watch."
    )
    parser.add_argument("--socket", type=Path, required=True, metavar="PATH", help="the gateway's `feed` socket")
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N events")
    parser.add_argument(
        "--only",
        choices=("decision", "threat", "session-ended"),
        metavar="EVENT",
        help="decision, threat, session-ended",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the feed. Raises `WatchError` or `UsageError`."""
    if arguments.limit is not None and arguments.limit < 1:
        raise UsageError(BAD_ARGUMENT, "--limit must be 1 or more.", field="--limit", hint="Leave it out for all.")
    shown = 0
    for line in feed_lines(arguments.socket):
        event = decode_event(line)
        if arguments.only and not isinstance(event, Gap) and _name(event) != arguments.only:
            continue
        sys.stdout.write((line.decode() if arguments.json else readable(event)) + "\n")
        sys.stdout.flush()
        shown += 1
        if shown == arguments.limit:
            break
    return 0


def feed_lines(path: Path) -> Iterator[bytes]:
    """The lines of the feed at `path` until the gateway ends it; `WatchError` threat.watch_unavailable."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(path))
        except OSError as error:
            raise WatchError(
                WATCH_UNAVAILABLE,
                f"There is no live feed at {path}: {error.strerror or error}.",
                field=str(path),
                hint="Start the gateway, run as its user, and name the socket that it serves the feed on.",
            ) from error
        rest = b""
        while chunk := connection.recv(65_536):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
            if len(rest) > MAX_LINE:
                yield rest  # no event is that long, and reading it says so
                return


def readable(event: Event) -> str:
    """One line for people."""
    match event:
        case DecisionSeen():
            what = "allow" if event.verdict == "allow" else f"{event.verdict} {event.code}"
            who = event.principal or "nobody known"
            said = f"{what:<34} {event.action or event.pipeline:<12} {who} from {event.source or 'unknown'}"
            said += f"  risk {event.risk}  {event.duration_us} us  {event.decision_id}"
        case ThreatSeen():
            until = f" until {_clock(event.until)}" if event.until else ""
            said = (
                f"THREAT {event.pattern} by the {event.against} {event.subject}, {event.count} times: "
                f"{event.reaction}{until}"
            )
        case SessionEnded():
            said = f"session {event.session} of {event.principal} ended: {event.code or 'closed'}"
        case Gap():
            return f"... {event.missed} events were left out, because this watcher was slow"
    return printable(f"{_clock(event.at)} {said}")


def _clock(at: int) -> str:
    try:
        return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}"
    except (OverflowError, ValueError, OSError):
        return str(at)


def _name(event: Event) -> str:
    return {DecisionSeen: "decision", ThreatSeen: "threat", SessionEnded: "session-ended"}.get(type(event), "gap")
