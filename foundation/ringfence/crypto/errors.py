"""Error codes of the cryptography; messages never say more than that a check failed."""

from __future__ import annotations

from ringfence.errors import Code, Kind, RingfenceError


class CryptoError(RingfenceError):
    """A key, signature, ciphertext or handshake message is not what it claims to be."""


ALGORITHM_UNKNOWN = Code("crypto.algorithm_unknown", Kind.INVALID)
PROVIDER_ABSENT = Code("crypto.provider_absent", Kind.UNAVAILABLE)
KEY_INVALID = Code("crypto.key_invalid", Kind.INVALID)
SIGNATURE_INVALID = Code("crypto.signature_invalid", Kind.UNAUTHENTICATED)
CIPHERTEXT_INVALID = Code("crypto.ciphertext_invalid", Kind.INVALID)
NONCE_INVALID = Code("crypto.nonce_invalid", Kind.INVALID)
BUFFER_INVALID = Code("crypto.buffer_invalid", Kind.INVALID)
CONTEXT_TOO_LONG = Code("crypto.context_too_long", Kind.INVALID)
HANDSHAKE_MALFORMED = Code("handshake.malformed", Kind.INVALID)
HANDSHAKE_STALE = Code("handshake.stale", Kind.UNAUTHENTICATED)
HANDSHAKE_MISDIRECTED = Code("handshake.misdirected", Kind.UNAUTHENTICATED)
HANDSHAKE_REFUSED = Code("handshake.refused", Kind.UNAUTHENTICATED)
HANDSHAKE_SHARE_MISSING = Code("handshake.share_missing", Kind.UNAUTHENTICATED)
KEY_UNAVAILABLE = Code("crypto.key_unavailable", Kind.UNAVAILABLE)
KEY_SPENT = Code("crypto.key_spent", Kind.CONFLICT)
STREAM_TOO_LONG = Code("crypto.stream_too_long", Kind.TOO_LARGE)
FORM_INVALID = Code("crypto.form_invalid", Kind.INVALID)
