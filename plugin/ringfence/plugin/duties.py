"""What a running gateway does beside deciding: each duty is a task that runs until it is cancelled.

None of them stands on the path of a request, and each works in slices of a few milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final

from ringfence import audit
from ringfence.audit.kinds import Record, Shadow, Threat
from ringfence.errors import RingfenceError
from ringfence.plugin.composition import Gatehouse
from ringfence.plugin.host import Attested
from ringfence.plugin.past import policies_record
from ringfence.plugin.pipeline.reconsider import reconsider
from ringfence.plugin.sessions.ending import PinRemoved, PrincipalLocked, TrustChanged
from ringfence.plugin.sessions.port import Ended, Selection, Session
from ringfence.plugin.sessions.revocations import changed_record, closed_record
from ringfence.plugin.strangers import WINDOW_S
from ringfence.plugin.threats.events import Reaction, ThreatEvent
from ringfence.plugin.threats.watch import SessionEnded, ThreatSeen
from ringfence.policies.holder import ShadowDecision
from ringfence.trust import Role

WATCH_S: Final = 0.25
"""How often the world is compared with what sessions are bound to: they end within a second of a change."""

_SLICE: Final = 200


class Duties:
    """The duties of one gateway. `clock` gives seconds since the epoch."""

    def __init__(self, house: Gatehouse, *, clock: Callable[[], int], tell: Callable[[str], None]) -> None:
        self._house = house
        self._clock = clock
        self._tell = tell

    def all(self) -> list[Coroutine[Any, Any, None]]:
        """Every duty, to be run as a task of its own."""
        house = self._house
        return [
            house.link.keep_fresh(),
            house.tending.tend(),
            house.identification.keep_fresh(self._clock, self._tell),
            self.report_suppressed(),
            self.take_in_policies(),
            self.record_news(),
            self.record_threats(),
            self.watch_the_world(),
            self.end_sessions(),
        ]

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
                await self._record(policies_record(holder, self._house.policies_name))

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
                event = noticed.waiting.popleft()
                self._house.broadcast.publish(ThreatSeen.of(event))
                if event.reaction is Reaction.LOCK_OUT and event.against == "principal":
                    self._house.endings.post(PrincipalLocked(event.subject))
                await self._record(_threat(event))

    async def watch_the_world(self) -> None:
        """Compares trust in the host, the pins and the policies with what sessions were opened with."""
        status, pinned = "", self._pinned()
        bundle = self._house.means.decider.bundle_digest
        while True:
            await asyncio.sleep(WATCH_S)
            host = self._house.link.latest
            now_status = host.trust.status.value if isinstance(host, Attested) else ""
            if status and host is not None and now_status != status:
                self._house.endings.post(TrustChanged(host.agent, now_status))
            status = now_status or status
            still = self._pinned()
            for principal in pinned - still:
                self._house.endings.post(PinRemoved(principal))
            pinned = still
            if self._house.means.decider.bundle_digest != bundle and isinstance(host, Attested):
                before, bundle = bundle, self._house.means.decider.bundle_digest
                self._tell(f"the policies are now those of {bundle[:16]}")
                await self._reconsider(before, host)

    async def end_sessions(self) -> None:
        """Carries endings out, collects sessions whose time is over, and records both."""
        house = self._house
        while True:
            await asyncio.sleep(0.02 if house.endings.pending else WATCH_S)
            for outcome in house.endings.step():
                if isinstance(outcome.after, Ended):
                    await self.ended(outcome.before, outcome.after)
                else:
                    await self._record(changed_record(outcome.after))
            for session, why in house.sessions.sweep(now=self._clock()):
                await self.ended(session, why)

    async def ended(self, session: Session, why: Ended) -> None:
        """Puts a session's end on record and into the feed."""
        self.tell_ended(session, why)
        await self._record(closed_record(session, why))

    def tell_ended(self, session: Session, why: Ended = Ended.REVOKED) -> None:
        """Puts a session's end into the feed."""
        self._house.broadcast.publish(
            SessionEnded(at=self._clock(), session=session.name, principal=session.principal, code=why.value)
        )

    async def _reconsider(self, bundle: str, host: Attested) -> None:
        touched = self._house.sessions.select(Selection(bundle_digest=bundle))
        for number, session in enumerate(touched, 1):
            if not reconsider(self._house.means, session, host, now=self._clock()):
                await self.ended(session, Ended.POLICY)
            if number % _SLICE == 0:
                await asyncio.sleep(0)

    def _pinned(self) -> frozenset[str]:
        try:
            trust = self._house.means.trust()
        except RingfenceError:
            return frozenset()
        return frozenset(pin.key_id for pin in trust.by_role(Role.CLIENT, self._clock()))

    async def _record(self, record: Record) -> None:
        # Decisions have their own record; without this one the log is full or broken, and they will say so.
        with contextlib.suppress(audit.AuditError):
            await self._house.settlement.record(record)


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
