"""`ringfence policy explain`: why a bundle answers as it does, and what would turn the answer."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ringfence.errors import BAD_ARGUMENT, UsageError
from ringfence.policies.cli.source import add_bundle, decider, open_bundle
from ringfence.terminal import print_json, printable

if TYPE_CHECKING:
    from ringfence.policies.analysis.explaining import Explanation
    from ringfence.policies.bundle import Bundle
    from ringfence.policies.decision import Query

SUMMARY: Final = "say why a query is answered as it is, and what would turn the answer"
DESCRIPTION: Final = (
    "Show which policies decided, which condition kept each other one whose head matches from holding, and which "
    "single change of the context or the groups would turn the answer. The query is a JSON document, such as the "
    "request of a witness of `ringfence policy diff --json`, or the name of a case."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_bundle(parser)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument(
        "--query",
        type=Path,
        metavar="FILE",
        help="JSON: principal, groups, action, resource, and in context what differs from a case's base",
    )
    asked.add_argument("--case", metavar="NAME", help="a case of the bundle")


def run(arguments: argparse.Namespace) -> int:
    """Prints the explanation; 0 whatever the answer is."""
    from ringfence.policies.analysis.explaining import explain

    bundle = open_bundle(arguments.bundle)
    explanation = explain(bundle, decider(bundle), _query(arguments, bundle))
    if arguments.json:
        print_json(document(explanation))
        return 0
    for line in lines(explanation):
        sys.stdout.write(f"{printable(line)}\n")
    return 0


def _query(arguments: argparse.Namespace, bundle: Bundle) -> Query:
    from ringfence.policies.queries import MAX_BYTES, parse_query

    if arguments.query is not None:
        with arguments.query.open("rb") as file:
            return parse_query(file.read(MAX_BYTES + 1), str(arguments.query))
    for case in bundle.cases:
        if case.name == arguments.case:
            return case.query
    raise UsageError(
        BAD_ARGUMENT,
        f"The bundle {bundle.name} has no case named {arguments.case!r}.",
        field="--case",
        hint="The cases are in the bundle's tests/*.toml; one that a bundle extends has its own.",
    )


def lines(explanation: Explanation) -> list[str]:
    """The explanation for people."""
    query, verdict = explanation.query, explanation.verdict
    said = [f"{'allow' if verdict.allowed else 'deny'}  {query.principal} {query.action.value} {query.resource}"]
    said += [f"  error: {error}" for error in verdict.errors]
    for one in explanation.policies:
        if one.policy.id in verdict.policies:
            said.append(f"  {one.policy.effect} {one.policy.id} decided: {one.policy.description}")
    if not verdict.policies and not verdict.errors:
        said.append("  no policy permits it")
    for one in explanation.policies:
        for condition in one.failed:
            said.append(
                f"  {one.policy.effect} {one.policy.id} does not hold: {condition.text} is {condition.outcome.value}"
            )
    for change in explanation.changes:
        value = list(change.value) if isinstance(change.value, tuple) else change.value
        answer = "allowed" if change.verdict.allowed else f"denied by {', '.join(change.verdict.policies) or 'nothing'}"
        said.append(f"  with {change.name} = {value!r}: {answer}")
    return said


def document(explanation: Explanation) -> dict[str, object]:
    """The explanation as JSON."""
    verdict = explanation.verdict
    return {
        "decision": "allow" if verdict.allowed else "deny",
        "policies": list(verdict.policies),
        "errors": list(verdict.errors),
        "step_up": list(verdict.step_up),
        "considered": [
            {
                "id": one.policy.id,
                "effect": one.policy.effect,
                "outcome": one.outcome.value,
                "conditions": [{"text": each.text, "outcome": each.outcome.value} for each in one.conditions],
            }
            for one in explanation.policies
        ],
        "changes": [
            {
                "name": change.name,
                "value": list(change.value) if isinstance(change.value, tuple) else change.value,
                "decision": "allow" if change.verdict.allowed else "deny",
            }
            for change in explanation.changes
        ],
    }
