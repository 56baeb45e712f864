"""Risk: a score from 0 to 100 out of what a principal and its source did lately, with its reasons.

Two decaying counts (half-life five minutes): refusals and requests. What was not authenticated counts against its
source, never against the principal that it claims to be.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from ringfence.plugin.errors import RISK_TOO_HIGH, GateError

HALF_LIFE_S = 300
REFUSAL_WEIGHT = 12
SOURCE_SHARE = 48
RATE_FREE = 600
MAX_SUBJECTS = 100_000
_DECAY = math.log(2) / HALF_LIFE_S


@dataclass(frozen=True, slots=True)
class RiskScore:
    """0 (nothing unusual) to 100; `reasons` name what raised it."""

    score: int
    reasons: tuple[str, ...]


@dataclass(slots=True)
class _Count:
    refusals: float
    requests: float
    at: int


class RiskLedger:
    """Decaying counts of at most `MAX_SUBJECTS` principals and sources; the longest unseen is forgotten first."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, _Count] = OrderedDict()

    def assess(self, principal: str, source: str, *, now: int) -> RiskScore:
        """The score of a request by `principal` from `source`, and counts it."""
        mine, theirs = self._count(principal, now), self._count(source, now)
        mine.requests += 1
        reasons: list[str] = []
        # Many callers may share a source, so that what a stranger does from there cannot deny them on its own.
        score = REFUSAL_WEIGHT * mine.refusals + min(SOURCE_SHARE, REFUSAL_WEIGHT * theirs.refusals)
        if score >= 1:
            reasons.append("recent refusals")
        if mine.requests > RATE_FREE:
            score += 100 * (mine.requests / RATE_FREE - 1)
            reasons.append("unusual rate")
        return RiskScore(min(100, int(score)), tuple(reasons))

    def refused(self, subject: str, *, now: int) -> None:
        """Counts a refusal against `subject`."""
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


def tolerable(score: RiskScore, ceiling: int) -> RiskScore:
    """`score`, unless it is at or above the gateway's own ceiling; policies may be stricter, never laxer."""
    if score.score >= ceiling:
        raise GateError(
            RISK_TOO_HIGH,
            f"The risk score is {score.score}, the gateway's ceiling {ceiling}: {', '.join(score.reasons)}.",
            hint="Wait some minutes; the score halves every five.",
        )
    return score
