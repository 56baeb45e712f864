"""Policies as a program: what answers requests, made from generated functions and, for many policies, an index.

Every policy that may hold is evaluated for every request, whatever the others say: any error denies, so none may be
left out because the answer seems clear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, Generic, TypeVar

from cedarpy import pst

from ringfence.policies.compiled.chunks import Fault, Hits, Target, generate
from ringfence.policies.compiled.conditions import Condition, conditions_of
from ringfence.policies.compiled.fronts import RequestFront
from ringfence.policies.compiled.indexing import Dimension, Index
from ringfence.policies.compiled.rules import RULES, Rules
from ringfence.policies.compiled.values import Request

CHUNK: Final = 16
"""Most policies in one generated function. Python compiles a function in one go, holding all threads up meanwhile."""
MAX_SETTLED: Final = 4096
"""Most combinations of hits whose answer is kept."""

_T = TypeVar("_T")
Chunk = Callable[[object], Hits]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Cedar's answer: `reasons` are the ids of the policies that decided, `errors` of those whose evaluation failed."""

    allowed: bool
    reasons: frozenset[str]
    errors: frozenset[str]


class Settled(dict[Hits, _T], Generic[_T]):
    """The answers by the hits that they follow from, made when they are first asked for; bounded."""

    def __init__(self, settle: Callable[[Hits], _T]) -> None:
        super().__init__()
        self._settle = settle

    def __missing__(self, hits: Hits) -> _T:
        answer = self._settle(hits)
        # A fault is an object of its own and would never be found again.
        if len(self) < MAX_SETTLED and not any(isinstance(hit, Fault) for hit in hits):
            self[hits] = answer
        return answer


class Program:
    """A Cedar policy set that answers any request. Raises `NotCoveredError` for what the compiler does not know."""

    def __init__(self, policies: pst.PolicySet, rules: Rules = RULES) -> None:
        listed = {name: conditions_of(policy, {}) for name, policy in policies.static_policies.items()}
        for link in policies.template_links:
            listed[link.new_id] = conditions_of(policies.templates[link.template_id], link.values)
        self._names = tuple(listed)
        self._permits = tuple(policy.effect == "permit" for policy in listed.values())
        target = Target(RequestFront, {}, rules)
        numbered = [(number, policy.conditions) for number, policy in enumerate(listed.values())]
        self._chunks = [generate(part, target) for part in parts(numbered)]

    def decide(self, request: Request) -> Outcome:
        """Cedar's answer to a request."""
        hits = [hit for chunk in self._chunks for hit in chunk(request)]
        errors = frozenset(self._names[hit.number] for hit in hits if isinstance(hit, Fault))
        allowed, reasons = decided([hit for hit in hits if not isinstance(hit, Fault)], self._permits)
        return Outcome(allowed, frozenset(self._names[number] for number in reasons), errors)


def decided(holding: Sequence[int], permits: Sequence[bool]) -> tuple[bool, list[int]]:
    """The answer where these policies hold, and which of them decided: a forbid outweighs every permit."""
    forbids = [number for number in holding if not permits[number]]
    return (False, forbids) if forbids else (bool(holding), list(holding))


def parts(policies: Sequence[tuple[int, Sequence[Condition]]]) -> Iterator[Sequence[tuple[int, Sequence[Condition]]]]:
    """Policies in runs that are small enough for one function."""
    for start in range(0, len(policies), CHUNK):
        yield policies[start : start + CHUNK]


class Indexed:
    """Chunks behind an index: the hits of a query among many policies."""

    def __init__(self, always: Sequence[Chunk], tables: Mapping[Dimension, Mapping[str, Sequence[Chunk]]]) -> None:
        self._always = tuple(always)
        self._single = tuple((_reader(dimension), table) for dimension, table in tables.items() if not dimension.each)
        self._each = tuple((_reader(dimension), table) for dimension, table in tables.items() if dimension.each)

    def __call__(self, query: object) -> Hits:
        hits: Hits = ()
        for chunk in self._always:
            hits += chunk(query)
        for read, table in self._single:
            for chunk in table.get(read(query), ()):
                hits += chunk(query)
        for read, table in self._each:
            for key in read(query):
                if key in table:
                    for chunk in table[key]:
                        hits += chunk(query)
        return hits


def generate_index(index: Index, target: Target) -> Iterator[Indexed | None]:
    """Generates the functions one at a time, yielding None after each, and at last what joins them."""
    always: list[Chunk] = []
    for part in parts(index.always):
        always.append(generate(part, target))
        yield None
    tables: dict[Dimension, dict[str, list[Chunk]]] = {}
    for dimension, table in index.tables.items():
        for key, policies in table.items():
            for part in parts(policies):
                tables.setdefault(dimension, {}).setdefault(key, []).append(generate(part, target))
                yield None
    yield Indexed(always, tables)


def _reader(dimension: Dimension) -> Callable[[object], str]:
    return attrgetter(f"context.{dimension.attribute}" if dimension.of_context else dimension.attribute)
