"""Principals' tenants, groups and attributes: what a directory says, and for how long that counts. Pure.

A directory that cannot be reached keeps what it said until that is too old; then nobody has a group. So an outage takes
rights away and never gives any, and a person who was removed does not stay for longer than `max_age_s`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from ringfence.errors import RingfenceError

MAX_GROUPS: Final = 256
MAX_ATTRIBUTES: Final = 64
MAX_TEXT: Final = 256


@dataclass(frozen=True, slots=True)
class Entry:
    """What the directory says of one principal, read at `fetched_at` (seconds since the epoch; 0: nothing is known).

    `attributes` are "name=value", as policies read them.
    """

    tenant: str = ""
    groups: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    fetched_at: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a directory says, principal -> (tenant, groups, attributes), read at one time."""

    entries: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = field(repr=False)
    fetched_at: int


class Directory(Protocol):
    """What is known of principals. In memory, without waiting."""

    def lookup(self, principal: str, now: int) -> Entry:
        """The principal's entry; one without groups for a principal that is unknown, or where all of it is stale."""
        ...


class DirectorySource(Protocol):
    """Where a directory is read from."""

    async def load(self, *, now: int) -> Snapshot:
        """All of it, within the source's own deadline and bounds. Raises `RingfenceError`; a part of it is nothing."""
        ...


class KeptDirectory:
    """The latest snapshot of `source`, which counts for `max_age_s`; its owner calls `refresh` now and then."""

    def __init__(self, source: DirectorySource, *, max_age_s: int) -> None:
        self._source = source
        self._max_age_s = max_age_s
        self._held = Snapshot({}, 0)
        self.fault: RingfenceError | None = None
        """Why the last refresh failed, for a log; None where it did not."""

    def lookup(self, principal: str, now: int) -> Entry:
        held = self._held
        # A distance: a clock that went back must not make an old snapshot young.
        if abs(now - held.fetched_at) >= self._max_age_s:
            return Entry()
        tenant, groups, attributes = held.entries.get(principal, ("", (), ()))
        return Entry(tenant, groups, attributes, held.fetched_at)

    async def refresh(self, *, now: int) -> None:
        """Reads the directory again. A failure is kept in `fault`; what was read before counts until it is stale."""
        try:
            self._held = await self._source.load(now=now)
        except RingfenceError as error:
            self.fault = error
        else:
            self.fault = None
