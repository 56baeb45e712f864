"""The compiled engine with cedarpy looking over its shoulder, for a sample of the queries.

Threat: a fault in the compiler that its tests did not find allows what the policies deny. The first disagreement ends
the compiled engine's time: cedarpy decides from then on, and the event says which decisions are to be replayed.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from ringfence.policies.decision import Decider, Query, Verdict

_NEVER: Final = 2**62


class GuardSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One decision in `every`, by chance, is checked (0: none): one in `at_once` of those before its answer leaves, the
    others afterwards, of which `waiting` may wait for it.
    """

    every: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 500
    at_once: Annotated[int, msgspec.Meta(ge=1, le=2**31)] = 20
    waiting: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 256


@dataclass(frozen=True, slots=True)
class Disagreement:
    """The engines answered one query differently.

    The decisions of the bundle `bundle_digest` from `since_s` to `found_s` (seconds since the Unix epoch) were made by
    an engine that was wrong at least once: replay them. `query_digest` is the hex SHA-256 of the query as JSON, which
    names the query without telling it. `denied`: the check came before the answer, which is a denial.
    """

    bundle_digest: str
    since_s: int
    found_s: int
    query_digest: str
    compiled: Verdict
    oracle: Verdict
    denied: bool


@dataclass(frozen=True, slots=True)
class Guard:
    """What a guarded decider is given beside its engines: its settings, the clock (seconds since the Unix epoch), the
    source of chance (`draw(n)` is from 0 to n - 1) and where a disagreement is told.
    """

    settings: GuardSettings
    clock_s: Callable[[], int]
    draw: Callable[[int], int]
    report: Callable[[Disagreement], None]


class GuardedDecider:
    """Decides by a compiled engine until the oracle disagrees with it, and by the oracle from then on."""

    def __init__(self, compiled: Decider, oracle: Decider, guard: Guard) -> None:
        self._compiled, self._oracle, self._guard = compiled, oracle, guard
        self._digest = compiled.bundle_digest
        self._since_s = guard.clock_s()
        self._decide = compiled.decide
        self._waiting: deque[tuple[Query, Verdict]] = deque(maxlen=guard.settings.waiting)
        self._until = self._gap()
        self.disagreement: Disagreement | None = None
        """The first one, or None so far."""

    @property
    def bundle_digest(self) -> str:
        """SHA-256 of the bundle that decides, in hex."""
        return self._digest

    def decide(self, query: Query) -> Verdict:
        """Answer a query; one whose answer is checked first costs what cedarpy costs."""
        verdict = self._decide(query)
        self._until -= 1
        if self._until > 0:
            return verdict
        return self._sampled(query, verdict)

    def check_sampled(self, most: int = 64) -> int:
        """Check up to `most` of the decisions that wait, the oldest first, and say how many were.

        For a task or a thread of its own: each takes what cedarpy takes.
        """
        checked = 0
        while checked < most and self.disagreement is None:
            try:
                query, verdict = self._waiting.popleft()
            except IndexError:
                break
            checked += 1
            self._agrees(query, verdict, denied=False)
        return checked

    def _gap(self) -> int:
        """Decisions until the next sampled one: `every` in the mean, and by chance, so that nobody can count on it."""
        every = self._guard.settings.every
        return 1 + self._guard.draw(2 * every - 1) if every else _NEVER

    def _sampled(self, query: Query, verdict: Verdict) -> Verdict:
        if self.disagreement is not None:
            self._until = _NEVER
            return verdict
        self._until = self._gap()
        if self._guard.draw(self._guard.settings.at_once):
            # The oldest one makes room where too many wait.
            self._waiting.append((query, verdict))
            return verdict
        if self._agrees(query, verdict, denied=True):
            return verdict
        return Verdict(False, (), ("the compiled engine and cedarpy disagree",))

    def _agrees(self, query: Query, verdict: Verdict, *, denied: bool) -> bool:
        expected = self._oracle.decide(query)
        if same_answer(verdict, expected):
            return True
        # Cedarpy decides before anybody is told: telling may fail.
        self._decide = self._oracle.decide
        self._waiting.clear()
        found = Disagreement(
            self._digest, self._since_s, self._guard.clock_s(), _digest(query), verdict, expected, denied
        )
        if self.disagreement is None:
            self.disagreement = found
            self._guard.report(found)
        return False


def same_answer(one: Verdict, other: Verdict) -> bool:
    """Whether two verdicts are one: the texts of errors may differ, their number may not."""
    return (one.allowed, one.policies, one.step_up, len(one.errors)) == (
        other.allowed,
        other.policies,
        other.step_up,
        len(other.errors),
    )


def _digest(query: Query) -> str:
    try:
        return hashlib.sha256(msgspec.json.encode(query)).hexdigest()
    except ValueError:  # Text that is not Unicode.
        return hashlib.sha256(repr(query).encode("utf-8", "backslashreplace")).hexdigest()
