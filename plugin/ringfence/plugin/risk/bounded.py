"""A table that holds at most so many entries, and forgets the one that matters least of its oldest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

CANDIDATES: Final = 8
SHARDS: Final = 16
"""How many tables the entries of a large one lie in; a power of two. An entry's is `hash(key) & (SHARDS - 1)`."""

_SMALL = 4096
Value = TypeVar("Value")


class Bounded(Generic[Value]):
    """Keys to values, about `capacity` of them; `weight` says how much an entry matters, in a time that is constant.

    Where a new key needs room, the lightest of the `CANDIDATES` entries that were longest not looked at goes, and the
    others have another turn. So a flood of new keys, each light, pushes out one another and never a heavy entry: an
    attacker does not make itself forgotten by sending from many addresses.

    A hash table that grows is copied whole, and one that forgets grows again and again. In `shards` each copy is small,
    so that no call waits for all entries. Python's hashes of texts are secret to a process (PEP 456), so nobody can
    fill one shard alone. Whoever is on the path of a request looks into its shard itself.
    """

    __slots__ = ("_capacity", "_weight", "shards")

    def __init__(self, capacity: int, weight: Callable[[Value], float]) -> None:
        distinct = 1 if capacity < _SMALL else SHARDS
        tables: list[OrderedDict[str, Value]] = [OrderedDict() for _ in range(distinct)]
        self.shards: tuple[OrderedDict[str, Value], ...] = tuple(tables * (SHARDS // distinct))
        self._capacity = -(-capacity // distinct)
        self._weight = weight

    def __len__(self) -> int:
        return sum(map(len, self._distinct()))

    def get(self, key: str) -> Value | None:
        """The value of a key, None for one that is not there."""
        return self.shards[hash(key) & (SHARDS - 1)].get(key)

    def add(self, key: str, value: Value) -> None:
        """Puts a value under a key that is not there yet."""
        shard = self.shards[hash(key) & (SHARDS - 1)]
        if len(shard) >= self._capacity:
            self._forget(shard)
        shard[key] = value

    def remove(self, key: str) -> None:
        """Forgets a key that is there."""
        del self.shards[hash(key) & (SHARDS - 1)][key]

    def pairs(self) -> Iterator[tuple[str, Value]]:
        """Every entry that is there when its shard is reached, as long as it stays."""
        for shard in self._distinct():
            for key in list(shard):
                value = shard.get(key)
                if value is not None:
                    yield key, value

    def _distinct(self) -> tuple[OrderedDict[str, Value], ...]:
        return self.shards[:1] if self.shards[0] is self.shards[-1] else self.shards

    def _forget(self, shard: OrderedDict[str, Value]) -> None:
        lightest, least = shard.popitem(last=False)
        weight = self._weight(least)
        for _ in range(min(CANDIDATES - 1, len(shard))):
            key, value = shard.popitem(last=False)
            this = self._weight(value)
            if this < weight:
                lightest, least, weight, key, value = key, value, this, lightest, least
            shard[key] = value
