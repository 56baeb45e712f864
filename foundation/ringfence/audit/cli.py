"""Find, read, check and prove the audit log offline."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ringfence.audit import checking, reading
from ringfence.audit.errors import NOT_FOUND, AuditError
from ringfence.audit.files import OsFiles
from ringfence.audit.recovery import resume
from ringfence.terminal import print_json, printable


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    path = actions.add_parser("path", help="print the folder that holds a state directory's logs")
    path.add_argument("--state", type=Path, required=True, metavar="DIR", help="the state directory")

    reading.configure(actions)
    checking.configure(actions)

    let_go = actions.add_parser(
        "resume",
        help="let a log go on after a failed sync, as an operator's decision",
        description="After a failed sync nobody knows what the disk holds, so a log denies and is not opened again "
        "until an operator has looked at the disk and run this, with its process stopped. What was written behind the "
        "last acknowledged record is cut off, and the next opening puts the decision on record.",
    )
    let_go.add_argument("folder", type=Path, metavar="FOLDER", help="one log")


def run(arguments: argparse.Namespace) -> int:
    """Runs one action. Returns 1 when a log does not hold; raises AuditError or UsageError for bad input."""
    if arguments.action == "path":
        return _path(arguments.state, as_json=arguments.json)
    if arguments.action == "resume":
        return _resume(arguments.folder, as_json=arguments.json)
    if arguments.action in ("show", "tail", "export"):
        return reading.run(arguments)
    return checking.run(arguments, _algorithms())


def _path(state: Path, *, as_json: bool) -> int:
    folder = state / "audit"
    if not folder.is_dir():
        raise AuditError(
            NOT_FOUND,
            f"{state} holds no audit log.",
            field="--state",
            hint="Give the state directory of an agent or a gateway that has run.",
        )
    if as_json:
        print_json({"path": str(folder)})
    else:
        sys.stdout.write(f"{folder}\n")
    return 0


def _resume(folder: Path, *, as_json: bool) -> int:
    if not folder.is_dir():
        raise AuditError(NOT_FOUND, f"{folder} holds no audit log.", field="FOLDER", hint="Name the log's own folder.")
    found = resume(folder, OsFiles())
    if as_json:
        print_json({"folder": str(folder), "reason": found.reason})
    else:
        sys.stdout.write(printable(f"{folder}: may be opened again; it had stopped because {found.reason}") + "\n")
    return 0


def _algorithms() -> checking.Algorithms:
    # Here, because the log itself must not depend on a particular algorithm; only this command composes the two.
    from ringfence.crypto import COMPOSITE, key_id, signature
    from ringfence.crypto.forms import import_public

    return checking.Algorithms(
        COMPOSITE.verify, lambda: signature(checking.SECOND_ALGORITHM).verify, key_id, import_public
    )
