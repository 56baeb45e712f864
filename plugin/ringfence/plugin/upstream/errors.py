"""Error codes of an upstream that verifies what a gateway asserts."""

from __future__ import annotations

from ringfence.errors import Code, Kind, RingfenceError


class UpstreamError(RingfenceError):
    """A request did not come from the gateway as it arrived here."""


ASSERTION_MISSING = Code("assertion.missing", Kind.UNAUTHENTICATED)
ASSERTION_MALFORMED = Code("assertion.malformed", Kind.INVALID)
ASSERTION_KEY_UNKNOWN = Code("assertion.key_unknown", Kind.UNAUTHENTICATED)
ASSERTION_INVALID = Code("assertion.invalid", Kind.UNAUTHENTICATED)
ASSERTION_EXPIRED = Code("assertion.expired", Kind.UNAUTHENTICATED)
ASSERTION_WRONG_AUDIENCE = Code("assertion.wrong_audience", Kind.DENIED)
ASSERTION_WRONG_TARGET = Code("assertion.wrong_target", Kind.DENIED)
ASSERTION_REPLAYED = Code("assertion.replayed", Kind.CONFLICT)
ASSERTION_KEYS_MALFORMED = Code("assertion.keys_malformed", Kind.INVALID)
BODY_MISMATCH = Code("assertion.body_mismatch", Kind.UNAUTHENTICATED)
BODY_TOO_LARGE = Code("assertion.body_too_large", Kind.TOO_LARGE)
BODY_LATE = Code("assertion.body_late", Kind.DEADLINE)
