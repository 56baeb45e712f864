"""A table that holds at most so many entries, and forgets the one that matters least of its oldest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar

CANDIDATES: Final = 8
Value = TypeVar("Value")


class Bounded(Generic[Value]):
    """Keys to values, at most `capacity` of them; `weight` says how much an entry matters, in a time that is constant.

    Where a new key needs room, the lightest of the `CANDIDATES` entries that were longest not looked at goes, and the
    others have another turn. So a flood of new keys, each light, pushes out one another and never a heavy entry: an
    attacker does not make itself forgotten by sending from many addresses. Each call takes constant time.
    """

    __slots__ = ("_capacity", "_weight", "entries")

    def __init__(self, capacity: int, weight: Callable[[Value], float]) -> None:
        self.entries: OrderedDict[str, Value] = OrderedDict()
        self._capacity = capacity
        self._weight = weight

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, key: str, value: Value) -> None:
        """Puts a value under a key that is not there yet."""
        if len(self.entries) >= self._capacity:
            self._forget()
        self.entries[key] = value

    def _forget(self) -> None:
        entries = self.entries
        lightest, least = entries.popitem(last=False)
        weight = self._weight(least)
        for _ in range(min(CANDIDATES - 1, len(entries))):
            key, value = entries.popitem(last=False)
            this = self._weight(value)
            if this < weight:
                lightest, least, weight, key, value = key, value, this, lightest, least
            entries[key] = value
