"""The port of threat detection: what happened in, how somebody stands now out. Pure."""

from __future__ import annotations

import enum
from typing import Protocol

import msgspec


class Happened(enum.Enum):
    """What a decision tells the detector, beside its error code."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    REPLAYED = "replayed"
    BAD_CREDENTIAL = "bad-credential"
    STEPPED_UP = "stepped-up"
    OPENED = "opened"


class Sighting(msgspec.Struct, frozen=True, gc=False):
    """One event. `principal` is empty unless it is authenticated; `claimed` is whom an unauthenticated one names.

    `region` is what the configured networks call the source, "" for none.
    """

    what: Happened
    code: str
    source: str
    principal: str
    claimed: str
    session: str
    region: str
    now: int


class Standing(msgspec.Struct, frozen=True, gc=False):
    """How a source or a principal stands now. `risk` points are added to its score; `step_up` names a factor that it
    must show again; until `locked_until` (seconds since the epoch) it is refused; `retry_after_s` is above 0 where it
    has used up its rate."""

    risk: int = 0
    step_up: str = ""
    locked_until: int = 0
    retry_after_s: int = 0


class ThreatDetector(Protocol):
    """Sees every decision and knows how everybody stands. In memory, without waiting."""

    def see(self, sighting: Sighting) -> None:
        """Takes note of an event."""
        ...

    def standing(self, *, source: str, principal: str, now: int) -> Standing:
        """How a request stands: the stricter of its source and of its principal ("" before it is authenticated).

        Each call with a principal counts as one request against its rate, each without as one against its source's.
        """
        ...
