"""`ringfence policy coverage`: which policies and conditions the cases of a bundle exercise."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

from ringfence.policies.cli.source import add_bundle, open_bundle, own_policies
from ringfence.terminal import print_json, printable

if TYPE_CHECKING:
    from ringfence.policies.analysis.coverage import Coverage

SUMMARY: Final = "show which policies and conditions the cases exercise"
DESCRIPTION: Final = (
    "Show for each policy whether it held in a case, and for each of its conditions whether cases saw it true and "
    "false. A condition that is not looked at, because one before it settles the matter, counts as neither."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_bundle(parser)
    parser.add_argument("--missing", action="store_true", help="show only what is not covered")


def run(arguments: argparse.Namespace) -> int:
    """Prints the coverage."""
    from ringfence.policies.analysis.coverage import measure

    coverage = measure(open_bundle(arguments.bundle), own_policies(arguments.bundle))
    if arguments.json:
        print_json(document(coverage))
        return 0
    for policy in coverage.policies:
        if arguments.missing and policy.full:
            continue
        mark = "full   " if policy.full else "held   " if policy.held else "never  "
        sys.stdout.write(printable(f"{mark} {policy.policy.id}  ({policy.policy.file}:{policy.policy.line})") + "\n")
        for one in policy.conditions:
            if not one.full:
                seen = "only true" if one.true else "only false" if one.false else "never"
                sys.stdout.write(printable(f"          {seen:<11} {one.text}") + "\n")
    sys.stdout.write(f"policies {coverage.policy_ratio:.0%}, conditions {coverage.condition_ratio:.0%}\n")
    return 0


def document(coverage: Coverage) -> dict[str, object]:
    """The coverage as JSON."""
    return {
        "policy_coverage": coverage.policy_ratio,
        "condition_coverage": coverage.condition_ratio,
        "policies": [
            {
                "id": policy.policy.id,
                "file": policy.policy.file,
                "line": policy.policy.line,
                "held": policy.held,
                "failed": policy.failed,
                "conditions": [{"text": one.text, "true": one.true, "false": one.false} for one in policy.conditions],
            }
            for policy in coverage.policies
        ],
    }
