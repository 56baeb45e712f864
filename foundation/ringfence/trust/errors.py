"""What can be wrong with pinned keys and key files."""

from __future__ import annotations

from ringfence.errors import Code, Kind, RingfenceError

UNKNOWN_KEY = Code("trust.unknown_key", Kind.UNAUTHENTICATED)
WRONG_ROLE = Code("trust.wrong_role", Kind.DENIED)
EXPIRED = Code("trust.expired", Kind.UNAUTHENTICATED)

NO_SUCH_PIN = Code("trust.no_such_pin", Kind.NOT_FOUND)
CONFLICT = Code("trust.conflict", Kind.CONFLICT)
MALFORMED = Code("trust.malformed", Kind.INVALID)
MISSING_FILE = Code("trust.missing_file", Kind.NOT_FOUND)
UNSAFE_FILE = Code("trust.unsafe_file", Kind.DENIED)

KEY_MALFORMED = Code("trust.key_malformed", Kind.INVALID)
KEY_EXISTS = Code("trust.key_exists", Kind.CONFLICT)


class TrustError(RingfenceError):
    """A key that is not pinned as needed, or a trust list or key file that cannot be used."""
