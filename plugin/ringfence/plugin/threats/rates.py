"""Rate limits: a token bucket for each subject, as the generic cell rate algorithm (ITU-T I.371, annex A).

A subject is one number: its theoretical arrival time, up to which its past requests have used its rate.
"""

from __future__ import annotations

from math import ceil

from ringfence.plugin.risk.bounded import SHARDS, Bounded

_SHARD = SHARDS - 1


class RateLimit:
    """At most `burst` requests at once and `per_s` a second on average, of each of at most `subjects`.

    A subject whose bucket is full is as good as unknown, so forgetting it changes nothing; where there is no room, the
    one that has used least goes. A `per_s` of 0 limits nothing.
    """

    __slots__ = ("_arrivals", "_interval", "_spent", "_tolerance")

    def __init__(self, per_s: float, burst: int, subjects: int) -> None:
        self._interval = 1 / per_s if per_s else 0.0
        self._tolerance = burst * self._interval
        self._spent: Bounded[float] = Bounded(subjects, float)
        self._arrivals = self._spent.shards

    def __len__(self) -> int:
        return len(self._spent)

    def take(self, subject: str, steady: int) -> int:
        """Counts one request at the steady time; 0 where it may pass, else in how many seconds one may.

        A request that may not pass uses nothing: who keeps asking is let through as soon as who waits.
        """
        interval = self._interval
        if not interval:
            return 0
        arrivals = self._arrivals[hash(subject) & _SHARD]
        arrival = arrivals.get(subject)
        if arrival is None:
            self._spent.add(subject, steady + interval)
            return 0
        following = arrival + interval
        if arrival < steady:
            following = steady + interval
        if following - steady > self._tolerance:
            return max(1, ceil(following - steady - self._tolerance))
        arrivals[subject] = following
        return 0
