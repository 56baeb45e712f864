"""The ledger of nonces: each message is accepted once, by one process for all workers, and nobody fills it for others.

A nonce is kept until the message that carried it has expired, in buckets by that time, so that a whole bucket is
dropped at once and nothing is ever swept. What a bucket held is freed a little with every further call.

A message is remembered as 64 bits of Python's keyed hash of principal and nonce. The same message always has the same
bits, so none passes twice; a new one that happens to share them (one in 2^44 at a million) is refused and signed anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NoReturn

from ringfence.audit.kinds import Decision, Record
from ringfence.errors import Code
from ringfence.plugin.errors import REPLAY_CAPACITY, GateError
from ringfence.plugin.replay.errors import REPLAY_QUOTA

_PARTS: Final = 256
_BUCKETS: Final = 16


@dataclass(frozen=True, slots=True)
class Spent:
    """A nonce that was accepted from `principal` in a message valid until `until`, in seconds since the epoch."""

    principal: str
    nonce: str
    until: int


@dataclass(slots=True)
class _Bucket:
    """Nonces of messages that expire before `ends`, and how many each principal has, both in parts.

    Parts, because a table of a million entries would take too long to grow, and to free; dicts, because the garbage
    collector does not walk through one of numbers, as it would through a set.
    """

    ends: int
    size: int = 0
    nonces: list[dict[int, None]] = field(default_factory=lambda: [{} for _ in range(_PARTS)])
    held: list[dict[int, int]] = field(default_factory=lambda: [{} for _ in range(_PARTS)])

    def keep(self, key: int, owner: int) -> None:
        """Adds a nonce that is not there yet."""
        self.nonces[key % _PARTS][key] = None
        held = self.held[owner % _PARTS]
        held[owner] = held.get(owner, 0) + 1
        self.size += 1


class NonceLedger:
    """At most `capacity` nonces and `quota` of each principal; beyond either it denies.

    `lifetime_s` is how long after now a message may be valid at most, skew included. A clock that goes back makes
    nothing acceptable again: once nonces are forgotten, every message is refused that could have been one of them.
    Not thread-safe: one process decides, and a call does not wait.
    """

    def __init__(self, *, lifetime_s: int, capacity: int, quota: int) -> None:
        self._lifetime_s = lifetime_s
        self._capacity = capacity
        self._quota = quota
        self._live: list[_Bucket] = []
        self._next_end = 0
        self._closed = -1
        self._size = 0
        self._garbage: list[dict[int, None] | dict[int, int]] = []

    def __len__(self) -> int:
        return self._size

    def spend(self, principal: str, nonce: str, *, until: int, now: int, code: Code) -> None:
        """Accepts the nonce of a message whose signature by `principal` was verified, once.

        `until` is when the message expires, skew included. Raises `GateError`: `code` where it was accepted before, or
        may have been; `integrity.replay_quota`; `integrity.replay_capacity`.
        """
        if now >= self._next_end:
            self._turn(now)
        if self._garbage:
            self._garbage.pop()
        if until <= self._closed or until > now + self._lifetime_s:
            self._refuse_time(until, now, code)
        key, owner = hash((principal, nonce)), hash(principal)
        part, share = key % _PARTS, owner % _PARTS
        ends = until - until % self._lifetime_s + self._lifetime_s
        held, into = 0, None
        for bucket in self._live:
            if key in bucket.nonces[part]:
                raise GateError(code, "This message was accepted before.", field="nonce", hint="Sign a new one.")
            if bucket.held[share]:
                held += bucket.held[share].get(owner, 0)
            if bucket.ends == ends:
                into = bucket
        if held >= self._quota:
            raise GateError(
                REPLAY_QUOTA,
                f"{held} recent messages of this principal are remembered, which is its quota.",
                hint="Send fewer, or give them a shorter life.",
            )
        into = into or self._begin(ends)
        if into is None or self._size >= self._capacity:
            raise GateError(REPLAY_CAPACITY, "Too many recent messages are remembered.", hint="Try again in a minute.")
        self._size += 1
        into.keep(key, owner)

    def restore(self, spent: Iterable[Spent], *, now: int) -> None:
        """Remembers what was accepted before a restart, in any order, whatever the quota.

        Messages that had expired by now are refused from here on also where the clock goes back; where there is no
        room for one, so are all that expire no later.
        """
        self._closed = max(self._closed, now - 1)
        for one in spent:
            if one.until < now:
                continue
            key = hash((one.principal, one.nonce))
            if any(key in bucket.nonces[key % _PARTS] for bucket in self._live):
                continue
            ends = one.until - one.until % self._lifetime_s + self._lifetime_s
            into = next((bucket for bucket in self._live if bucket.ends == ends), None) or self._begin(ends)
            if into is None or self._size >= self._capacity:
                self._closed = max(self._closed, one.until)
                continue
            self._size += 1
            into.keep(key, hash(one.principal))

    def _begin(self, ends: int) -> _Bucket | None:
        if len(self._live) >= _BUCKETS:
            return None
        bucket = _Bucket(ends)
        self._live.append(bucket)
        self._next_end = min(bucket.ends for bucket in self._live)
        return bucket

    def _turn(self, now: int) -> None:
        for bucket in self._live:
            if bucket.ends <= now:
                self._closed = max(self._closed, bucket.ends - 1)
                self._size -= bucket.size
                self._garbage += bucket.nonces
                self._garbage += bucket.held
        self._live = [bucket for bucket in self._live if bucket.ends > now]
        self._next_end = min((bucket.ends for bucket in self._live), default=now + self._lifetime_s)

    def _refuse_time(self, until: int, now: int, code: Code) -> NoReturn:
        if until > now + self._lifetime_s:
            raise GateError(
                code,
                f"The message is valid for more than {self._lifetime_s} s from now.",
                field="nonce",
                hint="Give it a shorter life, and check the clocks.",
            )
        raise GateError(
            code,
            "This message may have been accepted before: the clock went back to a time that is forgotten.",
            field="nonce",
            hint=f"Set the gateway's clock right; messages valid for {self._closed + 1 - until} s longer are accepted.",
        )


def spent_nonces(records: Iterable[Record]) -> Iterator[Spent]:
    """The nonces that decisions in an audit log have spent."""
    for record in records:
        if isinstance(record, Decision) and record.nonce:
            yield Spent(record.principal, record.nonce, record.nonce_until)
