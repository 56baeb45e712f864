"""The replay cache: a nonce is accepted once while the message that carries it could still be valid."""

from __future__ import annotations

from typing import Final

from ringfence import httpsig
from ringfence.errors import Code
from ringfence.plugin.errors import REPLAY_CAPACITY, GateError

REPLAY_LIFETIME_S: Final = httpsig.MAX_LIFETIME_S + 2 * httpsig.SKEW_S


class ReplayCache:
    """Nonces in two generations of `lifetime_s`, at most `capacity` of them; full means deny.

    A nonce lives one to two lifetimes, so `lifetime_s` must cover a message's validity and both clocks'
    skew. A clock that goes back makes nonces live longer; where it goes back to a time whose nonces are forgotten,
    everything is refused until that time is over.
    """

    def __init__(self, *, lifetime_s: int, capacity: int) -> None:
        self._lifetime_s = lifetime_s
        self._capacity = capacity
        self._young: set[str] = set()
        self._old: set[str] = set()
        self._latest = self._latest_old = 0  # the latest time at which a nonce of each generation was accepted
        self._turned_at = 0
        self._closed_until = 0

    def spend(self, principal: str, nonce: str, *, until: int, now: int, code: Code) -> None:
        """Accepts `nonce`, once. Raises `GateError` with `code` when it was spent before."""
        del principal, until
        self._turn(now)
        if now <= self._closed_until:
            raise GateError(
                code,
                "This message may have been accepted before: the clock went back to a time that is forgotten.",
                field="nonce",
                hint=f"Set the gateway's clock right; it accepts again in {self._closed_until - now + 1} s.",
            )
        if nonce in self._young or nonce in self._old:
            raise GateError(code, "This message was accepted before.", field="nonce", hint="Sign a new one.")
        if len(self._young) + len(self._old) >= self._capacity:
            raise GateError(REPLAY_CAPACITY, "Too many recent messages are remembered.", hint="Try again in a minute.")
        self._young.add(nonce)
        self._latest = max(self._latest, now)

    def _turn(self, now: int) -> None:
        if now < self._turned_at + self._lifetime_s:
            return
        forgotten = self._latest_old
        self._old, self._latest_old = self._young, self._latest
        if now >= self._turned_at + 2 * self._lifetime_s:
            # After two quiet lifetimes nothing that is remembered can still be valid.
            forgotten, self._old = self._latest, set()
        self._closed_until = forgotten + self._lifetime_s
        self._young = set()
        self._turned_at = now
