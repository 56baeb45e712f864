"""A condition's syntax tree as Cedar text again, on one line, for people to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cedarpy import pst

_SIGNS: Final[Mapping[str, str]] = {
    "eq": "==",
    "not_eq": "!=",
    "less": "<",
    "less_eq": "<=",
    "greater": ">",
    "greater_eq": ">=",
    "and": "&&",
    "or": "||",
    "add": "+",
    "sub": "-",
    "mul": "*",
    "in": "in",
}
_FUNCTIONS: Final = frozenset({"ip", "decimal", "datetime", "duration"})


def render(expression: pst.Expr) -> str:
    """The text of an expression; what binds is in brackets, whether it needs them or not."""
    match expression:
        case pst.BoolLit(value):
            return "true" if value else "false"
        case pst.LongLit(value):
            return str(value)
        case pst.StringLit(value):
            return _quoted(value)
        case pst.EntityLit(uid):
            return f"{uid.type}::{_quoted(uid.id)}"
        case pst.Var(name):
            return name
        case pst.GetAttr(base, attribute):
            plain = attribute.isidentifier() and attribute.isascii()
            return f"{_bound(base)}.{attribute}" if plain else f"{_bound(base)}[{_quoted(attribute)}]"
        case pst.HasAttr(base, attributes):
            return f"{_bound(base)} has {'.'.join(attributes)}"
        case pst.UnaryOp("not", argument):
            return f"!{_bound(argument)}"
        case pst.UnaryOp("neg", argument):
            return f"-{_bound(argument)}"
        case pst.UnaryOp(op, argument):
            return f"{op}({render(argument)})" if op in _FUNCTIONS else f"{_bound(argument)}.{_camel(op)}()"
        case pst.BinaryOp(op, left, right) if op in _SIGNS:
            return f"{_bound(left)} {_SIGNS[op]} {_bound(right)}"
        case pst.BinaryOp(op, left, right):
            return f"{_bound(left)}.{_camel(op)}({render(right)})"
        case pst.Like(base, pattern):
            return f"{_bound(base)} like {_pattern(pattern)}"
        case pst.Is(base, entity_type, group):
            above = "" if group is None else f" in {_bound(group)}"
            return f"{_bound(base)} is {entity_type}{above}"
        case pst.IfThenElse(condition, then, otherwise):
            return f"if {render(condition)} then {render(then)} else {render(otherwise)}"
        case pst.Set(elements):
            return f"[{', '.join(map(render, elements))}]"
        case pst.Record(fields):
            return f"{{{', '.join(f'{_quoted(name)}: {render(value)}' for name, value in fields.items())}}}"
        case pst.Slot(name):
            return f"?{name}"


def _bound(expression: pst.Expr) -> str:
    text = render(expression)
    open_ended = pst.HasAttr | pst.Like | pst.Is | pst.IfThenElse
    binary = isinstance(expression, pst.BinaryOp) and expression.op in _SIGNS
    return f"({text})" if binary or isinstance(expression, open_ended) else text


def _camel(op: str) -> str:
    first, *rest = op.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    printable = (one if one.isprintable() else f"\\u{{{ord(one):x}}}" for one in escaped)
    return '"' + "".join(printable) + '"'


def _pattern(pattern: tuple[pst.PatternElem, ...]) -> str:
    pieces = ("*" if isinstance(one, pst.Wildcard) else one.value.replace("*", "\\*") for one in pattern)
    return f'"{"".join(pieces)}"'
