"""What is usual for one principal: exponentially weighted means and variances, and decaying histograms.

Sizes and rates are compared as doublings (log2 of one more than the value), in which ten times as much is as unusual
for a small as for a large one. Mean and variance follow West's incremental form (D. H. D. West, "Updating mean and
variance estimates", CACM 22(9), 1979) with a constant weight once the baseline is warm.
"""

from __future__ import annotations

import struct
from math import log2, sqrt
from typing import Final

import msgspec

from ringfence.plugin.risk.settings import RiskSettings

HOURS: Final = 24
WEEKDAYS: Final = 7
MAX_NAMES: Final = 16
MAX_COUNT: Final = 1e12
DEVIATIONS: Final = 3.0
LEAST_VARIANCE: Final = 0.25
MOST_VARIANCE: Final = 4.0
RATE_HALF_LIFE_S: Final = 41.6
"""A decaying count with this half-life holds about the requests of the last minute: 60 s times ln 2."""

REGION: Final = "@"
"""Before a region's name where it is counted beside the actions."""

UNBOUNDED: Final = 1 << 62
_MOMENTS: Final = struct.Struct(f"<{HOURS + WEEKDAYS}f")
NO_MOMENTS: Final = bytes(_MOMENTS.size)
_LEAST_COUNT = 0.05
_HOUR_SHARE = 0.02
_WEEKDAY_SHARE = 0.01


class Sample(msgspec.Struct, frozen=True, gc=False):
    """What is learned of a request: `port.Features` without what was learned already."""

    action: str
    size: int
    region: str
    now: int


class Baseline(msgspec.Struct, gc=False):
    """One principal, as far as it is known. Not frozen: it is updated in place on the path of every request.

    `at` and `learned_at` are steady seconds, `region_at` when it last asked from `last_region`, `due` from when on a
    request is learned next, which `pending` is until the following one. `rate`, `refusals` and
    `travels` are counts that decay, as of `at`. `usual` counts the actions, and behind `REGION` the regions, that were
    learned. From `size_high` on is what learning leaves behind so that a usual request needs comparisons alone:
    thresholds, and the last usual action and region.
    """

    at: int
    last_region: str = ""
    region_at: int = 0
    rate: float = 0.0
    refusals: float = 0.0
    travels: float = 0.0
    seen: float = 0.0
    learned_at: int = 0
    size_mean: float = 0.0
    size_variance: float = LEAST_VARIANCE
    rate_mean: float = 0.0
    rate_variance: float = LEAST_VARIANCE
    moments: bytes = NO_MOMENTS
    usual: dict[str, float] = {}
    forest: int = 0
    size_high: int = UNBOUNDED
    rate_high: float = 0.0
    action: str = ""
    region: str = "?"
    hour: int = -1
    moment_points: int = 0
    loud: bool = False
    due: int = 0
    pending: Sample | None = None


def learn(baseline: Baseline, sample: Sample, rate: float, *, steady: int, settings: RiskSettings) -> None:
    """Takes one request, at `rate` requests a minute, into what is usual.

    One request moves a mean by at most `learning_rate` times three standard deviations of at most two doublings, and a
    count by one. Before the baseline is warm it is the plain mean of what was learned; the score is capped meanwhile.
    """
    faded = 0.5 ** ((steady - baseline.learned_at) / settings.forget_s)
    warm = baseline.seen >= settings.cold_observations
    seen = min(baseline.seen * faded + 1.0, MAX_COUNT)
    weight = settings.learning_rate if warm else max(settings.learning_rate, 1.0 / seen)
    if sample.size >= 0:
        baseline.size_mean, baseline.size_variance = _moved(
            baseline.size_mean, baseline.size_variance, log2(sample.size + 1), weight, bounded=warm
        )
    baseline.rate_mean, baseline.rate_variance = _moved(
        baseline.rate_mean, baseline.rate_variance, log2(rate + 1), weight, bounded=warm
    )
    moments = [count * faded for count in _MOMENTS.unpack(baseline.moments)]
    moments[sample.now // 3600 % HOURS] += 1.0
    moments[HOURS + weekday(sample.now)] += 1.0
    baseline.moments = _MOMENTS.pack(*moments)
    baseline.usual = _counted(baseline.usual, sample, faded)
    baseline.seen = seen
    baseline.learned_at = steady
    set_thresholds(baseline, settings)


def set_thresholds(baseline: Baseline, settings: RiskSettings) -> None:
    """Works out anew from where on a size or a rate is unusual."""
    if baseline.seen < settings.cold_observations:
        baseline.size_high, baseline.rate_high = UNBOUNDED, float(settings.rate_limit)
        return
    size = baseline.size_mean + DEVIATIONS * sqrt(max(LEAST_VARIANCE, baseline.size_variance))
    rate = baseline.rate_mean + DEVIATIONS * sqrt(max(LEAST_VARIANCE, baseline.rate_variance))
    baseline.size_high = max(settings.size_free, int(2 ** min(size, 61.0)))
    baseline.rate_high = min(float(settings.rate_limit), max(float(settings.rate_free), 2 ** min(rate, 61.0)))


def deviations(mean: float, variance: float, value: float) -> float:
    """How many standard deviations `value` lies above what is usual, in doublings."""
    return (log2(value + 1) - mean) / sqrt(max(LEAST_VARIANCE, variance))


def weekday(now: int) -> int:
    """The day of the week in UTC, 0 is Monday."""
    return (now // 86_400 + 3) % WEEKDAYS


def hour_unusual(baseline: Baseline, hour: int) -> bool:
    """Whether less than two percent of what was learned came within an hour of `hour`."""
    counts = _MOMENTS.unpack(baseline.moments)[:HOURS]
    near = counts[hour - 1] + counts[hour] + counts[(hour + 1) % HOURS]
    all_day: float = sum(counts)
    return bool(near < _HOUR_SHARE * all_day)


def weekday_unusual(baseline: Baseline, day: int) -> bool:
    """Whether less than one percent of what was learned came on this weekday, once three weekdays are known."""
    counts = _MOMENTS.unpack(baseline.moments)[HOURS:]
    # Somebody who is known since Tuesday is not unusual on Wednesday.
    known = sum(1 for count in counts if count >= 1.0)
    return known >= 3 and counts[day] < _WEEKDAY_SHARE * sum(counts)


def shares(baseline: Baseline) -> tuple[list[float], list[float]]:
    """What was learned by hour of the day and by weekday, as counts."""
    counts = _MOMENTS.unpack(baseline.moments)
    return list(counts[:HOURS]), list(counts[HOURS:])


def _moved(mean: float, variance: float, value: float, weight: float, *, bounded: bool) -> tuple[float, float]:
    change = value - mean
    if bounded:
        most = DEVIATIONS * sqrt(max(LEAST_VARIANCE, variance))
        change = max(-most, min(most, change))
    variance = (1.0 - weight) * (variance + weight * change * change)
    return mean + weight * change, min(MOST_VARIANCE, variance)


def _counted(usual: dict[str, float], sample: Sample, faded: float) -> dict[str, float]:
    counts = {name: kept for name, count in usual.items() if (kept := count * faded) >= _LEAST_COUNT}
    for name in (sample.action, REGION + sample.region):
        if name not in counts and len(counts) >= MAX_NAMES:
            del counts[min(counts, key=counts.__getitem__)]
        counts[name] = min(counts.get(name, 0.0) + 1.0, MAX_COUNT)
    return counts
