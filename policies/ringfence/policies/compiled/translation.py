"""Translates expressions of Cedar's typed syntax tree into operands: a pure function of the tree, rules and front.

A front says how a request's variables are read, and what is known of them before any request is there.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Final, Protocol, get_args

from cedarpy import pst

from ringfence.policies.compiled.operands import Kind, Names, Operand, call, load
from ringfence.policies.compiled.operators import ON_ENTITIES
from ringfence.policies.compiled.rules import NEVER_FAIL, RESULTS, Rules
from ringfence.policies.compiled.values import EvaluationError, Uid
from ringfence.policies.compiled.wildcards import Pattern

_UNARY: Final = frozenset(get_args(pst.UnaryOpName))
_BINARY: Final = frozenset(get_args(pst.BinaryOpName))


class NotCoveredError(Exception):
    """The tree holds what this compiler does not know; cedarpy decides instead."""


class Front(Protocol):
    """How the variables of one sort of request are read. None: nothing is known, so the general way is taken."""

    def variable(self, name: str) -> Operand:
        """The principal, action, resource or context."""
        ...

    def attribute(self, name: str) -> Operand | None:
        """An attribute of the context. One that is known to be absent is an operand that fails."""
        ...

    def has_attribute(self, name: str) -> bool | None:
        """Whether the context has an attribute."""
        ...

    def test(self, op: str, variable: str, target: Uid | str) -> Operand | None:
        """`variable == uid` (op "eq"), `variable in uid` ("in") or `variable is type` ("is")."""
        ...

    def entities(self) -> Operand:
        """The entity store."""
        ...


class Translator:
    """Translates expressions for one generated function."""

    def __init__(self, names: Names, front: Front, rules: Rules) -> None:
        self._names, self._front, self._rules = names, front, rules

    def condition(self, expression: pst.Expr) -> Operand:
        """An expression that must be a Bool; raises `NotCoveredError`."""
        return self._truth(self.value(expression))

    def conjunction(self, operands: list[Operand]) -> Operand:
        """Conditions that must all hold, each evaluated only when those before it do."""
        joined = self._names.constant(True)
        for operand in operands:
            joined = self._and(joined, operand)
        return joined

    def clause(self, clause: pst.Clause) -> Operand:
        """`when` or `unless`."""
        condition = self.condition(clause.expr)
        return self._apply("not", condition) if type(clause).__name__ in self._rules.negates else condition

    def value(self, expression: pst.Expr) -> Operand:
        """Any expression; raises `NotCoveredError`."""
        match expression:
            case pst.BoolLit() | pst.LongLit() | pst.StringLit():
                return self._names.constant(expression.value)
            case pst.EntityLit(value=uid):
                return self._names.constant(uid_of(uid))
            case pst.Var(name=name):
                return self._front.variable(name)
            case pst.BinaryOp(op="and", left=left, right=right):
                return self._and(self.condition(left), lambda: self.condition(right))
            case pst.BinaryOp(op="or", left=left, right=right):
                return self._or(self.condition(left), right)
            case pst.UnaryOp(op="not", arg=argument):
                return self._apply("not", self.condition(argument))
            case pst.BinaryOp(op="eq" | "in" as op, left=pst.Var(name=name), right=pst.EntityLit(value=uid)):
                return self._front.test(op, name, uid_of(uid)) or self._operation(expression)
            case pst.BinaryOp(op="in", left=pst.Var(name=name), right=pst.Set(elements=elements)):
                return self._in_any(name, elements) or self._operation(expression)
            case pst.UnaryOp() | pst.BinaryOp():
                return self._operation(expression)
            case pst.GetAttr(base=pst.Var(name="context"), attr=name):
                return self._front.attribute(name) or self._attribute("attribute", expression.base, name)
            case pst.GetAttr(base=base, attr=name):
                return self._attribute("attribute", base, name)
            case pst.HasAttr(base=base, attrs=attrs):
                return self._has(base, attrs)
            case pst.Like(base=base, pattern=pattern):
                return self._apply("like", self.value(base), self._names.constant(_pattern(pattern)))
            case pst.Is(base=base, entity_type=name, in_expr=within):
                return self._is(base, str(name), within)
            case pst.IfThenElse(cond=condition, then_expr=then, else_expr=otherwise):
                return self._if(self.condition(condition), then, otherwise)
            case pst.Set(elements=elements):
                return self._set([self.value(element) for element in elements])
            case pst.Record(fields=fields):
                names = self._names.constant(tuple(fields))
                return self._apply("record", names, *(self.value(held) for held in fields.values()))
        raise NotCoveredError(f"the expression {type(expression).__name__}")

    def _operation(self, expression: pst.UnaryOp | pst.BinaryOp) -> Operand:
        match expression:
            case pst.UnaryOp(op=op, arg=argument) if op in _UNARY and op in self._rules.operators:
                return self._apply(op, self.value(argument))
            case pst.BinaryOp(op=op, left=left, right=right) if op in _BINARY and op in self._rules.operators:
                return self._apply(op, self.value(left), self.value(right))
        raise NotCoveredError(f"the operator {expression.op}")

    def _apply(self, op: str, *operands: Operand) -> Operand:
        """An operator on operands that are evaluated in this order, all of them."""
        kind = RESULTS.get(op, Kind.VALUE)
        shortcut = self._rules.shortcuts.get((op, tuple(operand.kind for operand in operands)))
        fails = any(operand.fails for operand in operands)
        if op not in ON_ENTITIES and all(operand.known for operand in operands):
            try:
                return self._names.constant(self._rules.operators[op](*(operand.constant for operand in operands)))
            except EvaluationError as failure:
                return self._failing(str(failure))
        if shortcut is not None:
            return Operand(shortcut(self._names, *operands), kind, fails)
        arguments = [operand.node for operand in operands]
        if op in ON_ENTITIES:
            arguments.insert(0, self._front.entities().node)
        node = call(self._names.bind(self._rules.operators[op]), *arguments)
        return Operand(node, kind, fails or op not in NEVER_FAIL)

    def _truth(self, value: Operand) -> Operand:
        return value if value.kind is Kind.BOOL else self._apply("truth", value)

    def _and(self, left: Operand, right: Operand | Callable[[], Operand]) -> Operand:
        """`right` is an operand, or a function that makes it, called only where it can be reached."""
        if left.constant is False:
            return left
        right = right if isinstance(right, Operand) else right()
        if left.constant is True:
            return right
        if right.constant is True:
            return left
        if right.constant is False and not left.fails:
            return right
        return self._joined("and", left, right)

    def _or(self, left: Operand, expression: pst.Expr) -> Operand:
        if left.constant is True:
            return left
        right = self.condition(expression)
        if left.constant is False:
            return right
        if right.constant is False:
            return left
        return self._joined("or", left, right)

    def _joined(self, op: str, left: Operand, right: Operand) -> Operand:
        node = self._rules.shortcuts[op, (Kind.BOOL, Kind.BOOL)](self._names, left, right)
        return Operand(node, Kind.BOOL, left.fails or right.fails)

    def _if(self, condition: Operand, then: pst.Expr, otherwise: pst.Expr) -> Operand:
        if condition.known:
            return self.value(then if condition.constant else otherwise)
        first, second = self.value(then), self.value(otherwise)
        node = self._rules.shortcuts["if", (Kind.BOOL, Kind.VALUE, Kind.VALUE)](self._names, condition, first, second)
        kind = first.kind if first.kind is second.kind else Kind.VALUE
        return Operand(node, kind, condition.fails or first.fails or second.fails)

    def _in_any(self, variable: str, elements: tuple[pst.Expr, ...]) -> Operand | None:
        tests = []
        for element in elements:
            if not isinstance(element, pst.EntityLit):
                return None
            test = self._front.test("in", variable, uid_of(element.value))
            if test is None:
                return None
            tests.append(test)
        found = self._names.constant(False)
        for test in tests:
            if test.constant is True:
                return test
            if test.constant is not False:
                found = test if found.constant is False else self._joined("or", found, test)
        return found

    def _attribute(self, op: str, base: pst.Expr, name: str) -> Operand:
        return self._apply(op, self.value(base), self._names.constant(name))

    def _has(self, base: pst.Expr, attrs: tuple[str, ...]) -> Operand:
        if len(attrs) != 1:  # Cedar's parser writes `has a.b` as two tests.
            raise NotCoveredError("`has` with a path")
        known = self._front.has_attribute(attrs[0]) if base == pst.Var("context") else None
        return self._attribute("has", base, attrs[0]) if known is None else self._names.constant(known)

    def _is(self, base: pst.Expr, name: str, within: pst.Expr | None) -> Operand:
        if isinstance(base, pst.Var):
            found = self._front.test("is", base.name, name) or self._apply(
                "is", self.value(base), self._names.constant(name)
            )
            return found if within is None else self._and(found, lambda: self.value(pst.BinaryOp("in", base, within)))
        value = self.value(base)
        if within is None:
            return self._apply("is", value, self._names.constant(name))
        # The base is evaluated once: written out twice, nested ones would grow exponentially.
        held = self._names.temporary()
        kept = Operand(ast.NamedExpr(ast.Name(held, ast.Store()), value.node), value.kind, value.fails)
        found = self._apply("is", kept, self._names.constant(name))
        return self._and(found, lambda: self._apply("in", Operand(load(held), value.kind), self.value(within)))

    def _set(self, members: list[Operand]) -> Operand:
        if members and all(member.known and member.kind is Kind.TEXT for member in members):
            texts = tuple(sorted({str(member.constant) for member in members}))
            return self._names.constant(texts)
        return self._apply("set", *members)

    def _failing(self, reason: str) -> Operand:
        node = call(self._names.bind(self._rules.operators["fail"]), self._names.bind(reason))
        return Operand(node, Kind.VALUE, fails=True)


def uid_of(uid: pst.EntityUid) -> Uid:
    """An entity's name as the compiled code holds it."""
    return Uid(str(uid.type), uid.id)


def _pattern(elements: tuple[pst.PatternElem, ...]) -> Pattern:
    pieces = [""]
    for element in elements:
        match element:
            case pst.Char(value=character):
                pieces[-1] += character
            case pst.Wildcard():
                pieces.append("")
            case _:
                raise NotCoveredError(f"the pattern element {type(element).__name__}")
    return Pattern(tuple(pieces))
