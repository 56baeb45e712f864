"""Values that many sessions share, each kept once and named by a small number. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

Value = TypeVar("Value", bound=Hashable)

NOBODY: Final = 0xFFFF_FFFF
"""A number that names no value."""

_SHARD: Final = 256
_BLOCK: Final = 16


class _Shard(Generic[Value]):
    """Some of the values: few enough that the growth of its tables is no pause.

    A dict and tuples of texts are nothing that the garbage collector walks through, as it would through a long list.
    """

    __slots__ = ("free", "holders", "places", "values")

    def __init__(self) -> None:
        self.places: dict[Value, int] = {}
        self.values: list[tuple[Value | None, ...]] = []
        self.holders = array("I")
        self.free = array("I")

    def put(self, place: int, value: Value | None) -> None:
        """Writes the value at a place, or none."""
        block, at = divmod(place, _BLOCK)
        if block == len(self.values):
            self.values.append((None,) * _BLOCK)
        self.values[block] = (*self.values[block][:at], value, *self.values[block][at + 1 :])


class Interned(Generic[Value]):
    """Values by number. A value is forgotten when its last holder lets go of it; then its number is given again.

    `expected` is how many different values there may be: the work of a call does not depend on how many there are.
    """

    def __init__(self, expected: int) -> None:
        shards = 1 << max(0, (expected // _SHARD).bit_length())
        self._shards: tuple[_Shard[Value], ...] = tuple(_Shard() for _ in range(shards))
        self._mask = shards - 1
        self._bits = self._mask.bit_length()

    def hold(self, value: Value) -> int:
        """The number of `value`, which has one holder more."""
        at = hash(value) & self._mask
        shard = self._shards[at]
        place = shard.places.get(value)
        if place is None:
            if shard.free:
                place = shard.free.pop()
            else:
                place = len(shard.holders)
                shard.holders.append(0)
            shard.places[value] = place
            shard.put(place, value)
        shard.holders[place] += 1
        return place << self._bits | at

    def value(self, number: int) -> Value:
        """The value that `number` names. Raises `LookupError` where nobody holds it."""
        place = number >> self._bits
        value = self._shards[number & self._mask].values[place // _BLOCK][place % _BLOCK]
        if value is None:
            raise LookupError("the number names no value")
        return value

    def release(self, number: int) -> None:
        """One holder of the value less."""
        shard, place = self._shards[number & self._mask], number >> self._bits
        shard.holders[place] -= 1
        if shard.holders[place]:
            return
        del shard.places[self.value(number)]
        shard.put(place, None)
        shard.free.append(place)

    def number(self, value: Value) -> int:
        """The number of `value`; `NOBODY` where nobody holds it."""
        at = hash(value) & self._mask
        place = self._shards[at].places.get(value)
        return NOBODY if place is None else place << self._bits | at
