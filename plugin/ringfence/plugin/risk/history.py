"""Recorded decisions as observations: what a forest is grown from and looks at, out of the audit log alone."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import log2
from typing import Final

from ringfence.audit.kinds import Decision
from ringfence.audit.records import Entry
from ringfence.plugin.risk.baseline import weekday

COLUMNS: Final = ("hour", "weekday", "size", "rate", "gap", "action", "source", "device")
"""Hour of the day and weekday in UTC; doublings of the body's bytes, of the requests a minute and of the seconds since
the principal's last decision; how usual action and source are for the principal, from 0 to 1; the device's trust."""

MAX_PRINCIPALS: Final = 100_000
_MAX_NAMES = 64
_LONGEST_GAP = 20.0
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Observation:
    """One recorded decision about an authenticated principal, as a row of `COLUMNS`."""

    decision_id: str
    principal: str
    at: int
    allowed: bool
    row: tuple[float, ...]


class _Past:
    __slots__ = ("actions", "at", "seen", "sources")

    def __init__(self) -> None:
        self.seen = 0
        self.at = -1
        self.actions: dict[str, int] = {}
        self.sources: dict[str, int] = {}


class History:
    """Reads records in their order; remembers of each principal what the next observation is compared with."""

    def __init__(self) -> None:
        self._past: OrderedDict[str, _Past] = OrderedDict()

    def observe(self, entry: Entry) -> Observation | None:
        """The observation of a record, None where it is no decision on what a principal did, or of an older schema.

        What was refused is observed, and never becomes usual.
        """
        record = entry.record
        if not isinstance(record, Decision) or not record.principal or record.pipeline == "question":
            return None
        past = self._past.get(record.principal)
        if past is None:
            past = self._past[record.principal] = _Past()
            if len(self._past) > MAX_PRINCIPALS:
                self._past.popitem(last=False)
        at = entry.time_ns // _SECOND_NS
        allowed = record.verdict == "allow"
        observed = Observation(record.decision_id, record.principal, at, allowed, _row(record, past, at))
        past.at = at
        if allowed:
            past.seen += 1
            _count(past.actions, record.action)
            _count(past.sources, record.source)
        return observed


def _row(record: Decision, past: _Past, at: int) -> tuple[float, ...]:
    seen = max(1, past.seen)
    return (
        at % 86_400 / 3600,
        float(weekday(at)),
        log2(_number(record, "body_bytes") + 1),
        log2(_number(record, "requests_minute") + 1),
        min(_LONGEST_GAP, log2(max(0, at - past.at) + 1)) if past.at >= 0 else _LONGEST_GAP,
        min(1.0, past.actions.get(record.action, 0) / seen),
        min(1.0, past.sources.get(record.source, 0) / seen),
        float(_number(record, "device_trust")),
    )


def _number(record: Decision, name: str) -> int:
    value = record.asked.context.get(name, 0) if record.asked is not None else 0
    return max(0, value) if isinstance(value, int) else 0


def _count(counts: dict[str, int], name: str) -> None:
    if name in counts or len(counts) < _MAX_NAMES:
        counts[name] = counts.get(name, 0) + 1
