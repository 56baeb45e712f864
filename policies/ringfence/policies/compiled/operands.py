"""Pieces of generated code: syntax nodes with what is known of their values before they are evaluated.

A node is built from Cedar's typed tree and never from text. What a policy says (texts, numbers, names) reaches the code
through the namespace that it runs in, so that no policy can write code.
"""

from __future__ import annotations

import ast
import enum
from dataclasses import dataclass
from typing import Final

from ringfence.policies.compiled.values import RecordValue, Uid


class Kind(enum.Enum):
    """What is known of a value's type. TEXTS is a set of strings held as a tuple of str; VALUE may be anything."""

    BOOL = enum.auto()
    LONG = enum.auto()
    TEXT = enum.auto()
    TEXTS = enum.auto()
    UID = enum.auto()
    VALUE = enum.auto()


class Unknown:
    """What stands for the value of an operand that is not known before it is evaluated."""


UNKNOWN: Final = Unknown()


@dataclass(frozen=True, slots=True)
class Operand:
    """An expression: its node and kind, whether evaluating it may raise `EvaluationError`, its value where known."""

    node: ast.expr
    kind: Kind
    fails: bool = False
    constant: object = UNKNOWN

    @property
    def known(self) -> bool:
        """Whether its value is known."""
        return self.constant is not UNKNOWN


class Names:
    """The namespace of one generated function: constants and functions by the names that the code calls them by."""

    def __init__(self) -> None:
        self.namespace: dict[str, object] = {}
        self._bound: dict[tuple[type, object], str] = {}
        self._temporaries = 0

    def bind(self, value: object) -> ast.Name:
        """A node that reads `value`."""
        # Some are no key; the namespace keeps the value, so that its id stays its own.
        place = (type(value), id(value) if isinstance(value, RecordValue | dict) else value)
        name = self._bound.get(place)
        if name is None:
            name = self._bound[place] = f"k{len(self._bound)}"
            self.namespace[name] = value
        return load(name)

    def temporary(self) -> str:
        """A name of its own for a local variable."""
        self._temporaries += 1
        return f"t{self._temporaries}"

    def constant(self, value: object) -> Operand:
        """An operand whose value is known."""
        if type(value) is bool:
            return Operand(ast.Constant(value), Kind.BOOL, constant=value)
        return Operand(self.bind(value), kind_of(value), constant=value)


def kind_of(value: object) -> Kind:
    """The kind of a value."""
    kinds = {bool: Kind.BOOL, int: Kind.LONG, str: Kind.TEXT, tuple: Kind.TEXTS, Uid: Kind.UID}
    return kinds.get(type(value), Kind.VALUE)


def load(name: str) -> ast.Name:
    """A node that reads a name of ours."""
    return ast.Name(name, ast.Load())


def field(base: ast.expr, name: str) -> ast.Attribute:
    """A node that reads an attribute of ours; never one that a policy names."""
    return ast.Attribute(base, name, ast.Load())


def call(function: ast.expr, *arguments: ast.expr) -> ast.Call:
    """A node that calls a function of ours."""
    return ast.Call(function, list(arguments), [])


def compare(left: ast.expr, operator: ast.cmpop, right: ast.expr) -> ast.Compare:
    """A node that compares."""
    return ast.Compare(left, [operator], [right])
