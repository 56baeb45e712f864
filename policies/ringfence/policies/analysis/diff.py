"""The semantic difference of two bundles: for which requests they decide otherwise, with requests that show it.

Two bundles are equal when Ringfence decides the same by both for every request and principal that fit the schema. Any
evaluation error denies, so an overflow that only one of them can reach makes them differ. Each request that is shown
was decided by Cedar for both bundles first.
"""

from __future__ import annotations

from dataclasses import dataclass

from ringfence.policies.analysis.logic import every, opposite
from ringfence.policies.analysis.meaning import Decided, Shared, Subject, decided, subject
from ringfence.policies.analysis.requests import Answer, Asked, Oracle
from ringfence.policies.analysis.solving import TIMEOUT_MS, Found, Question
from ringfence.policies.analysis.unknowns import Unknowns
from ringfence.policies.bundle import Bundle
from ringfence.policies.decision import Action


@dataclass(frozen=True, slots=True)
class Witness:
    """A request whose decision changes."""

    request: Asked
    before: Answer
    after: Answer

    @property
    def change(self) -> str:
        return "newly allowed" if self.after.allowed else "newly denied"


@dataclass(frozen=True, slots=True)
class Unclear:
    """A policy that keeps the comparison from an answer. `side` is "before" or "after"; `policy` may be empty."""

    side: str
    policy: str
    reason: str


@dataclass(frozen=True, slots=True)
class Difference:
    """What changes from one bundle to the other. `equal` is None where it cannot be told, and `unclear` says why.

    There is at most one witness for each action and direction.
    """

    equal: bool | None
    witnesses: tuple[Witness, ...]
    unclear: tuple[Unclear, ...]


@dataclass(frozen=True, slots=True)
class _Sides:
    before: Subject
    after: Subject
    oracles: tuple[Oracle, Oracle]


def difference(before: Bundle, after: Bundle, *, timeout_ms: int = TIMEOUT_MS) -> Difference:
    """Compares two bundles."""
    sides = _Sides(subject(before), subject(after), (Oracle(before), Oracle(after)))
    witnesses: list[Witness] = []
    unclear: dict[Unclear, None] = {}
    for action in Action:
        found, open_ends = _for_action(sides, action, timeout_ms)
        witnesses += found
        unclear |= dict.fromkeys(open_ends)
    if witnesses:
        return Difference(False, tuple(witnesses), tuple(unclear))
    return Difference(None if unclear else True, (), tuple(unclear))


def _for_action(sides: _Sides, action: Action, timeout_ms: int) -> tuple[list[Witness], list[Unclear]]:
    unknowns = Unknowns(action)
    shared: Shared = {}
    before, after = decided(sides.before, unknowns, shared), decided(sides.after, unknowns, shared)
    if before.allowed is after.allowed:
        return [], []
    schema = unknowns.schema()
    witnesses: list[Witness] = []
    unclear: list[Unclear] = []
    for wanted in (True, False):
        condition = every(
            [after.allowed, opposite(before.allowed)] if wanted else [before.allowed, opposite(after.allowed)]
        )
        if condition is False:
            continue
        anything, likely = (Question(unknowns, schema, condition, timeout_ms=timeout_ms) for _ in range(2))
        if anything.possible() is Found.NONE:
            continue
        likely.within_ranges()
        witness = _witness(sides, likely if likely.possible() is None else anything, wanted=wanted)
        if witness is not None:
            witnesses.append(witness)
        else:
            unclear += _reasons("before", before) + _reasons("after", after) or [
                Unclear("", "", "the solver gave up; compare fewer policies at once")
            ]
    return witnesses, unclear


def _witness(sides: _Sides, question: Question, *, wanted: bool) -> Witness | None:
    """A request that Cedar decides as the solver says, and for which `wanted` is the new decision."""
    for request in question.requests():
        before, after = (oracle.answer(request) for oracle in sides.oracles)
        if before.allowed is not wanted and after.allowed is wanted:
            return Witness(request, before, after)
    return None


def _reasons(side: str, decision: Decided) -> list[Unclear]:
    outside = [Unclear(side, policy, reason) for policy, reason in decision.outside.items()]
    hard = [Unclear(side, policy, "it multiplies two attributes") for policy in sorted(decision.hard)]
    return outside + hard
