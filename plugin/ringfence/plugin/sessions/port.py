"""The port of the session store, and a session as everybody sees it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import msgspec


class Session(msgspec.Struct, frozen=True, gc=False):
    """An open session. `key` (32 bytes) authenticates its requests.

    It is bound to its `principal`, to the host `agent` in the trust status `status` by the attestation result with
    `attestation_digest`, to the policy bundle `bundle_digest`, and, where `thumbprint` is not empty, to the channel
    with that client certificate. `factors` are the identity factors that were verified, each with when it ends (0: with
    the session). `tenant` and `attributes` ("name=value") are the principal's, as known at `directory_at`
    (0: not from a directory).
    Times are in seconds since the epoch; it ends at `expires_at` at the latest, and after `idle_s` without a request.
    A struct, because a look-up builds one in a fortieth of the time of a dataclass; its repr has no key.
    """

    name: str
    principal: str
    groups: tuple[str, ...]
    host: str
    status: str
    attestation_digest: str
    bundle_digest: str
    opened_at: int
    expires_at: int
    idle_s: int
    key: bytes
    factors: tuple[tuple[str, int], ...] = ()
    thumbprint: str = ""
    tenant: str = ""
    attributes: tuple[str, ...] = ()
    directory_at: int = 0
    source: str = ""

    def __repr__(self) -> str:
        return f"Session(name={self.name!r}, principal={self.principal!r}, host={self.host!r})"


class Ended(enum.Enum):
    """Why a session ended, as its audit record has it."""

    CLOSED = "session.closed"
    EXPIRED = "session.expired"
    IDLE = "session.idle"
    REVOKED = "session.revoked"
    TRUST = "session.trust_changed"
    RISK = "session.risk"
    POLICY = "session.policy_changed"
    PRINCIPAL = "session.principal_unpinned"
    REPLACED = "session.replaced"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which sessions: those for which every field that is not empty agrees."""

    session: str = ""
    principal: str = ""
    host: str = ""
    bundle_digest: str = ""

    def matches(self, session: Session) -> bool:
        """Whether the session is one of them."""
        return (
            self.session in ("", session.name)
            and self.principal in ("", session.principal)
            and self.host in ("", session.host)
            and self.bundle_digest in ("", session.bundle_digest)
        )


class SessionStore(Protocol):
    """Live sessions by name. In memory and without waiting; a shared store would keep a copy of it."""

    def __len__(self) -> int: ...

    def add(self, session: Session, *, now: int) -> None:
        """Keeps a new session. Raises `session.capacity` when as many as allowed are live."""
        ...

    def find(self, name: str, *, now: int) -> Session:
        """The live session called `name`. Raises `session.unknown`, `session.expired`, `session.idle`."""
        ...

    def touch(self, name: str, *, now: int) -> None:
        """A request in the session was authenticated: it is not idle."""
        ...

    def change(self, session: Session) -> None:
        """Replaces what is known of the session with the same name; its key and its expiry may only shrink, never grow.

        Raises `session.unknown`.
        """
        ...

    def end(self, name: str, why: Ended) -> Session | None:
        """Ends a session at once; gives it back where it was live."""
        ...

    def retire(self, name: str, why: Ended) -> None:
        """Ends a session that a decision has found to be over, and leaves it to whoever records such ends.

        Without a record of it, a snapshot from before could bring the session back.
        """
        ...

    def select(self, selection: Selection) -> Iterator[Session]:
        """The live sessions of a selection."""
        ...
