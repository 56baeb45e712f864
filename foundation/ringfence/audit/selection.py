"""Which records a reader asked for, and what there is to say about one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from ringfence.audit.records import Entry
from ringfence.errors import BAD_ARGUMENT, UsageError

SECOND_NS = 1_000_000_000

_AGO = re.compile(r"(?P<number>[0-9]{1,9})(?P<unit>[smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Selection:
    """What a record must match; empty and zero mean anything. Times are nanoseconds since the epoch, `until` is out."""

    kind: str = ""
    since_ns: int = 0
    until_ns: int = 0
    session: str = ""
    principal: str = ""
    job: str = ""
    verdict: str = ""

    def matches(self, entry: Entry) -> bool:
        """Whether the record is asked for. One without a field that is asked for is not."""
        record = entry.record
        if self.kind and record.kind != self.kind:
            return False
        if entry.time_ns < self.since_ns or (self.until_ns and entry.time_ns >= self.until_ns):
            return False
        wanted = (
            ("session", self.session),
            ("principal", self.principal),
            ("job_id", self.job),
            ("verdict", self.verdict),
        )
        return all(not value or getattr(record, name, "") == value for name, value in wanted)


def parse_time(text: str, field: str, now_ns: int) -> int:
    """Nanoseconds since the epoch of a date, an RFC 3339 time (UTC without an offset), or an age such as `90s`, `2h`.

    Raises UsageError.
    """
    if (ago := _AGO.fullmatch(text)) is not None:
        return max(0, now_ns - int(ago["number"]) * _UNITS[ago["unit"]] * SECOND_NS)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            BAD_ARGUMENT,
            f"{text!r} is no time.",
            field=field,
            hint="Give 2027-01-15, 2027-01-15T08:00:00Z, or an age: 90s, 15m, 2h, 7d.",
        ) from None
    time = time.replace(tzinfo=time.tzinfo or UTC)
    since = time - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * SECOND_NS + since.microseconds * 1_000


def iso_time(time_ns: int) -> str:
    """A time in UTC, to the millisecond."""
    seconds, rest = divmod(time_ns, SECOND_NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"


def document(log: str, entry: Entry) -> dict[str, object]:
    """A record as JSON for programs."""
    return {
        "log": log,
        "seq": entry.seq,
        "time_ns": entry.time_ns,
        "time": iso_time(entry.time_ns),
        "kind": entry.record.kind,
        "data": msgspec.to_builtins(entry.record),
    }
