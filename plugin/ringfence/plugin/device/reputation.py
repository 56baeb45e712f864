"""Beta reputation of devices: what was seen of each, good and bad, with less weight the longer ago.

A. Jøsang, R. Ismail, "The Beta Reputation System", 15th Bled Electronic Commerce Conference, 2002: after `good` and
`bad` observations the expected share of good ones is (good + 1) / (good + bad + 2). Both fade with a half-life, so
that everybody drifts back to the middle. What counts at most is bounded, so that a long good past hides no lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isfinite
from typing import Annotated, Final

import msgspec

from ringfence.plugin.device.settings import DeviceSettings
from ringfence.plugin.risk.bounded import Bounded
from ringfence.plugin.risk.clock import SteadyClock
from ringfence.plugin.risk.state import malformed

KIND: Final = "devices"

_Name = Annotated[str, msgspec.Meta(max_length=1024)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Evidence = Annotated[float, msgspec.Meta(ge=0, le=10_000)]
_ENCODE = msgspec.msgpack.Encoder().encode


class Record(msgspec.Struct, gc=False, array_like=True, forbid_unknown_fields=True):
    """One device: evidence as of the steady time `at`."""

    device: _Name
    good: _Evidence
    bad: _Evidence
    at: _Time


class _Payload(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    steady: _Time
    records: tuple[Record, ...]


_DECODER = msgspec.msgpack.Decoder(_Payload)


class BetaReputation:
    """Implements `port.Reputation` over at most `settings.devices` devices."""

    def __init__(self, settings: DeviceSettings, clock: SteadyClock | None = None) -> None:
        self.clock = SteadyClock() if clock is None else clock
        self._settings = settings
        # Whoever has something to answer for is forgotten last.
        self._records: Bounded[Record] = Bounded(settings.devices, lambda record: self._faded(record)[1])

    def __len__(self) -> int:
        return len(self._records)

    def standing(self, device: str, *, now: int) -> int:
        """See `port.Reputation`: 50 for a device that nobody knows."""
        self.clock.read(now)
        record = self._records.get(device)
        if record is None:
            return 50
        good, bad = self._faded(record)
        return round(100 * (good + 1) / (good + bad + 2))

    def observe(self, device: str, *, good: bool, weight: float, now: int) -> None:
        """See `port.Reputation`; a weight is at least 0 and counts up to `settings.heaviest`."""
        steady = self.clock.read(now)
        if not weight > 0:
            return
        weight = min(weight, self._settings.heaviest)
        record = self._records.get(device)
        if record is None:
            record = Record(device, 0.0, 0.0, steady)
            self._records.add(device, record)
        record.good, record.bad = self._faded(record)
        record.at = steady
        if good:
            record.good = min(self._settings.evidence, record.good + weight)
        else:
            record.bad = min(self._settings.evidence, record.bad + weight)

    def tick(self, now: int) -> None:
        """Reads the clock; called every few seconds, so that time without traffic is time that passed."""
        self.clock.read(now)

    def entries(self) -> Iterator[bytes]:
        """Each device that is known when this begins, encoded for `payload`."""
        for _, record in self._records.pairs():
            yield _ENCODE(record)

    def _faded(self, record: Record) -> tuple[float, float]:
        faded = 0.5 ** ((self.clock.steady - record.at) / self._settings.half_life_s)
        return record.good * faded, record.bad * faded

    def _restore(self, record: Record) -> None:
        self._records.add(record.device, record)


def payload(steady: int, encoded: Iterable[bytes]) -> bytes:
    """The payload of `BetaReputation.entries`, as of the steady time `steady`."""
    return _ENCODE((steady, [msgspec.Raw(entry) for entry in encoded]))


def restored(data: bytes, settings: DeviceSettings) -> BetaReputation:
    """The reputation that a payload says; `RiskError` risk.state_malformed."""
    try:
        found = _DECODER.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise malformed("its payload is none of devices") from None
    if len({record.device for record in found.records}) != len(found.records):
        raise malformed("a device is in it twice")
    reputation = BetaReputation(settings, SteadyClock(found.steady))
    for record in found.records:
        if not (isfinite(record.good) and isfinite(record.bad) and record.at <= found.steady):
            raise malformed(f"what it says of {record.device!r} cannot be")
        reputation._restore(record)  # noqa: SLF001 - of this module
    return reputation
