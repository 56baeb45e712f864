"""An issuer's keys that turn over: read again in time, once at a time, never at a caller's bidding alone.

A token with an unknown key id causes at most one read per `min_interval_s`, so that whoever sends many of them does not
make the gateway flood the issuer. Keys that could not be read again for `max_age_s` are dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

from ringfence.errors import RingfenceError
from ringfence.plugin.identity import jwks
from ringfence.plugin.identity.errors import KEYS_UNAVAILABLE, TOKEN_KEY_UNKNOWN, IdentityError
from ringfence.plugin.identity.jwks import VerificationKey
from ringfence.plugin.identity.settings import KeySetSettings

_NEVER: Final = -(10**12)


class JwksSource(Protocol):
    """Where a JWK set comes from."""

    async def load(self) -> bytes:
        """The set's bytes, within the source's own deadline and bound. Raises `RingfenceError`."""
        ...


class Keyring:
    """The keys that `source` gives, within the intervals of `settings`. Times are in seconds since the epoch."""

    def __init__(self, source: JwksSource, settings: KeySetSettings) -> None:
        self._source = source
        self._settings = settings
        self._keys: Mapping[str, VerificationKey] = {}
        self._read_at = self._tried_at = _NEVER
        self._fault = ""
        self._reading = asyncio.Lock()

    async def key(self, name: str, *, now: int) -> VerificationKey:
        """The key called `name`. Raises `identity.token_key_unknown`, and `identity.keys_unavailable` without keys."""
        # Distances, not differences: a clock that went back must not make old keys look young.
        due = abs(now - self._read_at) >= self._settings.max_interval_s
        if due or name not in self._keys:
            await self.refresh(now=now)
        if abs(now - self._read_at) >= self._settings.max_age_s:
            self._keys = {}
            raise IdentityError(
                KEYS_UNAVAILABLE,
                f"The issuer's keys cannot be read{f' ({self._fault})' if self._fault else ''}.",
                field="keys",
                hint="Check that the issuer's JWK set can be reached from the gateway.",
            )
        key = self._keys.get(name)
        if key is None:
            raise IdentityError(
                TOKEN_KEY_UNKNOWN,
                "The token is signed with a key that its issuer does not publish.",
                field="kid",
                hint="Get a new token from the issuer.",
            )
        return key

    async def refresh(self, *, now: int) -> None:
        """Reads the keys again, unless that was tried within `min_interval_s`; those who come meanwhile wait for it.

        A failure keeps the keys that are there, until they are too old.
        """
        async with self._reading:
            if abs(now - self._tried_at) < self._settings.min_interval_s:
                return
            try:
                self._keys = jwks.decode(await self._source.load())
            except RingfenceError as error:
                self._fault = error.code.name
            else:
                self._read_at, self._fault = now, ""
            # Not reached when this caller is cancelled: the next one tries at once.
            self._tried_at = now
