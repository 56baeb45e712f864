"""The compiler's rules, watched: which operators were seen to say what."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from ringfence.policies.compiled.operands import Kind, Names, Operand, call
from ringfence.policies.compiled.operators import OPERATORS, Operator
from ringfence.policies.compiled.rules import RESULTS, RULES, Rules
from ringfence.policies.compiled.shortcuts import SHORTCUTS, Shortcut
from ringfence.policies.compiled.values import EvaluationError

Seen = Mapping[object, set[str]]

WAYS: Mapping[str, set[str]] = {
    **{name: {"True", "False"} if RESULTS.get(name) is Kind.BOOL else {"value", "fails"} for name in OPERATORS},
    "set": {"value"},
    "record": {"value"},
    "fail": {"fails"},
    "truth": {"True", "False", "fails"},
}
"""What each operator must have been seen to do."""


def recording() -> tuple[Rules, Seen]:
    """Rules that note what operators and shortcuts come to."""
    seen: defaultdict[object, set[str]] = defaultdict(set)
    operators = {name: _operator(operator, seen[name]) for name, operator in OPERATORS.items()}
    shortcuts = {place: _shortcut(place[0], shortcut, seen[place]) for place, shortcut in SHORTCUTS.items()}
    return replace(RULES, operators=operators, shortcuts=shortcuts), seen


def _operator(operator: Operator, seen: set[str]) -> Operator:
    def watched(*operands: object) -> object:
        try:
            value = operator(*operands)
        except EvaluationError:
            seen.add("fails")
            raise
        seen.add(str(value) if type(value) is bool else "value")
        return value

    return watched


def _shortcut(name: str, shortcut: Shortcut, seen: set[str]) -> Shortcut:
    def note(value: object) -> object:
        seen.add(str(bool(value)))
        return value

    def watched(names: Names, *operands: Operand) -> ast.expr:
        if name == "if":
            condition, *rest = operands
            return shortcut(names, replace(condition, node=call(names.bind(note), condition.node)), *rest)
        return call(names.bind(note), shortcut(names, *operands))

    return watched
