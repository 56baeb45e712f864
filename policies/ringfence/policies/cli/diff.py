"""`ringfence policy diff`: for which requests two bundles decide otherwise."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Final

from ringfence.policies.cli.source import add_bundle, open_bundle
from ringfence.terminal import print_json, printable

if TYPE_CHECKING:
    from ringfence.policies.analysis.diff import Difference

SUMMARY: Final = "compare two bundles: requests that are newly allowed or newly denied"
DESCRIPTION: Final = (
    "Compare what two bundles decide for every request that fits the schema, by SMT. For each action there is one "
    "request that is newly allowed and one that is newly denied, where there are such; Cedar has decided each for both "
    "bundles before it is shown. Any evaluation error denies. Exit status 0 where the bundles are equal, 1 where they "
    "are not or where it cannot be told. Needs no signature, and the extra `policy-tools`."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_bundle(parser, "before", "BEFORE", "the bundle as it is: a folder or a shipped bundle's name")
    add_bundle(parser, "after", "AFTER", "the bundle as it would be")


def run(arguments: argparse.Namespace) -> int:
    """Prints the difference."""
    from ringfence.policies.analysis.diff import difference

    found = difference(open_bundle(arguments.before), open_bundle(arguments.after))
    if arguments.json:
        print_json(document(found))
    else:
        for line in lines(found):
            sys.stdout.write(f"{printable(line)}\n")
    return 0 if found.equal else 1


def lines(found: Difference) -> list[str]:
    """The difference for people."""
    if found.equal:
        return ["The bundles decide the same for every request."]
    said = []
    for witness in found.witnesses:
        note = "" if witness.request.reachable else " (no gateway asks this: a value is out of its range)"
        said.append(
            f"{witness.change}: {witness.request.action.value}, with {json.dumps(witness.request.unusual())}{note}"
        )
        for side, answer in (("before", witness.before), ("after", witness.after)):
            why = ", ".join(answer.policies) or "; ".join(answer.errors) or "no policy permits it"
            said.append(f"  {side}: {answer.word}, {why}")
    if found.equal is None:
        said.append("Whether the bundles decide the same cannot be told:")
        said += [f"  {one.side} {one.policy}: {one.reason}" for one in found.unclear]
    return said


def document(found: Difference) -> dict[str, object]:
    """The difference as JSON."""
    return {
        "equal": found.equal,
        "witnesses": [
            {
                "change": witness.change,
                "request": witness.request.document(),
                "reachable": witness.request.reachable,
                "before": witness.before.word,
                "after": witness.after.word,
                "policies_before": list(witness.before.policies),
                "policies_after": list(witness.after.policies),
                "errors_before": list(witness.before.errors),
                "errors_after": list(witness.after.errors),
            }
            for witness in found.witnesses
        ],
        "unclear": [{"side": one.side, "policy": one.policy, "reason": one.reason} for one in found.unclear],
    }
