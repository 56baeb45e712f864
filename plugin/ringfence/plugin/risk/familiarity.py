"""How familiar a principal's behaviour is: what the identity factor "behaviour" asks. Pure."""

from __future__ import annotations

from typing import Final

from ringfence.plugin.risk.assessor import Assessor

WARM: Final = 4
"""A principal is wholly known once so many times as many requests were learned as make it known at all."""

_PER_ODDITY: Final = 25


class Familiarity:
    """Asks an assessor's baselines. Nothing is learned or counted by asking."""

    def __init__(self, assessor: Assessor) -> None:
        self._assessor = assessor

    def familiarity(self, principal: str, *, now: int) -> int:
        """0 (nobody that is known) to 100: how much was learned, less 25 for each recent refusal, travel or oddity."""
        self._assessor.tick(now)
        baseline = self._assessor.baseline(principal)
        if baseline is None:
            return 0
        known = min(1.0, baseline.seen / (WARM * self._assessor.settings.cold_observations))
        odd = baseline.refusals + baseline.travels + bool(baseline.forest) + bool(baseline.moment_points)
        return max(0, int(100 * known - _PER_ODDITY * odd))
