"""The compiler's own table of what Cedar means. It is an argument of the compiler, so that a test can plant a fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ringfence.policies.compiled.operands import Kind
from ringfence.policies.compiled.operators import OPERATORS, Operator
from ringfence.policies.compiled.shortcuts import SHORTCUTS, Shortcut


@dataclass(frozen=True, slots=True)
class Rules:
    """`operators` for values of any type, and `shortcuts` where the kinds are known. `negates` are the clauses that
    hold when their condition does not.
    """

    operators: Mapping[str, Operator]
    shortcuts: Mapping[tuple[str, tuple[Kind, ...]], Shortcut]
    negates: frozenset[str] = frozenset({"Unless"})


RULES: Final = Rules(OPERATORS, SHORTCUTS)
"""Cedar 4."""

_BOOLS: Final = (
    *("truth", "eq", "not_eq", "less", "less_eq", "greater", "greater_eq", "not", "and", "or", "in", "is"),
    *("has", "has_tag", "contains", "contains_all", "contains_any", "is_empty", "like"),
    *("is_ipv4", "is_ipv6", "is_loopback", "is_multicast", "is_in_range"),
    *("decimal_less_than", "decimal_less_eq", "decimal_greater", "decimal_greater_eq"),
)
_LONGS: Final = (
    *("add", "sub", "mul", "neg"),
    *("to_milliseconds", "to_seconds", "to_minutes", "to_hours", "to_days"),
)
RESULTS: Final[Mapping[str, Kind]] = dict.fromkeys(_BOOLS, Kind.BOOL) | dict.fromkeys(_LONGS, Kind.LONG)
"""The kinds of the operators' results; VALUE for all others."""

NEVER_FAIL: Final = frozenset({"eq", "not_eq", "set", "record"})
"""The operators that take values of every type."""
