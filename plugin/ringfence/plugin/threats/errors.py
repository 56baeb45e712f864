"""Error codes of threat detection: what it refuses, and its live feed."""

from __future__ import annotations

from ringfence.errors import Code, Kind, RingfenceError


class WatchError(RingfenceError):
    """The live feed cannot be served or read."""


LOCKED_OUT = Code("threat.locked_out", Kind.EXHAUSTED)
RATE_EXCEEDED = Code("threat.rate_exceeded", Kind.EXHAUSTED)
WATCH_UNAVAILABLE = Code("threat.watch_unavailable", Kind.UNAVAILABLE)
WATCH_MALFORMED = Code("threat.watch_malformed", Kind.INTERNAL)
