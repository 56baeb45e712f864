"""Verifies the assertions of one upstream's requests: signature, audience, time, target, and that each comes once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Final

import msgspec

from ringfence import httpsig
from ringfence.plugin.assertion import LIFETIME_S, SKEW_S, AssertionVerifier, Claims, read_published_keys
from ringfence.plugin.hosts.port import ASSERTION
from ringfence.plugin.replay import NonceLedger
from ringfence.plugin.upstream.errors import (
    ASSERTION_KEYS_MALFORMED,
    ASSERTION_MISSING,
    ASSERTION_REPLAYED,
    UpstreamError,
)

REREAD_S: Final = 5


class UpstreamSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An upstream: its `name` at the gateway, the gateway's key id, the file with the gateway's published keys, and
    what may be held of bodies: `memory_bytes` of each in memory, the rest up to `body_bytes` in a file."""

    name: str
    gateway: str
    keys: str
    remembered: Annotated[int, msgspec.Meta(ge=1000, le=100_000_000)] = 1_000_000
    memory_bytes: Annotated[int, msgspec.Meta(ge=0, le=1024 * 1024 * 1024)] = 1024 * 1024
    body_bytes: Annotated[int, msgspec.Meta(ge=0, le=1024 * 1024 * 1024 * 1024)] = 64 * 1024 * 1024
    body_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 30.0


class Keys:
    """The gateway's published keys, in a file that is read again at most every `REREAD_S` seconds when it changed.

    A file that cannot be read or understood leaves the keys that there were: a rotation that fails halfway neither
    opens nor closes the upstream.
    """

    def __init__(self, settings: UpstreamSettings, clock: Callable[[], float]) -> None:
        """Raises `assertion.keys_malformed` where there are no keys to begin with."""
        self._settings = settings
        self._path = Path(settings.keys)
        self._clock = clock
        self._looked_at = clock()
        try:
            self._stamp = self._path.stat().st_mtime_ns
            self.verifier = self._read()
        except OSError as error:
            raise UpstreamError(
                ASSERTION_KEYS_MALFORMED,
                f"The gateway's keys cannot be read: {error.strerror}.",
                field="keys",
                hint="Save what the gateway publishes to this file.",
            ) from error

    def current(self) -> AssertionVerifier:
        """The verifier of the keys that hold now."""
        now = self._clock()
        if now >= self._looked_at + REREAD_S or now < self._looked_at:
            self._looked_at = now
            try:
                stamp = self._path.stat().st_mtime_ns
                if stamp != self._stamp:
                    self.verifier = self._read()
                    self._stamp = stamp
            except (OSError, UpstreamError):
                return self.verifier
        return self.verifier

    def _read(self) -> AssertionVerifier:
        with self._path.open("rb") as file:
            keys = read_published_keys(file.read(64 * 1024 + 1))
        return AssertionVerifier(keys, gateway=self._settings.gateway, audience=self._settings.name)


class AssertionDesk:
    """Verifies the assertion of each request once."""

    def __init__(self, settings: UpstreamSettings, clock: Callable[[], float]) -> None:
        """Raises `UpstreamError` where there are no keys. `clock` gives seconds since the epoch."""
        self._keys = Keys(settings, clock)
        self._spent = NonceLedger(
            lifetime_s=LIFETIME_S + 2 * SKEW_S, capacity=settings.remembered, quota=settings.remembered
        )
        self._clock = clock

    def verify(self, target: httpsig.Target, headers: Iterable[tuple[str, str]]) -> Claims:
        """The claims of the one assertion among `headers` (lower-case names).

        Raises `UpstreamError`, and `GateError` for an assertion that came before or where no more can be remembered.
        """
        tokens = [value for name, value in headers if name == ASSERTION]
        if len(tokens) != 1:
            raise UpstreamError(
                ASSERTION_MISSING,
                "The request carries no assertion, or more than one: it did not come through the gateway.",
                field=ASSERTION,
                hint="Ask the gateway, not this service.",
            )
        now = int(self._clock())
        claims = self._keys.current().verify(tokens[0], target, now=now)
        self._spent.spend("", claims.jti, until=claims.exp + SKEW_S, now=now, code=ASSERTION_REPLAYED)
        return claims
