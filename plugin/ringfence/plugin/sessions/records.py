"""A session packed into 128 bytes and four shared values, in memory that leaves no core dump. Pure.

A million sessions as objects would have the garbage collector visit a million objects at a time. What differs from
session to session lies in one anonymous map instead: name, key, channel, times. What sessions share is interned. The
map is wiped where a session ended, is left out of core dumps, and does not move, so a key leaves no copy behind here.
That is best effort: the interpreter may still hold copies of a key that it was handed.
"""

from __future__ import annotations

import mmap
import struct
from contextlib import suppress
from typing import Final

from ringfence.plugin.sessions.interning import Interned
from ringfence.plugin.sessions.port import Session

KEY_BYTES: Final = 32
_DIGEST_CHARS: Final = 64
# name, key, thumbprint; opened, expires, idle; principal, terms, profile, source; how name and thumbprint are written.
# Two lines of the processor's cache, since at a million sessions each line is one that must be waited for.
_RECORD: Final = struct.Struct("<16s32s32sQQQIIIII4x")
_HEX_NAME: Final = 1
_HEX_THUMBPRINT: Final = 2
_HAS_THUMBPRINT: Final = 4
_PLAIN: Final = _HEX_NAME | _HEX_THUMBPRINT
_BOUND: Final = _PLAIN | _HAS_THUMBPRINT

Terms = tuple[str, str, str, str]
"""What a session depends on: host, its status, attestation digest, bundle digest."""

Factors = tuple[tuple[str, int], ...]
Profile = tuple[tuple[str, ...], str, tuple[str, ...], int, bool, Factors]
"""What a session's principal is and showed: groups, tenant, attributes, as known when; then its factors.

Where the flag before them is set, some end before the session does: then each has the seconds from the opening to its
end, and -1 where it has none. So sessions that differ in when they were opened alone have the same profile.
"""


class Records:
    """Room for `capacity` packed sessions, by place."""

    def __init__(self, capacity: int) -> None:
        self._map = mmap.mmap(-1, capacity * _RECORD.size)
        with suppress(AttributeError, OSError):
            self._map.madvise(mmap.MADV_DONTDUMP)
        self.principals: Interned[str] = Interned(capacity)
        self.terms: Interned[Terms] = Interned(1)
        self._sources: Interned[str] = Interned(capacity)
        self._profiles: Interned[Profile] = Interned(1)
        # Names and thumbprints that are not written as a digest is; the built-in stages make none.
        self._texts: dict[int, tuple[str, str]] = {}

    def put(self, place: int, name: bytes, session: Session) -> tuple[int, int]:
        """Packs a session at a free place; the numbers of its principal and its terms.

        Raises `ValueError` for a key that has not 32 bytes and for a time before 1970, and keeps nothing then.
        """
        if len(session.key) != KEY_BYTES:
            raise ValueError(f"a session's key has {KEY_BYTES} bytes")
        opened = session.opened_at
        if min(opened, session.expires_at, session.idle_s) < 0:
            raise ValueError("a session's times are not negative")
        form, thumbprint = 0, b""
        if name.hex() == session.name:
            form |= _HEX_NAME
        if not session.thumbprint or _is_digest(session.thumbprint):
            form |= _HEX_THUMBPRINT
            thumbprint = bytes.fromhex(session.thumbprint)
        if form != _PLAIN:
            self._texts[place] = session.name, session.thumbprint
        elif thumbprint:
            form = _BOUND
        terms = (session.host, session.status, session.attestation_digest, session.bundle_digest)
        numbers = self.principals.hold(session.principal), self.terms.hold(terms)
        _RECORD.pack_into(
            self._map,
            place * _RECORD.size,
            name,
            session.key,
            thumbprint,
            opened,
            session.expires_at,
            session.idle_s,
            *numbers,
            self._profiles.hold(_profile(session)),
            self._sources.hold(session.source),
            form,
        )
        return numbers

    def take(self, place: int) -> Session:
        """The session at a place."""
        name, key, thumbprint, opened, expires, idle, principal, terms, profile, source, form = _RECORD.unpack_from(
            self._map, place * _RECORD.size
        )
        if form == _BOUND:
            text, channel = name.hex(), thumbprint.hex()
        elif form == _PLAIN:
            text, channel = name.hex(), ""
        else:
            text, channel = self._texts[place]
        groups, tenant, attributes, directory_at, timed, factors = self._profiles.value(profile)
        if timed:
            factors = tuple([(factor, 0 if after < 0 else opened + after) for factor, after in factors])
        host, status, attestation, bundle = self.terms.value(terms)
        return Session(
            text,
            self.principals.value(principal),
            groups,
            host,
            status,
            attestation,
            bundle,
            opened,
            expires,
            idle,
            key,
            factors,
            channel,
            tenant,
            attributes,
            directory_at,
            self._sources.value(source),
        )

    def wipe(self, place: int) -> None:
        """Overwrites the session at a place, and lets go of what it shared."""
        at = place * _RECORD.size
        *_, principal, terms, profile, source, _form = _RECORD.unpack_from(self._map, at)
        self._map[at : at + _RECORD.size] = bytes(_RECORD.size)
        self._profiles.release(profile)
        self._sources.release(source)
        self.principals.release(principal)
        self.terms.release(terms)
        self._texts.pop(place, None)


def _profile(session: Session) -> Profile:
    factors, opened = session.factors, session.opened_at
    timed = any(until for _, until in factors)
    if timed:
        # One that had ended before the opening is over at the opening too.
        factors = tuple((factor, max(0, until - opened) if until else -1) for factor, until in factors)
    return session.groups, session.tenant, session.attributes, session.directory_at, timed, factors


def _is_digest(text: str) -> bool:
    return len(text) == _DIGEST_CHARS and not text.strip("0123456789abcdef")
