"""Faults for the compiler: its own table of rules, with one entry wrong. Each must be caught."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ringfence.policies.compiled import extensions, shortcuts
from ringfence.policies.compiled.extensions import DAY_MS, Datetime, Decimal, Duration, Ip
from ringfence.policies.compiled.operands import Kind, compare
from ringfence.policies.compiled.operators import OPERATORS, members
from ringfence.policies.compiled.rules import RULES, Rules
from ringfence.policies.compiled.shortcuts import SHORTCUTS, comparison
from ringfence.policies.compiled.values import Entity, EvaluationError, RecordValue, SetValue, Uid

BOOLS = (Kind.BOOL, Kind.BOOL)
LONGS = (Kind.LONG, Kind.LONG)
TEXTS = (Kind.TEXTS, Kind.TEXTS)


def _operator(name: str, fault: Callable[..., object]) -> Rules:
    return replace(RULES, operators={**OPERATORS, name: fault})


def _shortcut(name: str, kinds: tuple[Kind, ...], fault: Callable[..., ast.expr]) -> Rules:
    return replace(RULES, shortcuts={**SHORTCUTS, (name, kinds): fault})


def _forgiving(name: str, otherwise: object) -> Callable[..., object]:
    """The operator, with an answer where it should fail."""

    def fault(*operands: object) -> object:
        try:
            return OPERATORS[name](*operands)
        except EvaluationError:
            return otherwise

    return fault


def _swapped(name: str) -> Callable[..., object]:
    return lambda left, right: OPERATORS[name](right, left)


def _inverted(name: str) -> Callable[..., object]:
    return lambda *operands: not OPERATORS[name](*operands)


def _in(**ways: bool) -> Callable[..., object]:
    def fault(entities: Mapping[Uid, Entity], left: Any, right: Any) -> object:
        OPERATORS["in"](entities, left, right)
        uids = {right} if isinstance(right, Uid) else (members(right).uids or frozenset())
        above = entities[left].ancestors if left in entities and ways.get("ancestors", True) else frozenset()
        reached = above | {left} if ways.get("reflexive", True) else above
        return uids <= reached if ways.get("every") else not reached.isdisjoint(uids)

    return fault


def _decimal(text: str) -> Decimal:
    whole, _, fraction = text.partition(".")
    read = OPERATORS["decimal"](text)
    assert isinstance(read, Decimal)
    return Decimal(abs(int(whole)) * 10_000 + int(fraction.rjust(4, "0")))


def _huge_decimal(text: str) -> Decimal:
    try:
        return extensions.decimal(text)
    except EvaluationError:
        if re.fullmatch(r"-?[0-9]+\.[0-9]{1,4}", text):
            return Decimal(2**63 - 1)
        raise


def _leap(text: str) -> Datetime:
    return extensions.datetime(re.sub(r"^(\d{4})-02-29", r"2024-02-29", text))


def _without_prefix(text: object) -> Ip:
    read = OPERATORS["ip"](text)
    assert isinstance(read, Ip)
    return replace(read, prefix=read.width)


def _reversed(joining: Callable[..., ast.expr]) -> Callable[..., ast.expr]:
    return lambda names, left, right: joining(names, right, left)


OPERATOR_FAULTS: Mapping[str, tuple[str, Callable[..., object]]] = {
    "equality is Python's": ("eq", lambda left, right: left == right),
    "equality is inverted": ("eq", OPERATORS["not_eq"]),
    "inequality is inverted": ("not_eq", OPERATORS["eq"]),
    "less takes equals": ("less", OPERATORS["less_eq"]),
    "less or equal does not": ("less_eq", OPERATORS["less"]),
    "greater takes equals": ("greater", OPERATORS["greater_eq"]),
    "greater or equal does not": ("greater_eq", OPERATORS["greater"]),
    "less orders everything": ("less", _forgiving("less", False)),
    "addition overflows": ("add", lambda left, right: left + right),
    "addition forgives": ("add", _forgiving("add", 0)),
    "subtraction is swapped": ("sub", _swapped("sub")),
    "subtraction saturates": ("sub", _forgiving("sub", -(2**63))),
    "multiplication wraps": ("mul", lambda left, right: (left * right + 2**63) % 2**64 - 2**63),
    "negation overflows": ("neg", lambda value: -value),
    "in is not reflexive": ("in", _in(reflexive=False)),
    "in forgets ancestors": ("in", _in(ancestors=False)),
    "in wants every one": ("in", _in(every=True)),
    "in takes any member": ("in", _forgiving("in", False)),
    "is takes every type": ("is", lambda _value, _name: True),
    "is takes what is no entity": ("is", _forgiving("is", False)),
    "a missing attribute is false": ("attribute", _forgiving("attribute", False)),
    "has is always so": ("has", lambda _entities, _base, _name: True),
    "has takes what is no record": ("has", _forgiving("has", False)),
    "a tag is never there": ("has_tag", lambda _entities, _base, _name: False),
    "a missing tag is empty": ("get_tag", _forgiving("get_tag", "")),
    "contains is Python's": ("contains", lambda left, right: any(right == held for held in members(left).keys)),
    "contains is inverted": ("contains", _inverted("contains")),
    "contains_all is swapped": ("contains_all", _swapped("contains_all")),
    "contains_any wants all": ("contains_any", OPERATORS["contains_all"]),
    "contains_all wants any": ("contains_all", OPERATORS["contains_any"]),
    "is_empty is inverted": ("is_empty", _inverted("is_empty")),
    "like looks at the start alone": ("like", lambda text, pattern: text.startswith(pattern.pieces[0])),
    "like looks at the end alone": ("like", lambda text, pattern: text.endswith(pattern.pieces[-1])),
    "a set loses its last": ("set", lambda *values: SetValue.of(values[:-1])),
    "a record loses its first": ("record", lambda names, *values: RecordValue(dict(list(zip(names, values))[1:]))),  # noqa: B905
    "truth takes anything": ("truth", bool),
    "an address loses its prefix": ("ip", _without_prefix),
    "loopback ignores the prefix": ("is_loopback", lambda ip: ip.address in (1, 127 << 24, (127 << 24) + 1)),
    "multicast ignores the prefix": ("is_multicast", lambda ip: ip.address >> (ip.width - 4) in (0xE, 0xF)),
    "a range is swapped": ("is_in_range", _swapped("is_in_range")),
    "a range ignores the version": ("is_in_range", lambda one, two: two.first <= one.first <= one.last <= two.last),
    "version 4 is 6": ("is_ipv4", OPERATORS["is_ipv6"]),
    "version 6 is 4": ("is_ipv6", OPERATORS["is_ipv4"]),
    "a decimal's digits shift": ("decimal", _decimal),
    "a decimal saturates": ("decimal", _huge_decimal),
    "decimal less takes equals": ("decimal_less_than", OPERATORS["decimal_less_eq"]),
    "decimal less or equal does not": ("decimal_less_eq", OPERATORS["decimal_less_than"]),
    "decimal greater takes equals": ("decimal_greater", OPERATORS["decimal_greater_eq"]),
    "decimal greater or equal does not": ("decimal_greater_eq", OPERATORS["decimal_greater"]),
    "a datetime ignores its offset": ("datetime", lambda text: extensions.datetime(re.sub(r"[+-]\d{4}$", "Z", text))),
    "every year is a leap year": ("datetime", _leap),
    "a duration loses its sign": ("duration", lambda text: Duration(abs(extensions.duration(text).value))),
    "a date truncates towards zero": ("to_date", lambda at: Datetime(int(at.value / DAY_MS) * DAY_MS)),
    "a time may be negative": ("to_time", lambda at: Duration(at.value - int(at.value / DAY_MS) * DAY_MS)),
    "seconds round down": ("to_seconds", lambda span: span.value // 1_000),
    "days round down": ("to_days", lambda span: span.value // DAY_MS),
    "hours are minutes": ("to_hours", OPERATORS["to_minutes"]),
    "an offset overflows": ("offset", lambda at, span: Datetime(at.value + span.value)),
    "durations since are swapped": ("duration_since", _swapped("duration_since")),
}

FAULTS: Mapping[str, Rules] = {
    **{name: _operator(*fault) for name, fault in OPERATOR_FAULTS.items()},
    "and is or": _shortcut("and", BOOLS, shortcuts.either),
    "or is and": _shortcut("or", BOOLS, shortcuts.both),
    "and evaluates its right side first": _shortcut("and", BOOLS, _reversed(shortcuts.both)),
    "or evaluates its right side first": _shortcut("or", BOOLS, _reversed(shortcuts.either)),
    "not is nothing": _shortcut("not", (Kind.BOOL,), lambda _names, value: value.node),
    "if is swapped": _shortcut(
        "if",
        (Kind.BOOL, Kind.VALUE, Kind.VALUE),
        lambda names, condition, then, otherwise: shortcuts.choice(names, condition, otherwise, then),
    ),
    "unless is when": replace(RULES, negates=frozenset()),
    "typed less takes equals": _shortcut("less", LONGS, comparison(ast.LtE)),
    "typed less or equal does not": _shortcut("less_eq", LONGS, comparison(ast.Lt)),
    "typed greater takes equals": _shortcut("greater", LONGS, comparison(ast.GtE)),
    "typed greater or equal does not": _shortcut("greater_eq", LONGS, comparison(ast.Gt)),
    "typed texts differ": _shortcut("eq", (Kind.TEXT, Kind.TEXT), comparison(ast.NotEq)),
    "typed entities differ": _shortcut("eq", (Kind.UID, Kind.UID), comparison(ast.NotEq)),
    "typed numbers are the same": _shortcut("not_eq", LONGS, comparison(ast.Eq)),
    "typed contains is inverted": _shortcut("contains", (Kind.TEXTS, Kind.TEXT), comparison(ast.NotIn)),
    "typed contains_all wants any": _shortcut("contains_all", TEXTS, shortcuts.contains_any),
    "typed contains_any wants all": _shortcut("contains_any", TEXTS, shortcuts.contains_all),
    "typed is_empty is inverted": _shortcut("is_empty", (Kind.TEXTS,), lambda _names, value: value.node),
    "typed like is equality": _shortcut(
        "like",
        (Kind.TEXT, Kind.VALUE),
        lambda names, text, pattern: compare(text.node, ast.Eq(), names.bind(pattern.constant.pieces[0])),
    ),
}
