"""The replay cache: a nonce is accepted once while the message that carries it could still be valid."""

from __future__ import annotations

from ringfence.errors import Code
from ringfence.plugin.errors import REPLAY_CAPACITY, GateError


class ReplayCache:
    """Nonces in two generations of `lifetime_s`, at most `capacity` of them; full means deny.

    A nonce lives one to two lifetimes, so `lifetime_s` must cover a message's validity and both clocks'
    skew. A clock that goes back only makes nonces live longer.
    """

    def __init__(self, *, lifetime_s: int, capacity: int) -> None:
        self._lifetime_s = lifetime_s
        self._capacity = capacity
        self._young: set[str] = set()
        self._old: set[str] = set()
        self._turned_at = 0

    def spend(self, nonce: str, *, now: int, code: Code) -> None:
        """Accepts `nonce`, once. Raises `GateError` with `code` when it was spent before."""
        self._turn(now)
        if nonce in self._young or nonce in self._old:
            raise GateError(code, "This message was accepted before.", field="nonce", hint="Sign a new one.")
        if len(self._young) + len(self._old) >= self._capacity:
            raise GateError(REPLAY_CAPACITY, "Too many recent messages are remembered.", hint="Try again in a minute.")
        self._young.add(nonce)

    def _turn(self, now: int) -> None:
        if now < self._turned_at + self._lifetime_s:
            return
        # After two quiet lifetimes nothing that is remembered can still be valid.
        self._old = self._young if now < self._turned_at + 2 * self._lifetime_s else set()
        self._young = set()
        self._turned_at = now
