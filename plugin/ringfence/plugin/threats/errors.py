"""Error codes of threat detection: what it refuses, and its live feed."""

from __future__ import annotations

from ringfence.errors import Code, Kind, RingfenceError
from ringfence.plugin.errors import GateError


class StandingError(GateError):
    """Refused for how somebody stands; `retry_after_s` (at least 1) is when to try again, for Retry-After."""

    def __init__(self, code: Code, message: str, *, retry_after_s: int, hint: str = "") -> None:
        super().__init__(code, message, hint=hint)
        self.retry_after_s = retry_after_s


class WatchError(RingfenceError):
    """The live feed cannot be served or read."""


LOCKED_OUT = Code("threat.locked_out", Kind.EXHAUSTED)
RATE_EXCEEDED = Code("threat.rate_exceeded", Kind.EXHAUSTED)
WATCH_UNAVAILABLE = Code("threat.watch_unavailable", Kind.UNAVAILABLE)
WATCH_MALFORMED = Code("threat.watch_malformed", Kind.INTERNAL)
