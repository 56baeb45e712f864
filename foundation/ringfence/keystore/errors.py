"""What can be wrong with a key store."""

from __future__ import annotations

from ringfence.errors import Code, Kind, RingfenceError

NO_SUCH_KEY = Code("keystore.no_such_key", Kind.NOT_FOUND)
EXISTS = Code("keystore.exists", Kind.CONFLICT)
MALFORMED = Code("keystore.malformed", Kind.INVALID)
RETIRED = Code("keystore.retired", Kind.DENIED)
SEALED = Code("keystore.sealed", Kind.UNAVAILABLE)
UNSEALABLE = Code("keystore.unsealable", Kind.DENIED)
IN_USE = Code("keystore.in_use", Kind.CONFLICT)
UNWRITABLE = Code("keystore.unwritable", Kind.UNAVAILABLE)


class KeyStoreError(RingfenceError):
    """A key that the store does not have or give, or a store that cannot be used."""
