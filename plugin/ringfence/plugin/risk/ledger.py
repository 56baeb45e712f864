"""Risk: a score from 0 to 100 out of what a principal and its source did lately, with its reasons.

Two decaying counts (half-life five minutes): refusals and requests. What was not authenticated counts against its
source, never against the principal that it claims to be.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from ringfence.plugin.risk.port import Features, Reason, RiskScore

HALF_LIFE_S = 300
REFUSAL_WEIGHT = 12
SOURCE_SHARE = 48
RATE_FREE = 600
MAX_SUBJECTS = 100_000
_DECAY = math.log(2) / HALF_LIFE_S


@dataclass(slots=True)
class _Count:
    refusals: float
    requests: float
    at: int


class RiskLedger:
    """Decaying counts of at most `MAX_SUBJECTS` principals and sources; the longest unseen is forgotten first."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, _Count] = OrderedDict()

    def assess(self, features: Features) -> RiskScore:
        """The score of a request, and counts it."""
        mine, theirs = self._count(features.principal, features.now), self._count(features.source, features.now)
        mine.requests += 1
        reasons: list[Reason] = []
        # Many callers may share a source, so that what a stranger does from there cannot deny them on its own.
        refusals = int(REFUSAL_WEIGHT * mine.refusals + min(SOURCE_SHARE, REFUSAL_WEIGHT * theirs.refusals))
        if refusals:
            reasons.append(Reason("refusals", refusals, "recent refusals"))
        rate = int(100 * (mine.requests / RATE_FREE - 1)) if mine.requests > RATE_FREE else 0
        if rate:
            reasons.append(Reason("rate", rate, "unusual rate"))
        return RiskScore(min(100, refusals + rate), tuple(reasons))

    def requests_minute(self, principal: str, *, now: int) -> int:
        """How many requests of the principal were assessed lately, scaled to a minute."""
        return int(self._count(principal, now).requests * 60 * _DECAY)

    def refused(self, subject: str, *, authenticated: bool, now: int) -> None:
        """Counts a refusal against `subject`."""
        del authenticated
        self._count(subject, now).refusals += 1

    def _count(self, subject: str, now: int) -> _Count:
        count = self._counts.get(subject)
        if count is None:
            count = self._counts[subject] = _Count(0.0, 0.0, now)
            if len(self._counts) > MAX_SUBJECTS:
                self._counts.popitem(last=False)
            return count
        self._counts.move_to_end(subject)
        # A clock that goes back gives no discount and no penalty.
        elapsed = max(0, now - count.at)
        if elapsed:
            faded = math.exp(-_DECAY * elapsed)
            count.refusals *= faded
            count.requests *= faded
            count.at = now
        return count
