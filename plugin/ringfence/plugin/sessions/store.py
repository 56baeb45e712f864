"""Live sessions, in memory: a million in a few hundred megabytes, and no call whose work grows with their number."""

from __future__ import annotations

import hmac
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from ringfence.plugin.errors import SESSION_CAPACITY, SESSION_EXPIRED, SESSION_UNKNOWN, GateError
from ringfence.plugin.sessions.errors import SESSION_IDLE
from ringfence.plugin.sessions.interning import NOBODY
from ringfence.plugin.sessions.names import NOWHERE, NameIndex, packed_name
from ringfence.plugin.sessions.port import Ended, Selection, Session
from ringfence.plugin.sessions.records import Records, Terms

SLICE: Final = 512
"""How many places one step of a scan looks at."""

LAPSED_KEPT: Final = 65_536
"""How many endings wait for who collects them; older ones are dropped."""

_HOT: Final = 1 << 15
_FREE: Final = 2**64 - 1
_LAPSED: Final = 0


class MemorySessions:
    """At most `capacity` sessions, packed; those used last are also kept unpacked, in 32,768 lines.

    A session that was once found expired or idle never lives again, whatever the clock does. Not thread-safe.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._names = NameIndex(capacity)
        self._records = Records(capacity)
        # Columns that are read in slices: when each session ends unless it is used, and what scans look for.
        self._due = array("Q", [_FREE]) * capacity
        self._principals = array("I", [NOBODY]) * capacity
        self._terms = array("I", [NOBODY]) * capacity
        self._free = array("I")
        self._top = self._live = self._hand = 0
        self._hot: list[tuple[Session, int] | None] = [None] * min(_HOT, 1 << capacity.bit_length())
        self._last: tuple[Session, int] | None = None
        self._hot_mask = len(self._hot) - 1
        self._lapsed: deque[tuple[Session, Ended]] = deque(maxlen=LAPSED_KEPT)
        self.ended: dict[Ended, int] = dict.fromkeys(Ended, 0)

    def __len__(self) -> int:
        return self._live

    def add(self, session: Session, *, now: int, due: int | None = None) -> None:
        """Keeps a new session, in the place of one with its name. Raises `session.capacity`.

        `due` is when it ends unless it is used before, where that is not `idle_s` from now. A full store looks for
        sessions that have ended in some of its places only; `sweep` goes through them all.
        """
        name = packed_name(session.name)
        before = self._names.find(name)
        if before != NOWHERE:
            self._drop(before, name, self._records.take(before), Ended.REPLACED)
        if self._live >= self.capacity:
            self._lapsed.extend(self._swept(now, 32 * SLICE, 1))
        if self._live >= self.capacity:
            raise GateError(
                SESSION_CAPACITY, f"{self.capacity} sessions are open.", hint="Wait until some expire, then try again."
            )
        place = self._free[-1] if self._free else self._top
        self._principals[place], self._terms[place] = self._records.put(place, name, session)
        self._due[place] = min(session.expires_at, now + session.idle_s if due is None else due)
        self._names.add(name, place)
        self._live += 1
        if self._free:
            self._free.pop()
        else:
            self._top += 1

    def find(self, name: str, *, now: int) -> Session:
        """The live session called `name`. Raises `session.unknown`, `session.expired`, `session.idle`."""
        line = self._hot[hash(name) & self._hot_mask]
        if line is not None and line[0].name == name:
            session, place = line
        else:
            session, place = self._last = self._known(packed_name(name), name)
        if now < self._due[place]:
            return session
        self._due[place] = _LAPSED
        if session.expires_at <= now:
            raise GateError(SESSION_EXPIRED, "The session has expired.", field="keyid", hint="Open a new session.")
        raise GateError(
            SESSION_IDLE,
            f"The session was not used for {session.idle_s} s and has ended.",
            field="keyid",
            hint="Open a new session.",
        )

    def touch(self, name: str, *, now: int) -> None:
        """A request in the session was authenticated: it is not idle. Does not revive one that has ended.

        Raises `session.unknown`.
        """
        at = hash(name) & self._hot_mask
        line = self._hot[at]
        if line is None or line[0].name != name:
            # Only who was authenticated is kept unpacked: a stranger who names sessions displaces nobody.
            last = self._last
            line = last if last is not None and last[0].name == name else self._known(packed_name(name), name)
            self._hot[at] = line
        session, place = line
        if now < self._due[place]:
            self._due[place] = min(session.expires_at, now + session.idle_s)

    def change(self, session: Session) -> None:
        """Replaces what is known of the session with the same name. Raises `session.unknown`.

        Its expiry and idle time become the shorter of the two, so that a change which was prepared before another one
        gives nothing back. Raises `ValueError` where principal, key or time of opening differ: that is no change.
        """
        name = packed_name(session.name)
        before, place = self._known(name, session.name)
        if self._due[place] == _LAPSED:
            raise _unknown()
        same = before.principal == session.principal and before.opened_at == session.opened_at
        if not (same and hmac.compare_digest(before.key, session.key)):
            raise ValueError("a change keeps a session's principal, key and time of opening")
        after = msgspec.structs.replace(
            session,
            expires_at=min(before.expires_at, session.expires_at),
            idle_s=min(before.idle_s, session.idle_s),
        )
        due = min(self._due[place] - (before.idle_s - after.idle_s), after.expires_at)
        self._forget_hot(session.name)
        self._records.wipe(place)
        self._principals[place], self._terms[place] = self._records.put(place, name, after)
        self._due[place] = max(_LAPSED, due)

    def end(self, name: str, why: Ended = Ended.CLOSED) -> Session | None:
        """Ends a session at once and overwrites its key here; gives it back where it was live."""
        packed = packed_name(name)
        try:
            session, place = self._known(packed, name)
        except GateError:
            return None
        lapsed = self._due[place] == _LAPSED
        self._drop(place, packed, session, why)
        return None if lapsed else session

    def retire(self, name: str, why: Ended) -> None:
        """Ends a session, and gives it back with the next `sweep`, for whoever records its end."""
        session = self.end(name, why)
        if session is not None:
            self._lapsed.append((session, why))

    def select(self, selection: Selection) -> Iterator[Session]:
        """The live sessions of a selection. Between two of them there may be a scan of all; `scan` goes in slices."""
        start = 0
        while start >= 0:
            found, start = self.scan((selection,), start)
            yield from found

    def scan(self, selections: Sequence[Selection], start: int, places: int = SLICE) -> tuple[list[Session], int]:
        """The live sessions of any of the selections in `places` places from `start` on; where to go on, -1 at the end.

        A session keeps its place, so whatever happens between two slices, each one that is live throughout is found.
        One that is opened meanwhile may be missed; one that a selection names is found in the first slice.
        """
        end = min(start + places, self._top)
        found: list[int] = []
        if start == 0:
            named = (self._names.find(packed_name(one.session)) for one in selections if one.session)
            found += {place for place in named if place != NOWHERE}
        wide = [one for one in selections if not one.session]
        if wide:
            found += self._places(wide, start, end)
        sessions = (self._records.take(place) for place in found if self._due[place] != _LAPSED)
        chosen = [session for session in sessions if any(one.matches(session) for one in selections)]
        return chosen, end if wide and end < self._top else -1

    def sweep(self, *, now: int, places: int = SLICE) -> list[tuple[Session, Ended]]:
        """Ends the sessions that have expired or were idle too long among the next `places` places.

        Gives them back, with those that were retired or made room for others since the last call, for whoever records
        their end.
        """
        collected = list(self._lapsed)
        self._lapsed.clear()
        return collected + self._swept(now, places, places)

    def clear(self) -> None:
        """Ends all sessions, whatever their number: for a store that is not in use yet."""
        for session in list(self.select(Selection())):
            self.end(session.name)

    def dump(self, start: int, places: int = SLICE) -> tuple[list[tuple[Session, int]], int]:
        """Like `scan` for all live sessions, each with when it ends unless it is used."""
        end = min(start + places, self._top)
        due = self._due[start:end]
        kept = [(self._records.take(place), at) for place, at in enumerate(due, start) if at not in (_FREE, _LAPSED)]
        return kept, end if end < self._top else -1

    def _swept(self, now: int, places: int, most: int) -> list[tuple[Session, Ended]]:
        found: list[tuple[Session, Ended]] = []
        places = min(places, self._top)
        while places > 0 and len(found) < most:
            start = self._hand if self._hand < self._top else 0
            end = min(start + min(places, SLICE), self._top)
            self._hand, places = end, places - (end - start)
            for place, due in enumerate(self._due[start:end], start):
                if due > now:
                    continue
                if len(found) >= most:
                    self._hand = place
                    break
                session = self._records.take(place)
                why = Ended.EXPIRED if session.expires_at <= now else Ended.IDLE
                self._drop(place, packed_name(session.name), session, why)
                found.append((session, why))
        return found

    def _places(self, selections: Sequence[Selection], start: int, end: int) -> list[int]:
        number, value = self._records.principals.number, self._records.terms.value
        owners = {number(one.principal) for one in selections if one.principal} - {NOBODY}
        broad = [one for one in selections if not one.principal]
        if not broad:
            if not owners:
                return []
            return [place for place, owner in enumerate(self._principals[start:end], start) if owner in owners]
        terms = self._terms[start:end]
        present = set(terms) - {NOBODY}
        wanted = {number for number in present if any(_on(one, value(number)) for one in broad)}
        columns = enumerate(zip(terms, self._principals[start:end], strict=True), start)
        return [place for place, (on, owner) in columns if on in wanted or owner in owners]

    def _known(self, packed: bytes, name: str) -> tuple[Session, int]:
        place = self._names.find(packed)
        if place != NOWHERE:
            session = self._records.take(place)
            if session.name == name:
                return session, place
        raise _unknown()

    def _drop(self, place: int, packed: bytes, session: Session, why: Ended) -> None:
        self._forget_hot(session.name)
        self._names.remove(packed)
        self._records.wipe(place)
        self._due[place] = _FREE
        self._principals[place] = self._terms[place] = NOBODY
        self._free.append(place)
        self._live -= 1
        self.ended[why] += 1

    def _forget_hot(self, name: str) -> None:
        at = hash(name) & self._hot_mask
        line = self._hot[at]
        if line is not None and line[0].name == name:
            self._hot[at] = None
        self._last = None


def _on(selection: Selection, terms: Terms) -> bool:
    return selection.host in ("", terms[0]) and selection.bundle_digest in ("", terms[3])


def _unknown() -> GateError:
    return GateError(SESSION_UNKNOWN, "There is no such session here.", field="keyid", hint="Open a session.")
