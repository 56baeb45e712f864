"""The assessor: scores each request by what its principal does usually, and by what it and its source did lately.

What compares a request with the principal's own past is `baseline`. What strangers do counts against their source
alone, and a source's refusals add at most `source_points`, below what any shipped policy refuses: nobody locks out a
caller by misbehaving beside it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from ringfence.plugin.risk.baseline import (
    DEVIATIONS,
    RATE_HALF_LIFE_S,
    REGION,
    Baseline,
    Sample,
    deviations,
    hour_unusual,
    learn,
    set_thresholds,
    weekday,
    weekday_unusual,
)
from ringfence.plugin.risk.bounded import SHARDS, Bounded
from ringfence.plugin.risk.clock import SteadyClock
from ringfence.plugin.risk.port import Features, Reason, RiskScore
from ringfence.plugin.risk.reasons import QUIET
from ringfence.plugin.risk.settings import RiskSettings

MAX_REFUSALS: Final = 64.0
"""More recent refusals than these change no score, and would only take longer to fade."""

_FADED: Final = tuple(0.5 ** (elapsed / RATE_HALF_LIFE_S) for elapsed in range(600))
_NEGLIGIBLE = 1 / 128
_SHARD = SHARDS - 1
_ADDED_PER_TRAVEL = 1.0
_WEEKDAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
_WARM_WEIGHT_S = 86_400
_REFUSAL_WEIGHT_S = 3600


class _Source:
    """A decaying count of a source's refusals, as of `at`."""

    __slots__ = ("at", "refusals")

    def __init__(self, at: int) -> None:
        self.at = at
        self.refusals = 0.0


class Assessor:
    """Implements `port.RiskAssessor` over at most `settings.principals` principals and `settings.sources` sources.

    `observations` is the bounded queue of what was learned last, for `halfspace`; where nobody drains it, the oldest
    go. `clock` is the steady clock, given where state was restored.
    """

    def __init__(self, settings: RiskSettings, clock: SteadyClock | None = None) -> None:
        self.settings = settings
        self.clock = SteadyClock() if clock is None else clock
        self.observations: deque[tuple[str, Sample, float]] = deque(maxlen=settings.queue)
        self._principals: Bounded[Baseline] = Bounded(settings.principals, self._worth)
        self._baselines = self._principals.shards
        self._sources: Bounded[_Source] = Bounded(settings.sources, self._guilt)
        self._guilty = self._sources.shards
        cold = Reason("cold-start", settings.cold_points, "too little is known of this principal")
        self._cold = RiskScore(settings.cold_points, (cold,)) if settings.cold_points else QUIET

    def __len__(self) -> int:
        return len(self._principals)

    def assess(self, features: Features) -> RiskScore:
        """See `port.RiskAssessor`. A request that is later refused, before the principal's next, is not learned."""
        clock = self.clock
        steady = clock.steady if features.now == clock.wall else clock.read(features.now)
        baseline = self._baselines[hash(features.principal) & _SHARD].get(features.principal)
        if baseline is None:
            baseline = self._meet(features.principal, steady)
            baseline.last_region = features.region
        elif baseline.at != steady:
            self._fade(features.principal, baseline, steady)
            if features.region == baseline.last_region:
                baseline.region_at = steady
        baseline.rate += 1.0
        if steady >= baseline.due and baseline.pending is None:
            baseline.pending = Sample(features.action, features.size, features.region, features.now)
            baseline.due = steady + self.settings.learn_every_s
        if (
            baseline.loud
            or features.action != baseline.action
            or features.region != baseline.region
            or features.size > baseline.size_high
            or baseline.rate > baseline.rate_high
            or features.device_drift > 0
            or features.now // 3600 != baseline.hour
            or features.source in self._guilty[hash(features.source) & _SHARD]
        ):
            return self._weigh(baseline, features, steady)
        return QUIET

    def refused(self, subject: str, *, authenticated: bool, now: int) -> None:
        """See `port.RiskAssessor`."""
        steady = self.clock.read(now)
        if authenticated:
            baseline = self._principals.get(subject)
            if baseline is None:
                baseline = self._meet(subject, steady)
            self._fade(subject, baseline, steady)
            baseline.refusals = min(MAX_REFUSALS, baseline.refusals + 1.0)
            # What was refused is not usual, and must not become so.
            if baseline.pending is not None:
                baseline.pending = None
                baseline.due = steady
            baseline.loud = True
            return
        source = self._sources.get(subject)
        if source is None:
            source = _Source(steady)
            self._sources.add(subject, source)
        source.refusals = min(MAX_REFUSALS, self._fresh(source, steady) + 1.0)

    def requests_minute(self, principal: str, *, now: int) -> int:
        """See `port.RiskAssessor`."""
        steady = self.clock.read(now)
        baseline = self._principals.get(principal)
        if baseline is None:
            return 0
        self._fade(principal, baseline, steady)
        return int(baseline.rate + 0.5)

    def tick(self, now: int) -> None:
        """Reads the clock; called every few seconds, so that time without traffic is time that passed."""
        self.clock.read(now)

    def forest(self, principal: str, points: int) -> None:
        """Sets the points that the half-space trees give the principal, until they look at it again."""
        baseline = self._principals.get(principal)
        if baseline is not None:
            baseline.forest = points
            self._listen(baseline)

    def baseline(self, principal: str) -> Baseline | None:
        """What is known of a principal."""
        return self._principals.get(principal)

    def baselines(self) -> Iterator[tuple[str, Baseline]]:
        """Every principal that is known, with its baseline, as long as it stays."""
        return self._principals.pairs()

    def restore(self, principal: str, baseline: Baseline) -> None:
        """Puts back what was persisted of a principal that is not known yet."""
        set_thresholds(baseline, self.settings)
        self._listen(baseline)
        self._principals.add(principal, baseline)

    def _meet(self, principal: str, steady: int) -> Baseline:
        baseline = Baseline(at=steady, region_at=steady, learned_at=steady, due=steady, usual={})
        set_thresholds(baseline, self.settings)
        self._listen(baseline)
        self._principals.add(principal, baseline)
        return baseline

    def _fade(self, principal: str, baseline: Baseline, steady: int) -> None:
        elapsed = steady - baseline.at
        if elapsed <= 0:
            return
        pending = baseline.pending
        if pending is not None:
            learn(baseline, pending, baseline.rate, steady=steady, settings=self.settings)
            self.observations.append((principal, pending, baseline.rate))
            baseline.pending = None
            baseline.hour = -1
        baseline.rate *= _FADED[elapsed] if elapsed < 600 else 0.0
        baseline.at = steady
        if baseline.loud:
            faded = 0.5 ** (elapsed / self.settings.half_life_s)
            baseline.refusals *= faded
            baseline.travels *= faded
            self._listen(baseline)

    def _listen(self, baseline: Baseline) -> None:
        """Whether anything of the baseline itself adds points, whatever the request."""
        if baseline.refusals < _NEGLIGIBLE:
            baseline.refusals = 0.0
        if baseline.travels < _NEGLIGIBLE:
            baseline.travels = 0.0
        baseline.loud = bool(
            baseline.refusals
            or baseline.travels
            or baseline.forest
            or baseline.moment_points
            or baseline.seen < self.settings.cold_observations
        )

    def _weigh(self, baseline: Baseline, features: Features, steady: int) -> RiskScore:
        """The score of a request that is not plainly usual."""
        settings = self.settings
        cold = baseline.seen < settings.cold_observations
        if features.region != baseline.last_region:
            self._travel(baseline, features.region, steady)
        reasons: list[Reason] = []
        if baseline.refusals and (points := int(settings.refusal_points * baseline.refusals)):
            text = f"about {baseline.refusals:.0f} requests of this principal were refused lately"
            reasons.append(Reason("refusals", min(100, points), text))
        self._blame_source(features.source, steady, reasons)
        if baseline.travels and (points := int(settings.travel_points * min(baseline.travels, 2.0))):
            text = f"the region changed within {settings.travel_s} s, now to {features.region or 'nowhere known'}"
            reasons.append(Reason("travel", min(100, points), text))
        if features.device_drift > 0:
            points = min(100, settings.drift_points * features.device_drift)
            text = f"{features.device_drift} facts of the device changed since the session was opened"
            reasons.append(Reason("device-drift", points, text))
        if baseline.rate > settings.rate_limit:
            points = min(100, int(100 * (baseline.rate / settings.rate_limit - 1)))
            if points > 0:
                reasons.append(Reason("rate-limit", points, f"{baseline.rate:.0f} requests within a minute"))
        if cold and not reasons:
            return self._cold
        total = sum(reason.points for reason in reasons)
        if cold:
            reasons.extend(self._cold.reasons)
            total += self._cold.score
        else:
            strange = self._strange(baseline, features)
            total += min(settings.unusual_points, sum(reason.points for reason in strange))
            reasons += strange
        return RiskScore(min(100, total), tuple(reasons)) if total else QUIET

    def _strange(self, baseline: Baseline, features: Features) -> list[Reason]:
        """What is not usual for a principal that is known."""
        settings = self.settings
        reasons: list[Reason] = []
        if features.now // 3600 != baseline.hour:
            self._look_at_the_clock(baseline, features.now)
        if baseline.moment_points:
            hour, day = features.now // 3600 % 24, weekday(features.now)
            text = f"it seldom asks at {hour:02} h UTC or on {_WEEKDAYS[day]}"
            reasons.append(Reason("moment", baseline.moment_points, text))
        if baseline.rate > baseline.rate_high:
            far = deviations(baseline.rate_mean, baseline.rate_variance, baseline.rate)
            text = f"{baseline.rate:.0f} requests a minute, usually up to {baseline.rate_high:.0f}"
            _add(reasons, "rate", far, settings.rate_points, text)
        if features.size > baseline.size_high:
            far = deviations(baseline.size_mean, baseline.size_variance, features.size)
            text = f"a body of {features.size} bytes, usually up to {baseline.size_high}"
            _add(reasons, "size", far, settings.size_points, text)
        if features.action != baseline.action:
            if features.action in baseline.usual:
                baseline.action = features.action
            elif settings.action_points:
                reasons.append(Reason("action", settings.action_points, f"it has not done {features.action} before"))
        if features.region != baseline.region and REGION + features.region in baseline.usual:
            baseline.region = features.region
        elif features.region != baseline.region and settings.region_points:
            text = f"it has not asked from {features.region or 'outside the known networks'} before"
            reasons.append(Reason("region", settings.region_points, text))
        if baseline.forest:
            reasons.append(Reason("forest", baseline.forest, "features that are each usual, in an unusual combination"))
        return reasons

    def _look_at_the_clock(self, baseline: Baseline, now: int) -> None:
        points = 0
        if hour_unusual(baseline, now // 3600 % 24):
            points += self.settings.hour_points
        if weekday_unusual(baseline, weekday(now)):
            points += self.settings.weekday_points
        baseline.hour = now // 3600
        baseline.moment_points = points
        self._listen(baseline)

    def _travel(self, baseline: Baseline, region: str, steady: int) -> None:
        if steady - baseline.region_at < self.settings.travel_s:
            baseline.travels = min(2.0, baseline.travels + _ADDED_PER_TRAVEL)
            baseline.loud = True
        baseline.last_region, baseline.region_at = region, steady

    def _blame_source(self, name: str, steady: int, reasons: list[Reason]) -> None:
        source = self._sources.get(name)
        if source is None:
            return
        refusals = self._fresh(source, steady)
        if refusals < _NEGLIGIBLE:
            self._sources.remove(name)
            return
        points = min(self.settings.source_points, int(self.settings.refusal_points * refusals))
        if points:
            text = f"about {refusals:.0f} requests from the same source were refused lately"
            reasons.append(Reason("source-refusals", points, text))

    def _fresh(self, source: _Source, steady: int) -> float:
        if steady > source.at:
            source.refusals *= 0.5 ** ((steady - source.at) / self.settings.half_life_s)
            source.at = steady
        return source.refusals

    def _worth(self, baseline: Baseline) -> float:
        # The longest unseen goes first; one that is known, or has something to answer for, later.
        warm = _WARM_WEIGHT_S if baseline.seen >= self.settings.cold_observations else 0
        return baseline.at + warm + _REFUSAL_WEIGHT_S * baseline.refusals

    def _guilt(self, source: _Source) -> float:
        elapsed = self.clock.steady - source.at
        faded: float = 0.5 ** (elapsed / self.settings.half_life_s)
        return source.refusals * faded


def _add(reasons: list[Reason], feature: str, far: float, most: int, text: str) -> None:
    """Adds five points for each deviation beyond what is still usual, and one at least."""
    if most:
        reasons.append(Reason(feature, min(most, max(1, int(5 * (far - DEVIATIONS)) + 1)), text))
