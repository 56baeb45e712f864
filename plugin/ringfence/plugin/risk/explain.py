"""What there is to say of a score: the recorded decision, its reasons, and what was usual for its principal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ringfence.audit.kinds import Decision
from ringfence.audit.records import Entry
from ringfence.audit.selection import iso_time
from ringfence.plugin.risk.baseline import REGION, Baseline, shares
from ringfence.plugin.risk.port import Reason
from ringfence.plugin.risk.reasons import from_record

WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Scored:
    """A recorded decision with its score (-1 where no policy was asked) and the reasons that it was recorded with."""

    decision_id: str
    time: str
    principal: str
    source: str
    action: str
    verdict: str
    code: str
    risk: int
    reasons: tuple[Reason, ...]


def find(entries: Iterable[Entry], *, decision: str, principal: str) -> Scored | None:
    """The decision with an id, or else the last one on a principal."""
    found: Entry | None = None
    for entry in entries:
        record = entry.record
        if not isinstance(record, Decision):
            continue
        if decision and record.decision_id == decision:
            return _scored(entry, record)
        if not decision and record.principal == principal:
            found = entry
    if found is None or not isinstance(found.record, Decision):
        return None
    return _scored(found, found.record)


def usual(baseline: Baseline, *, cold_below: int) -> dict[str, object]:
    """A baseline as a document: counts, thresholds, and the shares of hours, weekdays, actions and regions."""
    hours, weekdays = shares(baseline)
    known = max(1.0, baseline.seen)
    return {
        "observations": round(baseline.seen, 1),
        "known": baseline.seen >= cold_below,
        "recent_refusals": round(baseline.refusals, 1),
        "recent_travels": round(baseline.travels, 1),
        "requests_minute": round(baseline.rate, 1),
        "usual_requests_minute": round(2**baseline.rate_mean - 1, 1),
        "unusual_requests_minute": round(baseline.rate_high, 1),
        "usual_bytes": round(2**baseline.size_mean - 1),
        "unusual_bytes": baseline.size_high if baseline.seen >= cold_below else None,
        "hours_utc": [hour for hour, count in enumerate(hours) if count >= _SHARE * known],
        "weekdays": [WEEKDAYS[day] for day, count in enumerate(weekdays) if count >= _SHARE * known],
        "actions": _named(baseline, known, region=False),
        "regions": _named(baseline, known, region=True),
        "last_region": baseline.last_region,
        "forest_points": baseline.forest,
    }


def _named(baseline: Baseline, known: float, *, region: bool) -> dict[str, float]:
    named = sorted(baseline.usual.items(), key=lambda pair: -pair[1])
    return {
        name.removeprefix(REGION): round(min(1.0, count / known), 3)
        for name, count in named
        if name.startswith(REGION) is region
    }


def _scored(entry: Entry, record: Decision) -> Scored:
    risk = record.asked.context.get("risk", -1) if record.asked is not None else -1
    reasons = tuple(reason for text in record.reasons if (reason := from_record(text)) is not None)
    return Scored(
        record.decision_id,
        iso_time(entry.time_ns),
        record.principal,
        record.source,
        record.action,
        record.verdict,
        record.code,
        risk if isinstance(risk, int) else -1,
        reasons,
    )
