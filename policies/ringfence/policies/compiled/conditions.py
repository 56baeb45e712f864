"""A policy as the list of conditions that must all hold: its scope first, then what its clauses say.

The list is what indexing looks at. Splitting `when { a && b }` into two changes nothing: Cedar evaluates `b` only when
`a` is true, and asks that both are Bools.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cedarpy import pst

from ringfence.policies.compiled.translation import NotCoveredError

Condition = pst.Expr | pst.Clause


@dataclass(frozen=True, slots=True)
class Conditions:
    """One policy: `name` is its `@id` where it has one, `effect` "permit" or "forbid"."""

    name: str | None
    effect: pst.Effect
    conditions: tuple[Condition, ...]


def conditions_of(policy: pst.Template, slots: Mapping[pst.SlotName, pst.EntityUid]) -> Conditions:
    """A policy, or a template with its slots filled. Raises `NotCoveredError`."""
    found = (
        *_scope("principal", policy.principal, slots),
        *_action(policy.action),
        *_scope("resource", policy.resource, slots),
        *(condition for clause in policy.clauses for condition in _clause(clause)),
    )
    return Conditions(policy.annotations.get("id"), policy.effect, found)


def _scope(
    name: pst.VarName, scope: pst.PrincipalOrResourceConstraint, slots: Mapping[pst.SlotName, pst.EntityUid]
) -> Iterator[pst.Expr]:
    variable = pst.Var(name)
    match scope:
        case pst.ScopeAny():
            return
        case pst.ScopeEq(entity=entity):
            yield pst.BinaryOp("eq", variable, _entity(entity, slots))
        case pst.ScopeIn(entity=entity):
            yield pst.BinaryOp("in", variable, _entity(entity, slots))
        case pst.ScopeIs(entity_type=kind):
            yield pst.Is(variable, kind, None)
        case pst.ScopeIsIn(entity_type=kind, entity=entity):
            yield pst.Is(variable, kind, None)
            yield pst.BinaryOp("in", variable, _entity(entity, slots))
        case _:
            raise NotCoveredError(f"the scope {type(scope).__name__}")


def _entity(entity: pst.EntityOrSlot, slots: Mapping[pst.SlotName, pst.EntityUid]) -> pst.EntityLit:
    if isinstance(entity, pst.Slot):
        if entity.name not in slots:
            raise NotCoveredError("a template that is not linked")
        entity = slots[entity.name]
    return pst.EntityLit(entity)


def _action(scope: pst.ActionConstraint) -> Iterator[pst.Expr]:
    match scope:
        case pst.ScopeAny():
            return
        case pst.ActionEq(entity=entity):
            yield pst.BinaryOp("eq", pst.Var("action"), pst.EntityLit(entity))
        case pst.ActionIn(entities=entities):
            yield pst.BinaryOp("in", pst.Var("action"), pst.Set(tuple(map(pst.EntityLit, entities))))
        case _:
            raise NotCoveredError(f"the scope {type(scope).__name__}")


def _clause(clause: pst.Clause) -> Iterator[Condition]:
    if not isinstance(clause, pst.When):
        yield clause
        return
    waiting = [clause.expr]
    while waiting:
        expression = waiting.pop()
        if isinstance(expression, pst.BinaryOp) and expression.op == "and":
            waiting += [expression.right, expression.left]
        else:
            yield expression
