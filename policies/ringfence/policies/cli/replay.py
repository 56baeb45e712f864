"""`ringfence policy replay`: recorded decisions against a proposed bundle."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ringfence.policies.cli.source import add_bundle, decider, open_bundle
from ringfence.terminal import print_json, printable

if TYPE_CHECKING:
    from ringfence.policies.replay import Replay

SUMMARY: Final = "take recorded decisions again by a proposed bundle"
DESCRIPTION: Final = (
    "Take every decision of an audit log again by a proposed bundle, and count what changes, and for whom. What was "
    "refused before the policies were asked is counted apart. Exit status 1 where a decision changes. Needs no "
    "signature. With --key the log is checked first."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_bundle(parser)
    parser.add_argument("--log", type=Path, required=True, metavar="DIR", help="what `ringfence audit path` prints")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the public key of the log's owner: check it first")
    parser.add_argument("--mask", action="store_true", help="give numbers for the names of principals and resources")


def run(arguments: argparse.Namespace) -> int:
    """Replays the log."""
    from ringfence.policies.logs import check_logs, log_lines
    from ringfence.policies.replay import replay

    bundle = open_bundle(arguments.bundle)
    if arguments.key is not None:
        from ringfence.trust.keys import load_public

        check_logs(arguments.log, load_public(arguments.key))
    report = replay(log_lines(arguments.log), decider(bundle))
    verified = arguments.key is not None
    if arguments.json:
        print_json(document(report, verified=verified, mask=arguments.mask))
    else:
        for line in lines(report, verified=verified, mask=arguments.mask):
            sys.stdout.write(f"{printable(line)}\n")
    return int(bool(report.changed))


def lines(report: Replay, *, verified: bool, mask: bool) -> list[str]:
    """The report for people."""
    said = document(report, verified=verified, mask=mask)
    out = [
        f"{report.replayed} decisions replayed: {report.unchanged} unchanged, "
        f"{report.changed['newly allowed']} newly allowed, {report.changed['newly denied']} newly denied"
    ]
    out += [f"{count} not replayed: {reason.value}" for reason, count in report.passed.items()]
    for title, rows in (("whom", said["principals"]), ("what", said["actions"]), ("by policy", said["policies"])):
        for row in rows if isinstance(rows, list) else []:
            name = row.get("principal", row.get("action", row.get("policy"))) or "(none)"
            out.append(f"  {row['count']:>8}  {row['change']:<14} {title}: {name}")
    if not verified:
        out.append("The log was not checked against a key: give its owner's public key with --key.")
    return out


def document(report: Replay, *, verified: bool, mask: bool) -> dict[str, object]:
    """The report as JSON; names as numbers with `mask`."""
    from ringfence.policies.analysis.requests import as_asked
    from ringfence.policies.masking import Mask

    principal, resource = Mask("caller"), Mask("resource")
    whom = [
        {"change": change, "principal": principal(name) if mask and name else name, "count": count}
        for (change, name), count in report.principals.most_common()
    ]
    examples = []
    for one in report.examples:
        asked = as_asked(one.query).document()
        if mask:
            asked = {
                "principal": principal(one.query.principal),
                "action": one.query.action.value,
                "resource": resource(one.query.resource),
            }
        examples.append(
            {"change": one.change, "request": asked, "policies": list(one.policies), "errors": list(one.errors)}
        )
    return {
        "replayed": report.replayed,
        "unchanged": report.unchanged,
        "newly_allowed": report.changed["newly allowed"],
        "newly_denied": report.changed["newly denied"],
        "errors": report.errors,
        "not_replayed": {reason.name.lower(): count for reason, count in report.passed.items()},
        "verified": verified,
        "principals": whom,
        "actions": [
            {"change": change, "action": name, "count": count} for (change, name), count in report.actions.most_common()
        ],
        "policies": [
            {"change": change, "policy": name, "count": count}
            for (change, name), count in report.policies.most_common()
        ],
        "examples": examples,
    }
