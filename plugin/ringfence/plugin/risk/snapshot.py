"""The assessor's memory as a state's payload: encoded entry by entry, so that nobody waits for all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isfinite
from typing import Annotated, Final

import msgspec

from ringfence.plugin.risk.assessor import MAX_REFUSALS, Assessor
from ringfence.plugin.risk.baseline import MAX_COUNT, MAX_NAMES, MOST_VARIANCE, NO_MOMENTS, Baseline
from ringfence.plugin.risk.clock import SteadyClock
from ringfence.plugin.risk.settings import RiskSettings
from ringfence.plugin.risk.state import malformed

KIND: Final = "baselines"

_Name = Annotated[str, msgspec.Meta(max_length=1024)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Count = Annotated[float, msgspec.Meta(ge=0, le=MAX_COUNT)]


class _Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    principal: _Name
    at: _Time
    last_region: _Name
    region_at: _Time
    rate: _Count
    refusals: Annotated[float, msgspec.Meta(ge=0, le=MAX_REFUSALS)]
    travels: Annotated[float, msgspec.Meta(ge=0, le=2)]
    seen: _Count
    learned_at: _Time
    size_mean: Annotated[float, msgspec.Meta(ge=0, le=128)]
    size_variance: Annotated[float, msgspec.Meta(ge=0, le=MOST_VARIANCE)]
    rate_mean: Annotated[float, msgspec.Meta(ge=0, le=128)]
    rate_variance: Annotated[float, msgspec.Meta(ge=0, le=MOST_VARIANCE)]
    moments: Annotated[bytes, msgspec.Meta(min_length=len(NO_MOMENTS), max_length=len(NO_MOMENTS))]
    usual: Annotated[dict[_Name, _Count], msgspec.Meta(max_length=MAX_NAMES)]
    forest: Annotated[int, msgspec.Meta(ge=0, le=100)]


class _Payload(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    steady: _Time
    settings: RiskSettings
    entries: tuple[_Entry, ...]


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODER = msgspec.msgpack.Decoder(_Payload)


def entries(assessor: Assessor) -> Iterator[bytes]:
    """Each principal that is known when this begins, encoded; the assessor may go on assessing in between."""
    for principal, known in assessor.baselines():
        yield _ENCODE(
            _Entry(
                principal,
                known.at,
                known.last_region,
                known.region_at,
                known.rate,
                known.refusals,
                known.travels,
                known.seen,
                known.learned_at,
                known.size_mean,
                known.size_variance,
                known.rate_mean,
                known.rate_variance,
                known.moments,
                known.usual,
                known.forest,
            )
        )


def payload(assessor: Assessor, encoded: Iterable[bytes]) -> bytes:
    """The payload of the assessor's `entries`."""
    return _ENCODE((assessor.clock.steady, assessor.settings, [msgspec.Raw(entry) for entry in encoded]))


def restored(data: bytes, settings: RiskSettings | None = None) -> Assessor:
    """An assessor that knows what a payload says; `RiskError` risk.state_malformed.

    Without `settings`, those that it was saved under hold: what was scored by then can be explained by them. Where they
    allow fewer principals than were saved, the least important ones are forgotten.
    """
    try:
        found = _DECODER.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise malformed("its payload is none of baselines") from None
    if len({entry.principal for entry in found.entries}) != len(found.entries):
        raise malformed("a principal is in it twice")
    assessor = Assessor(found.settings if settings is None else settings, SteadyClock(found.steady))
    for entry in found.entries:
        if not all(isfinite(count) and count >= 0 for count in memoryview(entry.moments).cast("f")):
            raise malformed("a count in it is none")
        assessor.restore(entry.principal, _baseline(entry, found.steady, assessor.settings.learn_every_s))
    return assessor


def _baseline(entry: _Entry, steady: int, learn_every_s: int) -> Baseline:
    # No time of a state lies after the state's own.
    return Baseline(
        at=min(entry.at, steady),
        last_region=entry.last_region,
        region_at=min(entry.region_at, steady),
        rate=entry.rate,
        refusals=entry.refusals,
        travels=entry.travels,
        seen=entry.seen,
        learned_at=min(entry.learned_at, steady),
        size_mean=entry.size_mean,
        size_variance=entry.size_variance,
        rate_mean=entry.rate_mean,
        rate_variance=entry.rate_variance,
        moments=entry.moments,
        usual=entry.usual,
        forest=entry.forest,
        due=min(entry.learned_at, steady) + learn_every_s if entry.usual else steady,
    )
