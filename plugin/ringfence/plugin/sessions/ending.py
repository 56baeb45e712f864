"""What a change of trust, policy, risk or pins does to sessions: which ones it touches, and what becomes of them. Pure.

Every request checks its session against the host, the bundle and the pins anyway. This is for those that make no
request: their streams end, their end is on record, and they are listed no more. `Endings` works in slices of a few
milliseconds, which its owner runs between requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from ringfence.plugin.errors import GateError
from ringfence.plugin.sessions.errors import ENDINGS_CAPACITY
from ringfence.plugin.sessions.port import Ended, Selection, Session, SessionStore

SLICE_NS: Final = 3_000_000
PENDING: Final = 1024
_PLACES: Final = 256


@dataclass(frozen=True, slots=True)
class TrustChanged:
    """The host's status is now `status`; empty: it is not attested. Sessions opened at another one end."""

    host: str
    status: str


@dataclass(frozen=True, slots=True)
class BundleReplaced:
    """The bundle `bundle_digest` decides no more. Its sessions were opened under rules that are not in force."""

    bundle_digest: str


@dataclass(frozen=True, slots=True)
class PrincipalLocked:
    """The principal is locked out for its risk."""

    principal: str


@dataclass(frozen=True, slots=True)
class RiskRaised:
    """The principal's risk allows its sessions until `expires_at` only, in seconds since the epoch."""

    principal: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class PinRemoved:
    """The principal's key is not pinned any more."""

    principal: str


@dataclass(frozen=True, slots=True)
class FactorWithdrawn:
    """A factor of the principal does not count any more, such as a credential that was deleted."""

    principal: str
    factor: str


@dataclass(frozen=True, slots=True)
class Revoked:
    """An operator revoked the sessions of a selection that were opened at `opened_until` or before."""

    selection: Selection
    opened_until: int


Change = TrustChanged | BundleReplaced | PrincipalLocked | RiskRaised | PinRemoved | FactorWithdrawn | Revoked


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change does to the sessions of a selection.

    Where `why` is set they end, except those opened at the status `spared_status`, or after `opened_until`. Otherwise
    they lose `factor`, and end when no factor is left; and they expire at `expires_at`. Both only where set.
    """

    selection: Selection
    why: Ended | None = None
    spared_status: str = ""
    opened_until: int | None = None
    factor: str = ""
    expires_at: int | None = None

    def on(self, session: Session) -> Session | Ended:
        """What is left of the session, or why it ends. The session itself where it is not touched."""
        if self.why is not None:
            spared = bool(self.spared_status) and session.status == self.spared_status
            later = self.opened_until is not None and session.opened_at > self.opened_until
            return session if spared or later else self.why
        factors = session.factors
        if self.factor:
            factors = tuple(held for held in factors if held[0] != self.factor)
            if session.factors and not factors:
                return Ended.PRINCIPAL
        expires_at = session.expires_at if self.expires_at is None else min(session.expires_at, self.expires_at)
        if factors == session.factors and expires_at == session.expires_at:
            return session
        return msgspec.structs.replace(session, factors=factors, expires_at=expires_at)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a session: `after` is what is left of it, or why it ended."""

    before: Session
    after: Session | Ended


class SlicedStore(SessionStore, Protocol):
    """A store that can be scanned in slices."""

    def scan(self, selections: Sequence[Selection], start: int, places: int) -> tuple[list[Session], int]: ...


def affected(change: Change) -> Effect:
    """Which sessions a change touches, and what becomes of them."""
    match change:
        case TrustChanged(host, status):
            return Effect(Selection(host=host), Ended.TRUST, spared_status=status)
        case BundleReplaced(bundle_digest):
            return Effect(Selection(bundle_digest=bundle_digest), Ended.POLICY)
        case PrincipalLocked(principal):
            return Effect(Selection(principal=principal), Ended.RISK)
        case RiskRaised(principal, expires_at):
            return Effect(Selection(principal=principal), expires_at=expires_at)
        case PinRemoved(principal):
            return Effect(Selection(principal=principal), Ended.PRINCIPAL)
        case FactorWithdrawn(principal, factor):
            return Effect(Selection(principal=principal), factor=factor)
        case Revoked(selection, opened_until):
            return Effect(selection, Ended.REVOKED, opened_until=opened_until)


class Endings:
    """Carries changes out over a store, all that are known together in one pass, a slice at a time.

    A change that comes during a pass has its own pass afterwards, so each one meets every session that was there when
    it was posted. At most `PENDING` wait; where one more cannot, whoever posts it must deny.
    """

    def __init__(self, store: SlicedStore, *, ticks_ns: Callable[[], int]) -> None:
        self._store = store
        self._ticks_ns = ticks_ns
        self._waiting: dict[Effect, None] = {}
        self._running: tuple[Effect, ...] = ()
        self._start = 0

    @property
    def pending(self) -> bool:
        """Whether there is work."""
        return bool(self._running or self._waiting)

    def post(self, change: Change) -> None:
        """Has a change carried out by the next steps. Raises `session.endings_capacity`."""
        effect = affected(change)
        if effect.selection == Selection():
            raise ValueError("a change touches a selection of sessions, never all")
        if len(self._waiting) >= PENDING and effect not in self._waiting:
            raise GateError(
                ENDINGS_CAPACITY,
                f"{PENDING} changes of trust, risk or policy are still being carried out.",
                hint="Try again in a second.",
            )
        self._waiting[effect] = None

    def step(self) -> list[Outcome]:
        """Works for about `SLICE_NS`; what became of the sessions that it touched."""
        began = self._ticks_ns()
        outcomes: list[Outcome] = []
        while self.pending:
            if not self._running:
                self._running, self._start = tuple(self._waiting), 0
                self._waiting.clear()
            selections = [effect.selection for effect in self._running]
            found, self._start = self._store.scan(selections, self._start, _PLACES)
            for session in found:
                self._settle(session, outcomes)
            if self._start < 0:
                self._running = ()
            if self._ticks_ns() - began >= SLICE_NS:
                break
        return outcomes

    def _settle(self, session: Session, outcomes: list[Outcome]) -> None:
        after: Session | Ended = session
        for effect in self._running:
            if isinstance(after, Session) and effect.selection.matches(after):
                after = effect.on(after)
        if isinstance(after, Ended):
            self._store.end(session.name, after)
        elif after != session:
            self._store.change(after)
        else:
            return
        outcomes.append(Outcome(session, after))
