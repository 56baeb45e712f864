"""Generates one Python function for a run of policies: straight-line code that says which of them hold.

The code is a syntax tree (`ast`) that is compiled and made a function without being executed as a module. A function
returns the hits: the numbers of the policies that hold, and a `Fault` for each whose evaluation failed.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any, Final

from cedarpy import pst

from ringfence.policies.compiled.conditions import Condition
from ringfence.policies.compiled.fronts import PARAMETER
from ringfence.policies.compiled.operands import Kind, Names, Operand, call, compare, field, load
from ringfence.policies.compiled.rules import Rules
from ringfence.policies.compiled.translation import Front, Translator
from ringfence.policies.compiled.values import EvaluationError

_HITS: Final = "hits"
_FAILURE: Final = "failure"
_REFUSAL: Final = "refusal"


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """A policy, by its number, whose evaluation failed."""

    number: int
    reason: str


Hit = int | Fault
Hits = tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """What code is generated for: the front that reads requests, the local variables that it names, and the rules."""

    front: Callable[[Names], Front]
    variables: Mapping[str, Callable[[], ast.expr]]
    rules: Rules

    def translator(self, names: Names) -> Translator:
        """A translator for one function."""
        return Translator(names, self.front(names), self.rules)


def operand_of(translator: Translator, condition: Condition) -> Operand:
    """A condition, translated."""
    if isinstance(condition, pst.When | pst.Unless):
        return translator.clause(condition)
    return translator.condition(condition)


@dataclass(frozen=True, slots=True)
class Frame:
    """What a whole program does around its policies: look at the query's `texts`, and answer by the hits.

    `misfit` is asked only about a query with a text that is not ASCII, and may refuse it.
    """

    texts: Sequence[Operand]
    misfit: Callable[[Any], object]
    settled: Mapping[Hits, object]


def generate(
    policies: Iterable[tuple[int, Sequence[Condition]]], target: Target, frame: Frame | None = None
) -> Callable[[Any], Any]:
    """The function for these policies, each with its number: it gives the hits, or with a frame the answer.

    Raises `NotCoveredError`.
    """
    names = Names()
    translator = target.translator(names)
    body: list[ast.stmt] = [_assign(_HITS, ast.Tuple([], ast.Load()))]
    for number, conditions in policies:
        operands = [operand_of(translator, condition) for condition in conditions]
        body += _statements(number, translator.conjunction(operands), names)
    return _function(body, names, target, frame)


def enclose(hits: Callable[[Any], Hits], target: Target, frame: Frame) -> Callable[[Any], Any]:
    """The function that gives the answer by the hits that another one finds."""
    names = Names()
    return _function([_assign(_HITS, call(names.bind(hits), load(PARAMETER)))], names, target, frame)


def _function(body: list[ast.stmt], names: Names, target: Target, frame: Frame | None) -> Callable[[Any], Any]:
    result: ast.expr = load(_HITS)
    if frame is not None:
        result = ast.Subscript(names.bind(frame.settled), result, ast.Load())
        body = [*_refusal(frame, names), *body]
    return _compiled(_with_locals([*body, ast.Return(result)], target.variables), names)


def _refusal(frame: Frame, names: Names) -> list[ast.stmt]:
    empty = names.bind("")
    plain: list[ast.expr] = []
    for text in frame.texts:
        whole = call(field(empty, "join"), text.node) if text.kind is Kind.TEXTS else text.node
        plain.append(call(field(whole, "isascii")))
    ask = _assign(_REFUSAL, call(names.bind(frame.misfit), load(PARAMETER)))
    refuse = ast.If(compare(load(_REFUSAL), ast.IsNot(), ast.Constant(None)), [ast.Return(load(_REFUSAL))], [])
    return [ast.If(ast.UnaryOp(ast.Not(), ast.BoolOp(ast.And(), plain)), [ask, refuse], [])]


def _assign(name: str, value: ast.expr) -> ast.stmt:
    return ast.Assign([ast.Name(name, ast.Store())], value)


def _statements(number: int, holds: Operand, names: Names) -> list[ast.stmt]:
    hit = _append(ast.Tuple([ast.Constant(number)], ast.Load()))
    test: ast.stmt = ast.If(holds.node, [hit], [])
    if holds.constant is False:
        return []
    if not holds.fails:
        return [hit if holds.constant is True else test]
    fault = call(names.bind(Fault), ast.Constant(number), call(names.bind(str), load(_FAILURE)))
    handler = ast.ExceptHandler(names.bind(EvaluationError), _FAILURE, [_append(ast.Tuple([fault], ast.Load()))])
    return [ast.Try([test], [handler], [], [])]


def _append(hits: ast.expr) -> ast.stmt:
    return ast.AugAssign(ast.Name(_HITS, ast.Store()), ast.Add(), hits)


def _with_locals(body: list[ast.stmt], variables: Mapping[str, Callable[[], ast.expr]]) -> list[ast.stmt]:
    """`body` after the assignments of the local variables that it reads; one that is read once is written out."""
    reads = Counter(node.id for statement in body for node in ast.walk(statement) if isinstance(node, ast.Name))
    values: dict[str, ast.expr] = {}
    for name in reversed(tuple(variables)):
        if reads[name]:
            values[name] = variables[name]()
            reads.update(node.id for node in ast.walk(values[name]) if isinstance(node, ast.Name))
    inline: dict[str, ast.expr] = {}
    prelude: list[ast.stmt] = []
    for name, node in reversed(values.items()):
        value = _Inlined(inline).visit(node)
        if reads[name] == 1:
            inline[name] = value
        else:
            prelude.append(_assign(name, value))
    return [*prelude, *(_Inlined(inline).visit(statement) for statement in body)]


class _Inlined(ast.NodeTransformer):
    """Writes the values of local variables in the place of their names."""

    def __init__(self, values: Mapping[str, ast.expr]) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._values.get(node.id, node)


def _compiled(body: list[ast.stmt], names: Names) -> Callable[[Any], Any]:
    arguments = ast.arguments([], [ast.arg(PARAMETER)], None, [], [], None, [])
    module = ast.Module([ast.FunctionDef("decide", arguments, body, [])], [])
    code = compile(ast.fix_missing_locations(module), "<policies>", "exec")
    [inner] = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return FunctionType(inner, names.namespace)
