"""What a running gateway does beside deciding: each duty is a task that runs until it is cancelled.

None of them stands on the path of a request, and each works in slices of a few milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from ringfence import audit
from ringfence.audit.errors import BAD_RECORD
from ringfence.audit.kinds import Record, Shadow, Threat
from ringfence.errors import RingfenceError
from ringfence.plugin.composition import Gatehouse
from ringfence.plugin.errors import GateError
from ringfence.plugin.host import Attested, Unreachable
from ringfence.plugin.link import AWAY
from ringfence.plugin.past import policies_record
from ringfence.plugin.pipeline.reconsider import reconsider
from ringfence.plugin.sessions.ending import Change, PinRemoved, PrincipalLocked, TrustChanged
from ringfence.plugin.sessions.port import Ended, Selection, Session
from ringfence.plugin.sessions.revocations import changed_record, closed_record
from ringfence.plugin.sessions.store import LAPSED_KEPT
from ringfence.plugin.strangers import WINDOW_S
from ringfence.plugin.threats.events import Reaction, ThreatEvent
from ringfence.plugin.threats.watch import SessionEnded, ThreatSeen
from ringfence.policies.holder import ShadowDecision
from ringfence.trust import Role

WATCH_S: Final = 0.25
"""How often the world is compared with what sessions are bound to: they end within a second of a change."""

RETRY_S: Final = 1.0
"""How long a duty that failed is left alone before it begins anew."""

_SLICE: Final = 32
_TOGETHER: Final = 512

Duty = Callable[[], Coroutine[Any, Any, None]]


class Duties:
    """The duties of one gateway. `clock` gives seconds since the epoch."""

    def __init__(self, house: Gatehouse, *, clock: Callable[[], int], tell: Callable[[str], None]) -> None:
        self._house = house
        self._clock = clock
        self._tell = tell
        self._owed: deque[Record] = deque(maxlen=LAPSED_KEPT)
        self._status = ""
        self._pins = self._pinned(Role.CLIENT)
        self._bundle = house.means.decider.bundle_digest

    def all(self) -> list[Coroutine[Any, Any, None]]:
        """Every duty, to be run as a task of its own."""
        house = self._house
        duties: dict[str, Duty] = {
            "keeping the host's attestation fresh": house.link.keep_fresh,
            "keeping what was learned": house.tending.tend,
            "reading the directory": lambda: house.identification.keep_fresh(self._clock, self._tell),
            "counting refusals": self.report_suppressed,
            "taking in policies": self.take_in_policies,
            "recording what policies tell": self.record_news,
            "recording threats": self.record_threats,
            "watching hosts and pins": self.watch_the_world,
            "reconsidering sessions": self.reconsider_sessions,
            "ending sessions": self.end_sessions,
        }
        return [kept_up(name, duty, self._tell) for name, duty in duties.items()]

    async def report_suppressed(self) -> None:
        """Records once a minute how many refusals of strangers had no record of their own."""
        while True:
            await asyncio.sleep(WINDOW_S)
            # A log that fails keeps the count for the next time; meanwhile every decision is denied.
            with contextlib.suppress(audit.AuditError):
                await self._house.settlement.report_suppressed()

    async def take_in_policies(self) -> None:
        """Takes a changed bundle in; whatever is wrong with it leaves the one before in force, and is told once."""
        holder, every_s, said = self._house.policies, self._house.reload_s, ""
        while every_s:
            await asyncio.sleep(every_s)
            try:
                prepared = await asyncio.to_thread(holder.prepare)
            except RingfenceError as error:
                if str(error) != said:
                    said = str(error)
                    self._tell(f"the changed policies are not taken in: {said}")
                continue
            said = ""
            if prepared is not None:
                holder.install(prepared)
                await self._owe(policies_record(holder, self._house.policies_name))

    async def record_news(self) -> None:
        """Has sampled decisions checked by the oracle, and records what the policies have to tell."""
        news = self._house.news
        while True:
            await asyncio.sleep(WATCH_S)
            await asyncio.to_thread(self._house.policies.check_sampled)
            while news.disagreements:
                found = news.disagreements.popleft()
                self._tell(
                    "the compiled policies disagree with cedarpy, which decides from now on; replay the decisions by "
                    f"the bundle {found.bundle_digest[:16]} since {found.since_s} (`ringfence policy replay`)"
                )
            while news.shadows:
                await self._record(_shadow(news.shadows.popleft()))

    async def record_threats(self) -> None:
        """Puts threats on record and into the feed; a principal that is locked out loses its sessions."""
        noticed = self._house.noticed
        while True:
            await asyncio.sleep(WATCH_S)
            self._house.detector.tick(self._clock())
            while noticed.waiting:
                event = noticed.waiting[0]
                locked = event.reaction is Reaction.LOCK_OUT and event.against == "principal"
                if locked and not self._post(PrincipalLocked(event.subject)):
                    break
                noticed.waiting.popleft()
                self._house.broadcast.publish(ThreatSeen.of(event))
                await self._record(_threat(event))

    async def watch_the_world(self) -> None:
        """Compares trust in the host and the pins with what sessions were opened with."""
        while True:
            await asyncio.sleep(WATCH_S)
            host = self._house.link.latest
            if isinstance(host, Attested) and host.agent not in self._pinned(Role.AGENT):
                # Its result would count until it is renewed: for as long as a stolen agent's key could be of use.
                host = await self._house.link.renew(host)
            if isinstance(host, Unreachable) and host.fault.code.name in AWAY:
                # An agent that restarts says nothing about trust. Until it is attested anew, every request is denied.
                host = None
            status = host.trust.status.value if isinstance(host, Attested) else ""
            changed = bool(self._status) and host is not None and status != self._status
            if not (changed and host is not None) or self._post(TrustChanged(host.agent, status)):
                self._status = status or self._status
            pinned = self._pinned(Role.CLIENT)
            # One that cannot be posted now counts as pinned still, so that it is posted the next time.
            waiting = {one for one in self._pins - pinned if not self._post(PinRemoved(one))}
            self._pins = pinned | waiting

    async def reconsider_sessions(self) -> None:
        """Asks changed policies about every session that other ones have let in."""
        while True:
            await asyncio.sleep(WATCH_S)
            bundle = self._house.means.decider.bundle_digest
            if bundle != self._bundle and await self._reconsider(bundle):
                self._bundle = bundle
                self._tell(f"the policies are now those of {bundle[:16]}")

    async def end_sessions(self) -> None:
        """Carries endings out, collects sessions whose time is over, and records both."""
        house = self._house
        while True:
            await asyncio.sleep(0.02 if house.endings.pending else WATCH_S)
            ended: list[tuple[Session, Ended]] = []
            narrowed: list[Session] = []
            for outcome in house.endings.step():
                if isinstance(outcome.after, Ended):
                    ended.append((outcome.before, outcome.after))
                else:
                    narrowed.append(outcome.after)
            ended += house.sessions.sweep(now=self._clock())
            # Together, since each waits for the disk: a host's thousand sessions end within a second of its trust.
            for start in range(0, len(ended), _TOGETHER):
                await asyncio.gather(*(self.ended(*one) for one in ended[start : start + _TOGETHER]))
            owed = [self._owed.popleft() for _ in range(min(len(self._owed), _TOGETHER))]
            await asyncio.gather(*(self._owe(record) for record in owed))
            for start in range(0, len(narrowed), _TOGETHER):
                await asyncio.gather(*(self._owe(changed_record(one)) for one in narrowed[start : start + _TOGETHER]))

    async def ended(self, session: Session, why: Ended) -> None:
        """Puts a session's end on record and into the feed."""
        self.tell_ended(session, why)
        await self._owe(closed_record(session, why))

    def tell_ended(self, session: Session, why: Ended = Ended.REVOKED) -> None:
        """Puts a session's end into the feed."""
        self._house.broadcast.publish(
            SessionEnded(at=self._clock(), session=session.name, principal=session.principal, code=why.value)
        )

    async def _reconsider(self, bundle: str) -> bool:
        """Whether every session was asked about; not where the host cannot be seen, or the policies changed again."""
        house, start = self._house, 0
        while start >= 0:
            host = house.link.latest
            if not isinstance(host, Attested) or house.means.decider.bundle_digest != bundle:
                return False
            # A slice and its decisions belong together: a session that changed since it was read would change back.
            found, start = house.sessions.scan((Selection(),), start, _SLICE)
            for session in found:
                if session.bundle_digest != bundle:
                    reconsider(house.means, session, host, now=self._clock())
            await asyncio.sleep(0)
        return True

    def _post(self, change: Change) -> bool:
        """Whether a change will be carried out; where too many wait, it has to be posted again."""
        try:
            self._house.endings.post(change)
        except GateError:
            return False
        return True

    def _pinned(self, role: Role) -> frozenset[str]:
        try:
            trust = self._house.means.trust()
        except RingfenceError:
            return frozenset()
        return frozenset(pin.key_id for pin in trust.by_role(role, self._clock()))

    async def _owe(self, record: Record) -> None:
        """Records now or later: without it, a snapshot would revive a session as it was, or an older policy pass."""
        try:
            await self._house.settlement.record(record)
        except audit.AuditError as error:
            # What can never be read back has a record in its place already.
            if error.code is not BAD_RECORD:
                self._owed.append(record)

    async def _record(self, record: Record) -> None:
        # Decisions have their own record; without this one the log is full or broken, and they will say so.
        with contextlib.suppress(audit.AuditError):
            await self._house.settlement.record(record)


async def kept_up(name: str, duty: Duty, tell: Callable[[str], None], *, pause_s: float = RETRY_S) -> None:
    """Runs a duty, and begins it anew, told once a fault, where it fails.

    One that ended unnoticed would leave sessions open that are over, until somebody restarts the gateway.
    """
    said = ""
    while True:
        try:
            await duty()
        except Exception as fault:  # noqa: BLE001 - whatever it was, the duty has to be done
            why = f"{type(fault).__name__}: {fault}" if isinstance(fault, RingfenceError) else type(fault).__name__
            if why != said:
                tell(f"{name} failed and begins anew: {why}")
            said = why
            await asyncio.sleep(pause_s)
        else:
            return


def _shadow(decision: ShadowDecision) -> Shadow:
    query = decision.query
    return Shadow(
        principal=query.principal,
        action=query.action.value,
        resource=query.resource,
        enforced="allow" if decision.verdict.allowed else "deny",
        verdict="allow" if decision.shadow.allowed else "deny",
        policies=decision.shadow.policies,
        bundle_digest=decision.shadow_digest,
    )


def _threat(event: ThreatEvent) -> Threat:
    return Threat(
        event=event.pattern.value,
        against=event.against,
        subject=event.subject,
        count=event.count,
        reaction=event.reaction.value,
        until=max(0, event.until),
    )
