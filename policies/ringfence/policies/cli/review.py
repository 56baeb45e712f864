"""`ringfence policy review`: one comment that joins diff, replay, tests and coverage."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ringfence.policies.cli.source import add_bundle, decider, open_bundle, own_policies, write_file
from ringfence.terminal import print_json

if TYPE_CHECKING:
    from ringfence.policies.replay import Replay
    from ringfence.policies.review import Side

SUMMARY: Final = "write one Markdown comment on a proposed bundle"
DESCRIPTION: Final = (
    "Join what changes between two bundles, proven by requests, with a replay of a log, the cases and their coverage "
    "into one Markdown comment. Text of the bundles is escaped, and names from the log are numbers. Exit status 1 "
    "where the proposed bundle does not load, its cases fail, or more than a note was found; a change of decisions "
    "alone is for the reviewer. Needs no signature, and the extra `policy-tools`."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_bundle(parser, "base", "BASE", "the bundle as it is: a folder or a shipped bundle's name")
    add_bundle(parser, "head", "HEAD", "the proposed bundle")
    parser.add_argument("--log", type=Path, metavar="DIR", help="an audit log, or a folder of logs, to replay")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the public key of the log's owner: check it first")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the comment there")


def run(arguments: argparse.Namespace) -> int:
    """Writes the comment."""
    from ringfence.policies.analysis.diff import difference
    from ringfence.policies.analysis.findings import Level
    from ringfence.policies.cli.check import findings
    from ringfence.policies.review import Review, markdown, unloadable

    found = tuple(findings(arguments.head))
    base = _side(arguments.base)
    if any(finding.level is Level.ERROR for finding in found):
        return _written(arguments, unloadable(arguments.head, found), sound=False, equal=None)
    head = _side(arguments.head)
    review = Review(
        base,
        head,
        difference(base.bundle, head.bundle),
        found,
        _replayed(arguments),
        arguments.key is not None,
    )
    return _written(arguments, markdown(review), sound=review.sound, equal=review.difference.equal)


def _side(name: str) -> Side:
    from ringfence.policies.analysis.coverage import measure
    from ringfence.policies.cases import run_cases
    from ringfence.policies.review import Side

    bundle = open_bundle(name)
    return Side(bundle, tuple(run_cases(bundle)), measure(bundle, own_policies(name)))


def _replayed(arguments: argparse.Namespace) -> Replay | None:
    from ringfence.policies.logs import check_logs, log_lines
    from ringfence.policies.replay import replay

    if arguments.log is None:
        return None
    if arguments.key is not None:
        from ringfence.trust.keys import load_public

        check_logs(arguments.log, load_public(arguments.key))
    return replay(log_lines(arguments.log), decider(open_bundle(arguments.head)))


def _written(arguments: argparse.Namespace, text: str, *, sound: bool, equal: bool | None) -> int:
    if arguments.output is not None:
        write_file(arguments.output, text, "--output")
    if arguments.json:
        print_json({"sound": sound, "equal": equal, "markdown": text})
    elif arguments.output is None:
        sys.stdout.write(text)
    return int(not sound)
