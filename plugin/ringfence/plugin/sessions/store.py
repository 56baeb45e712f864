"""Live sessions, in memory: they die with the process, with their attestation result, or at their expiry."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.plugin.errors import SESSION_CAPACITY, SESSION_EXPIRED, SESSION_UNKNOWN, GateError
from ringfence.plugin.sessions.port import Ended, Selection, Session


class MemorySessions:
    """Sessions by name, at most `capacity` of them."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, session: Session, *, now: int) -> None:
        """Keeps `session`; raises `session.capacity` when as many as allowed are live."""
        if len(self._sessions) >= self._capacity:
            self._drop_expired(now)
        if len(self._sessions) >= self._capacity:
            raise GateError(
                SESSION_CAPACITY, f"{self._capacity} sessions are open.", hint="Wait until some expire, then try again."
            )
        self._sessions[session.name] = session

    def find(self, name: str, *, now: int) -> Session:
        """The live session called `name`; raises `session.unknown` or `session.expired`."""
        session = self._sessions.get(name)
        if session is None:
            raise GateError(SESSION_UNKNOWN, "There is no such session here.", field="keyid", hint="Open a session.")
        if session.expires_at <= now:
            self.end(name, Ended.EXPIRED)
            raise GateError(SESSION_EXPIRED, "The session has expired.", field="keyid", hint="Open a new session.")
        return session

    def touch(self, name: str, *, now: int) -> None:
        """Nothing: this store knows no idle sessions."""

    def change(self, session: Session) -> None:
        """Replaces the session with the same name."""
        self._sessions[session.name] = session

    def select(self, selection: Selection) -> Iterator[Session]:
        """Every session of the selection."""
        del selection
        yield from list(self._sessions.values())

    def end(self, name: str, why: Ended) -> Session | None:
        """Forgets the session."""
        del why
        return self._sessions.pop(name, None)

    def _drop_expired(self, now: int) -> None:
        for name in [session.name for session in self._sessions.values() if session.expires_at <= now]:
            self.end(name, Ended.EXPIRED)
