"""The conditions of policies, and what each was for a request: true, false, an error, or never looked at.

A condition is what stands between `&&`, `||`, `!` and `if`. Cedar decides each of them alone; which of them are looked
at follows from where they stand (Cedar language reference, "Short-circuiting").
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cedarpy
from cedarpy import pst

from ringfence.policies.analysis.rendering import render
from ringfence.policies.analysis.syntax import Parsed, parse
from ringfence.policies.bundle import Bundle, Policy
from ringfence.policies.decision import Query
from ringfence.policies.engine import principal_entity, request

_ERRING = re.compile(r"policy `([^`]+)`")


class Outcome(enum.Enum):
    """What a condition was for one request."""

    TRUE = "true"
    FALSE = "false"
    ERROR = "error"
    UNSEEN = "not looked at"


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: its text, and what it was. `text` is Cedar, on one line."""

    text: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Observed:
    """A policy and one request. `scope` says whether the head matched; without it no condition was looked at."""

    policy: Policy
    scope: bool
    outcome: Outcome
    conditions: tuple[Condition, ...]

    @property
    def failed(self) -> tuple[Condition, ...]:
        """The conditions that were looked at and kept the policy from holding: the last that was, in each clause."""
        if not self.scope or self.outcome is Outcome.TRUE:
            return ()
        return tuple(one for one in self.conditions if one.outcome is not Outcome.UNSEEN)[-1:]


class Observer:
    """Looks at every condition of a bundle, for one request after the other."""

    def __init__(self, bundle: Bundle) -> None:
        self._parsed = parse(bundle)
        leaves = [leaf for one in self._parsed if one.tree is not None for leaf in _leaves(one.tree)]
        self._numbers = {leaf: index for index, leaf in enumerate(dict.fromkeys(leaves))}
        probes = {f"condition{index}": _probe(f"condition{index}", leaf) for leaf, index in self._numbers.items()}
        for index, one in enumerate(self._parsed):
            if one.tree is not None:
                name = f"scope{index}"
                probes[name] = replace(one.tree, id=name, effect="permit", clauses=(), annotations={})
        self._probes = cedarpy.PolicySet.from_pst(pst.PolicySet({}, probes, ()))
        self._entities = cedarpy.Entities.from_json_str("[]", bundle.schema)

    def observe(self, query: Query) -> tuple[Observed, ...]:
        """Every policy of the bundle, in order; one whose tree is not known has no conditions."""
        entities = self._entities.with_added_json_str(principal_entity(query))
        found = cedarpy.is_authorized(request(query), self._probes, entities).diagnostics
        held = set(found.reasons)
        erring = {match[1] for error in found.errors if (match := _ERRING.search(error)) is not None}
        return tuple(self._observed(index, one, held, erring) for index, one in enumerate(self._parsed))

    def _observed(self, index: int, one: Parsed, held: set[str], erring: set[str]) -> Observed:
        if one.tree is None:
            return Observed(one.policy, False, Outcome.UNSEEN, ())
        seen: dict[pst.Expr, Outcome] = {}

        def look(expression: pst.Expr) -> Outcome:
            match expression:
                case pst.BinaryOp("and", left, right):
                    first = look(left)
                    return look(right) if first is Outcome.TRUE else first
                case pst.BinaryOp("or", left, right):
                    first = look(left)
                    return look(right) if first is Outcome.FALSE else first
                case pst.UnaryOp("not", argument):
                    return _opposite(look(argument))
                case pst.IfThenElse(condition, then, otherwise):
                    asked = look(condition)
                    return asked if asked is Outcome.ERROR else look(then if asked is Outcome.TRUE else otherwise)
            name = f"condition{self._numbers[expression]}"
            seen[expression] = Outcome.ERROR if name in erring else Outcome.TRUE if name in held else Outcome.FALSE
            return seen[expression]

        scope = f"scope{index}" in held
        outcome = Outcome.TRUE if scope else Outcome.FALSE
        for clause in one.tree.clauses:
            if outcome is Outcome.TRUE:
                value = look(clause.expr)
                outcome = value if isinstance(clause, pst.When) else _opposite(value)
        leaves = dict.fromkeys(_leaves(one.tree))
        conditions = tuple(Condition(render(leaf), seen.get(leaf, Outcome.UNSEEN)) for leaf in leaves)
        return Observed(one.policy, scope, outcome, conditions)


def _leaves(tree: pst.Template) -> Iterator[pst.Expr]:
    for clause in tree.clauses:
        yield from _parts(clause.expr)


def _parts(expression: pst.Expr) -> Iterator[pst.Expr]:
    match expression:
        case pst.BinaryOp("and" | "or", left, right):
            yield from _parts(left)
            yield from _parts(right)
        case pst.UnaryOp("not", argument):
            yield from _parts(argument)
        case pst.IfThenElse(condition, then, otherwise):
            yield from _parts(condition)
            yield from _parts(then)
            yield from _parts(otherwise)
        case _:
            yield expression


def _probe(name: str, leaf: pst.Expr) -> pst.Template:
    anyone = pst.ScopeAny()
    return pst.Template(name, "permit", anyone, anyone, anyone, (pst.When(leaf),), {})


def _opposite(outcome: Outcome) -> Outcome:
    return {Outcome.TRUE: Outcome.FALSE, Outcome.FALSE: Outcome.TRUE}.get(outcome, outcome)
