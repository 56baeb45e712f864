"""Error codes of the cryptography; messages never say more than that a check failed."""

from __future__ import annotations

from ringfence.errors import Code, Kind, RingfenceError


class CryptoError(RingfenceError):
    """A key, signature, ciphertext or handshake message is not what it claims to be."""


ALGORITHM_UNKNOWN = Code("crypto.algorithm_unknown", Kind.INVALID)
KEY_INVALID = Code("crypto.key_invalid", Kind.INVALID)
SIGNATURE_INVALID = Code("crypto.signature_invalid", Kind.UNAUTHENTICATED)
CIPHERTEXT_INVALID = Code("crypto.ciphertext_invalid", Kind.INVALID)
CONTEXT_TOO_LONG = Code("crypto.context_too_long", Kind.INVALID)
HANDSHAKE_MALFORMED = Code("handshake.malformed", Kind.INVALID)
HANDSHAKE_STALE = Code("handshake.stale", Kind.UNAUTHENTICATED)
HANDSHAKE_MISDIRECTED = Code("handshake.misdirected", Kind.UNAUTHENTICATED)
HANDSHAKE_REFUSED = Code("handshake.refused", Kind.UNAUTHENTICATED)
