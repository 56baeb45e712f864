"""Recorded decisions against a proposed bundle: what changes, and for whom. Pure: lines in, a report out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ringfence.policies.decision import Decider, Query
from ringfence.policies.recorded import Passed, recorded

MAX_PRINCIPALS = 100_000
"""Most principals that are counted by name; a log may hold more of them than memory does."""
MAX_EXAMPLES = 5
"""Most decisions that are kept whole for each way of changing."""

ALLOWED, DENIED = "newly allowed", "newly denied"


@dataclass(frozen=True, slots=True)
class Example:
    """One decision that changes, and what decides it in the proposed bundle."""

    change: str
    query: Query
    policies: tuple[str, ...]
    errors: tuple[str, ...]


@dataclass(slots=True)
class Replay:
    """What a replay counted so far.

    replayed    decisions that were taken again
    changed     of these, by "newly allowed" and "newly denied"
    principals  the same by (change, principal), with "" for all beyond `MAX_PRINCIPALS`
    actions     by (change, action)
    policies    by (change, id) of the policies that now decide; "" where none does
    errors      decisions that the proposed bundle denies because a policy errs
    passed      decisions that were not taken again, by the reason
    """

    replayed: int = 0
    changed: Counter[str] = field(default_factory=Counter)
    principals: Counter[tuple[str, str]] = field(default_factory=Counter)
    actions: Counter[tuple[str, str]] = field(default_factory=Counter)
    policies: Counter[tuple[str, str]] = field(default_factory=Counter)
    errors: int = 0
    passed: Counter[Passed] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)

    @property
    def unchanged(self) -> int:
        return self.replayed - self.changed.total()


def replay(lines: Iterable[bytes], decider: Decider, report: Replay | None = None) -> Replay:
    """Take every recorded decision of a log's lines again; `report` goes on counting where an earlier log ended."""
    report = report or Replay()
    decide = decider.decide
    replayed = errors = 0
    for line in lines:
        found = recorded(line)
        if found is None:
            continue
        if isinstance(found, Passed):
            report.passed[found] += 1
            continue
        replayed += 1
        verdict = decide(found.query)
        if verdict.errors:
            errors += 1
        if verdict.allowed is not found.allowed:
            _count(report, found.query, verdict.allowed, verdict.policies, verdict.errors)
    report.replayed += replayed
    report.errors += errors
    return report


def _count(report: Replay, query: Query, allowed: bool, policies: tuple[str, ...], errors: tuple[str, ...]) -> None:
    change = ALLOWED if allowed else DENIED
    report.changed[change] += 1
    who = (change, query.principal)
    full = len(report.principals) >= MAX_PRINCIPALS and who not in report.principals
    report.principals[(change, "") if full else who] += 1
    report.actions[change, query.action.value] += 1
    for policy in policies or ("",):
        report.policies[change, policy] += 1
    if sum(one.change == change for one in report.examples) < MAX_EXAMPLES:
        report.examples.append(Example(change, query, policies, errors))
