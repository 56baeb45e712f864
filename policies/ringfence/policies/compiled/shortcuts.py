"""Operators written out as plain Python where the types of their operands are known, so that none can fail.

Each does what the operator of the same name in `ringfence.policies.compiled.operators` does, for operands of just these
kinds.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Final

from ringfence.policies.compiled.operands import Kind, Names, Operand, call, compare, field
from ringfence.policies.compiled.wildcards import Pattern

Shortcut = Callable[..., ast.expr]
"""Takes the names of the function and the operands."""

_FEW: Final = 8
"""Up to so many members, looking for each in turn is faster than making a set."""


def comparison(operator: type[ast.cmpop]) -> Shortcut:
    """`left operator right`."""
    return lambda _names, left, right: compare(left.node, operator(), right.node)


def both(_names: Names, left: Operand, right: Operand) -> ast.expr:
    """`left and right`."""
    return _flat(ast.And(), left.node, right.node)


def either(_names: Names, left: Operand, right: Operand) -> ast.expr:
    """`left or right`."""
    return _flat(ast.Or(), left.node, right.node)


def _flat(operator: ast.boolop, left: ast.expr, right: ast.expr) -> ast.expr:
    """A long chain as one node, since Python compiles only so deep a tree."""
    before = left.values if isinstance(left, ast.BoolOp) and type(left.op) is type(operator) else [left]
    return ast.BoolOp(operator, [*before, right])


def inverted(_names: Names, value: Operand) -> ast.expr:
    """`not value`."""
    return ast.UnaryOp(ast.Not(), value.node)


def choice(_names: Names, condition: Operand, then: Operand, otherwise: Operand) -> ast.expr:
    """`then if condition else otherwise`."""
    return ast.IfExp(condition.node, then.node, otherwise.node)


def contains(names: Names, texts: Operand, text: Operand) -> ast.expr:
    """`text in texts`."""
    if isinstance(texts.constant, tuple) and len(texts.constant) > _FEW:
        return compare(text.node, ast.In(), names.bind(frozenset(texts.constant)))
    return compare(text.node, ast.In(), texts.node)


def contains_all(names: Names, texts: Operand, wanted: Operand) -> ast.expr:
    """Whether every one of `wanted` is in `texts`."""
    if isinstance(wanted.constant, tuple) and _each_is_short(texts, wanted.constant):
        return _each(names, ast.And(), texts, wanted.constant)
    return call(field(call(names.bind(frozenset), wanted.node), "issubset"), texts.node)


def contains_any(names: Names, texts: Operand, wanted: Operand) -> ast.expr:
    """Whether any of `wanted` is in `texts`."""
    if isinstance(wanted.constant, tuple) and _each_is_short(texts, wanted.constant):
        return _each(names, ast.Or(), texts, wanted.constant)
    apart = call(field(call(names.bind(frozenset), wanted.node), "isdisjoint"), texts.node)
    return ast.UnaryOp(ast.Not(), apart)


def _each_is_short(texts: Operand, wanted: tuple[object, ...]) -> bool:
    """Whether `texts` may be written out for each: an expression that nests would grow exponentially."""
    return 0 < len(wanted) <= _FEW and isinstance(texts.node, ast.Name | ast.Attribute)


def _each(names: Names, join: ast.boolop, texts: Operand, wanted: tuple[object, ...]) -> ast.expr:
    tests: list[ast.expr] = [compare(names.bind(text), ast.In(), texts.node) for text in wanted]
    return tests[0] if len(tests) == 1 else ast.BoolOp(join, tests)


def is_empty(_names: Names, texts: Operand) -> ast.expr:
    """`not texts`."""
    return ast.UnaryOp(ast.Not(), texts.node)


def like(names: Names, text: Operand, pattern: Operand) -> ast.expr:
    """Whether `text` matches a known pattern; the frequent forms without a call of ours."""
    match pattern.constant:
        case Pattern(pieces=(exact,)):
            return compare(text.node, ast.Eq(), names.bind(exact))
        case Pattern(pieces=(prefix, "")):
            return call(field(text.node, "startswith"), names.bind(prefix))
        case Pattern(pieces=("", suffix)):
            return call(field(text.node, "endswith"), names.bind(suffix))
    return call(field(pattern.node, "matches"), text.node)


_ORDERS: Final[Mapping[str, type[ast.cmpop]]] = {
    "less": ast.Lt,
    "less_eq": ast.LtE,
    "greater": ast.Gt,
    "greater_eq": ast.GtE,
}

SHORTCUTS: Final[Mapping[tuple[str, tuple[Kind, ...]], Shortcut]] = {
    **{("eq", (kind, kind)): comparison(ast.Eq) for kind in (Kind.BOOL, Kind.LONG, Kind.TEXT, Kind.UID)},
    **{("not_eq", (kind, kind)): comparison(ast.NotEq) for kind in (Kind.BOOL, Kind.LONG, Kind.TEXT, Kind.UID)},
    **{(name, (Kind.LONG, Kind.LONG)): comparison(operator) for name, operator in _ORDERS.items()},
    ("and", (Kind.BOOL, Kind.BOOL)): both,
    ("or", (Kind.BOOL, Kind.BOOL)): either,
    ("not", (Kind.BOOL,)): inverted,
    ("if", (Kind.BOOL, Kind.VALUE, Kind.VALUE)): choice,
    ("contains", (Kind.TEXTS, Kind.TEXT)): contains,
    ("contains_all", (Kind.TEXTS, Kind.TEXTS)): contains_all,
    ("contains_any", (Kind.TEXTS, Kind.TEXTS)): contains_any,
    ("is_empty", (Kind.TEXTS,)): is_empty,
    ("like", (Kind.TEXT, Kind.VALUE)): like,
}
"""By the operator's name and the kinds of its operands. `and`, `or` and `if` have no other form."""
