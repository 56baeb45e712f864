"""Why a bundle answers as it does, and which single change of the request would turn the answer.

Candidates for a change come from the policies themselves: the constants that they compare with, and what lies beside
them. Each is decided before it is told, so a change that is told is right; that none is told does not prove that there
is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace

import msgspec
from cedarpy import pst

from ringfence.policies.analysis.conditions import Observed, Observer, Outcome
from ringfence.policies.analysis.requests import Fact, as_asked, as_query
from ringfence.policies.analysis.syntax import parse
from ringfence.policies.bundle import Bundle
from ringfence.policies.decision import Decider, DeviceStatus, Query, Verdict
from ringfence.policies.errors import PolicyError

MAX_CANDIDATES = 2_000
"""Most changes that are tried."""


@dataclass(frozen=True, slots=True)
class Change:
    """One attribute, or the groups, with a value that turns the answer; of several the nearest."""

    name: str
    value: Fact
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Explanation:
    """An answer with its reasons. `policies` are those whose scope matched, or that decided."""

    query: Query
    verdict: Verdict
    policies: tuple[Observed, ...]
    changes: tuple[Change, ...]


def explain(bundle: Bundle, decider: Decider, query: Query) -> Explanation:
    """Explains the answer of `decider`, which decides by `bundle`, to one query."""
    verdict = decider.decide(query)
    observed = Observer(bundle).observe(query)
    concerned = tuple(one for one in observed if one.scope or one.outcome is Outcome.ERROR)
    return Explanation(query, verdict, concerned, tuple(_changes(bundle, decider, query, verdict)))


def _changes(bundle: Bundle, decider: Decider, query: Query, verdict: Verdict) -> Iterator[Change]:
    asked = as_asked(query)
    longs, texts, groups = _constants(bundle)
    texts |= {fact for fact in asked.context.values() if isinstance(fact, str)}
    tried = 0
    for name in ("groups", *asked.context):
        now: Fact = asked.groups if name == "groups" else asked.context[name]
        for value in _candidates(name, now, longs, groups if name == "groups" else texts):
            tried += 1
            if tried > MAX_CANDIDATES:
                return
            try:
                changed = (
                    msgspec.structs.replace(query, groups=value)
                    if name == "groups"
                    else as_query(replace(asked, context=asked.context | {name: value}))
                )
            except (PolicyError, msgspec.ValidationError):
                continue
            other = decider.decide(changed)
            if other.allowed is not verdict.allowed:
                yield Change(name, value, other)
                break


def _candidates(name: str, now: Fact, longs: set[int], texts: set[str]) -> Iterator[Fact]:
    """Values that the attribute might have instead, the nearest first."""
    if isinstance(now, bool):
        yield not now
    elif isinstance(now, int):
        near = {value + step for value in longs for step in (-1, 0, 1)} - {now}
        yield from sorted(near, key=lambda value: (abs(value - now), value))
    elif isinstance(now, tuple):
        yield from (tuple(sorted({*now, text})) for text in sorted(texts - set(now)))
        yield from (tuple(one for one in now if one != text) for text in now)
    elif name == "device_status":
        yield from sorted({status.value for status in DeviceStatus} - {now})
    else:
        yield from sorted(texts - {now})


def _constants(bundle: Bundle) -> tuple[set[int], set[str], set[str]]:
    longs, texts, groups = {0}, {""}, set()
    for parsed in parse(bundle):
        for node in _nodes(parsed.tree):
            if isinstance(node, pst.LongLit):
                longs.add(node.value)
            elif isinstance(node, pst.StringLit):
                texts.add(node.value)
            elif isinstance(node, pst.EntityUid) and node.type.basename == "Group":
                groups.add(node.id)
            elif isinstance(node, pst.Like):
                texts.add("".join(one.value for one in node.pattern if isinstance(one, pst.Char)))
    return longs, texts, groups


def _nodes(node: object) -> Iterator[object]:
    yield node
    if isinstance(node, tuple):
        for one in node:
            yield from _nodes(one)
    elif is_dataclass(node) and not isinstance(node, type):
        for one in fields(node):
            yield from _nodes(getattr(node, one.name))
