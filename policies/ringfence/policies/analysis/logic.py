"""Logic over values that are known (Python's) or not (z3's), folded as far as possible: z3 terms are dear to build."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import z3

Truth = Any
"""A Python bool or a z3 Boolean term."""
Number = Any
"""A Python int or a z3 integer term: a Long, or the number that stands for a text."""


def every(terms: Iterable[Truth]) -> Truth:
    """The conjunction."""
    unknown = []
    for term in terms:
        if term is False:
            return False
        if term is not True:
            unknown.append(term)
    if len(unknown) < 2:
        return unknown[0] if unknown else True
    return z3.And(unknown)


def some(terms: Iterable[Truth]) -> Truth:
    """The disjunction."""
    unknown = []
    for term in terms:
        if term is True:
            return True
        if term is not False:
            unknown.append(term)
    if len(unknown) < 2:
        return unknown[0] if unknown else False
    return z3.Or(unknown)


def opposite(term: Truth) -> Truth:
    """The negation."""
    return (not term) if isinstance(term, bool) else z3.Not(term)


def same(left: Any, right: Any) -> Truth:
    """Whether two values of one sort are equal."""
    return left == right


def chosen(condition: Truth, then: Any, otherwise: Any) -> Any:
    """One value or the other."""
    if isinstance(condition, bool):
        return then if condition else otherwise
    if isinstance(then, bool) and isinstance(otherwise, bool):
        if then == otherwise:
            return then
        return condition if then else z3.Not(condition)
    return z3.If(condition, then, otherwise)
