"""Revocations, and what the audit log says of sessions: it is their journal, so there is one truth. Pure.

A revocation is a `session` record `closed` with the code `session.revoked`. One of a single session names it; a wide
one has an empty session, names what it is for in the field for that, and in `expires_at` until when the sessions that
it ends were opened. It is acknowledged once its record is durable. Whoever restores sessions shows every record to
`History` first, and nothing that the log says has ended comes back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from ringfence.audit.kinds import Operator, Record
from ringfence.audit.kinds import Session as SessionRecord
from ringfence.plugin.errors import GateError
from ringfence.plugin.sessions.errors import REVOCATION_CAPACITY, SESSION_REVOKED
from ringfence.plugin.sessions.port import Ended, Selection, Session

REVOCATIONS: Final = 10_000
BEGUN: Final = "session-snapshot-begun"
TAKEN: Final = "session-snapshot"

Of = Literal["session", "principal", "host", "bundle"]


@dataclass(frozen=True, slots=True)
class Revocation:
    """Sessions are over: the one that is called `value`, or all of a principal, a host or a bundle.

    Of the latter, those that were opened at `at` or before, in seconds since the epoch.
    """

    of: Of
    value: str
    at: int

    def __post_init__(self) -> None:
        if not self.value:
            raise ValueError("a revocation names whose sessions it ends")

    @property
    def selection(self) -> Selection:
        """The sessions that it names."""
        match self.of:
            case "session":
                return Selection(session=self.value)
            case "principal":
                return Selection(principal=self.value)
            case "host":
                return Selection(host=self.value)
            case "bundle":
                return Selection(bundle_digest=self.value)

    def covers(self, session: Session) -> bool:
        """Whether it ends this session."""
        return self.selection.matches(session) and (self.of == "session" or session.opened_at <= self.at)

    def record(self) -> SessionRecord:
        """What makes it durable."""
        return SessionRecord(
            event="closed",
            session=self.value if self.of == "session" else "",
            principal=self.value if self.of == "principal" else "",
            code=Ended.REVOKED.value,
            agent_key_id=self.value if self.of == "host" else "",
            bundle_digest=self.value if self.of == "bundle" else "",
            expires_at=self.at,
        )


def closed_record(session: Session, why: Ended) -> SessionRecord:
    """The record of a session's end."""
    return SessionRecord(
        event="closed",
        session=session.name,
        principal=session.principal,
        code=why.value,
        agent_key_id=session.host,
        attestation_digest=session.attestation_digest,
        bundle_digest=session.bundle_digest,
        expires_at=session.expires_at,
    )


def changed_record(session: Session) -> SessionRecord:
    """The record of a session that was narrowed, or that has a factor more."""
    return SessionRecord(
        event="changed",
        session=session.name,
        principal=session.principal,
        agent_key_id=session.host,
        attestation_digest=session.attestation_digest,
        bundle_digest=session.bundle_digest,
        expires_at=session.expires_at,
    )


class Revocations:
    """Wide revocations that a session could still fall under: one that was being opened when its principal was revoked.

    A session lives for `lifetime_s` at most, so a revocation is forgotten after that. `REVOCATIONS` are held at most.
    """

    def __init__(self, lifetime_s: int) -> None:
        self._lifetime_s = lifetime_s
        self._held: dict[tuple[Of, str], int] = {}

    def add(self, revocation: Revocation, *, now: int) -> None:
        """Holds a revocation. Raises `session.revocation_capacity`: then it must not be acknowledged."""
        key = (revocation.of, revocation.value)
        if len(self._held) >= REVOCATIONS and key not in self._held:
            self._held = {kept: at for kept, at in self._held.items() if at + self._lifetime_s > now}
        if len(self._held) >= REVOCATIONS and key not in self._held:
            raise GateError(
                REVOCATION_CAPACITY,
                f"{REVOCATIONS} revocations are held until their sessions would have expired.",
                hint="Revoke by host or by bundle, or restart the gateway without its snapshot.",
            )
        self._held[key] = max(revocation.at, self._held.get(key, 0))

    def check(self, session: Session) -> None:
        """Raises `session.revoked` for a session that was opened no later than a revocation which covers it."""
        owners: tuple[tuple[Of, str], ...] = (
            ("session", session.name),
            ("principal", session.principal),
            ("host", session.host),
            ("bundle", session.bundle_digest),
        )
        for of, value in owners:
            at = self._held.get((of, value), -1)
            if at >= session.opened_at or (at >= 0 and of == "session"):
                raise GateError(
                    SESSION_REVOKED,
                    f"The sessions of this {of} were revoked while this one was opened.",
                    field="keyid",
                    hint="Open a new session.",
                )


@dataclass(slots=True)
class _Since:
    """What ended or changed since a snapshot was begun."""

    names: set[str] = field(default_factory=set)
    wide: list[Revocation] = field(default_factory=list)
    everything: bool = False


class History:
    """What an audit log says of the newest snapshot and of the sessions since; show it all records, oldest first.

    A snapshot counts once the log has its digest. What the log says from the moment it was begun is held against it,
    so an older one, or one that somebody put back, revives nothing.
    """

    def __init__(self) -> None:
        self._begun: tuple[str, _Since] | None = None
        self._since = _Since()
        self.generation = 0
        self.digest = ""
        self.latest = 0

    def see(self, record: Record) -> None:
        """Takes one record into account."""
        if isinstance(record, Operator) and record.component == BEGUN:
            self._begun = record.version, _Since()
            self.latest = max(self.latest, _number(record.version))
        elif isinstance(record, Operator) and record.component == TAKEN:
            if self._begun is None or self._begun[0] != record.version:
                # Its beginning is not in the log any more, so nobody knows what has ended since.
                self.generation, self.digest, self._since = 0, "", _Since()
            else:
                self.generation, self.digest, self._since = _number(record.version), record.digest, self._begun[1]
            self._begun = None
        elif isinstance(record, SessionRecord) and record.event != "opened":
            for since in (self._since, *([self._begun[1]] if self._begun else [])):
                if record.session:
                    since.names.add(record.session)
                else:
                    # A record that says not whose sessions ended is held against all of them.
                    wide = _wide(record)
                    since.wide += wide
                    since.everything |= not wide

    def revives(self, session: Session) -> bool:
        """Whether a session of the newest snapshot may live on: nothing has ended or changed it since.

        One that was changed does not, because the log does not say how.
        """
        since = self._since
        ended = since.everything or session.name in since.names
        return not ended and not any(one.covers(session) for one in since.wide)


def begun_record(generation: int) -> Operator:
    """Says that a snapshot is being taken."""
    return Operator(event="configuration", component=BEGUN, version=str(generation))


def taken_record(generation: int, digest: str) -> Operator:
    """Says that a snapshot, whose file has this SHA-256, is complete."""
    return Operator(event="configuration", component=TAKEN, version=str(generation), digest=digest)


def _wide(record: SessionRecord) -> list[Revocation]:
    fields: tuple[tuple[Of, str], ...] = (
        ("principal", record.principal),
        ("host", record.agent_key_id),
        ("bundle", record.bundle_digest),
    )
    return [Revocation(of, value, record.expires_at) for of, value in fields if value]


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
