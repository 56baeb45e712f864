"""The detector: sees every decision, tells of threats, and knows how everybody stands.

Whom something counts against decides everything here. What is not authenticated counts against its source and never
against the principal that it claims. So does a replay, since a copy of a message says nothing about who sent it. And a
source's standing never locks out who is authenticated: callers share sources with strangers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from math import ceil
from typing import Final

from ringfence.plugin.errors import LimitedError
from ringfence.plugin.risk.bounded import SHARDS, Bounded
from ringfence.plugin.risk.clock import SteadyClock
from ringfence.plugin.risk.regions import Network, Regions
from ringfence.plugin.threats.errors import LOCKED_OUT, RATE_EXCEEDED
from ringfence.plugin.threats.events import Against, Pattern, Reaction, ThreatEvent
from ringfence.plugin.threats.port import Happened, Sighting, Standing
from ringfence.plugin.threats.rates import RateLimit
from ringfence.plugin.threats.settings import Rule, ThreatSettings
from ringfence.plugin.threats.tracks import Track, Window

CLEAR: Final = Standing()
_SHARD: Final = SHARDS - 1
_SHARED: Final = "shared"
_OWN: Final = "own"
_LOOPBACK: Final = ("127.0.0.0/8", "::1/128")
_EVERYWHERE: Final = ("0.0.0.0/0", "::/0")


class _Used:
    """A session: the region that it was used from last, and when; how often it was replayed."""

    __slots__ = ("at", "region", "replays", "used")

    def __init__(self, region: str, steady: int) -> None:
        self.region = region
        self.at = steady
        self.used = False
        self.replays: Window | None = None


class Detector:
    """Implements `port.ThreatDetector`. `tell` hears each threat once, as it is seen; it must not wait.

    Raises `ValueError` for a network of `settings.shared_sources` that is none.
    """

    def __init__(self, settings: ThreatSettings, tell: Callable[[ThreatEvent], None]) -> None:
        self.settings = settings
        self.clock = SteadyClock()
        self._tell = tell
        self._places = Regions(
            {_OWN: _networks(_EVERYWHERE), _SHARED: _networks((*_LOOPBACK, *settings.shared_sources))}
        )
        self._principals: Bounded[Track] = Bounded(settings.subjects, self._gravity)
        self._sources: Bounded[Track] = Bounded(settings.subjects, self._gravity)
        self._sessions: Bounded[_Used] = Bounded(settings.sessions, lambda session: session.at)
        self._principal_tracks = self._principals.shards
        self._source_tracks = self._sources.shards
        self._used = self._sessions.shards
        self._principal_rate = RateLimit(settings.principal_per_s, settings.principal_burst, settings.subjects)
        self._source_rate = RateLimit(settings.source_per_s, settings.source_burst, settings.subjects)

    def standing(self, *, source: str, principal: str, now: int) -> Standing:
        """See `port.ThreatDetector`.

        With a principal, its source only adds risk, at most `source_points`. Without one, a source that many share is
        neither locked out nor limited.
        """
        clock = self.clock
        steady = clock.steady if now == clock.wall else clock.read(now)
        if principal:
            retry = self._principal_rate.take(principal, steady)
            track = self._principal_tracks[hash(principal) & _SHARD].get(principal)
        else:
            retry = 0 if self._many(source) else self._source_rate.take(source, steady)
            track = None
        beside = self._source_tracks[hash(source) & _SHARD].get(source)
        if not retry and (track is None or track.calm) and (beside is None or beside.calm):
            return CLEAR
        return self._stands(track, beside, retry, steady, now, authenticated=bool(principal))

    def see(self, sighting: Sighting) -> None:
        """See `port.ThreatDetector`."""
        clock = self.clock
        steady = clock.steady if sighting.now == clock.wall else clock.read(sighting.now)
        what = sighting.what
        if what is Happened.ALLOWED:
            session = self._used[hash(sighting.session) & _SHARD].get(sighting.session)
            if session is not None and session.used and session.region == sighting.region:
                session.at = steady
                return
            self._allowed(sighting, session, steady)
        elif what is Happened.REFUSED:
            if sighting.principal:
                self._count(Pattern.REFUSALS, "principal", sighting.principal, self.settings.refusals, sighting, steady)
            else:
                self._count(Pattern.REFUSALS, "source", sighting.source, self.settings.refusals, sighting, steady)
        elif what is Happened.BAD_CREDENTIAL:
            self._count(Pattern.REFUSALS, "source", sighting.source, self.settings.refusals, sighting, steady)
            self._claimed(sighting, steady)
        elif what is Happened.REPLAYED:
            self._count(Pattern.REPLAYS, "source", sighting.source, self.settings.replays, sighting, steady)
            self._replayed(sighting, steady)
        elif sighting.principal:
            if what is Happened.STEPPED_UP:
                self._count(Pattern.STEP_UPS, "principal", sighting.principal, self.settings.step_ups, sighting, steady)
            else:
                self._opened(sighting, steady)

    def tick(self, now: int) -> None:
        """Reads the clock; called every few seconds, so that time without traffic is time that passed."""
        self.clock.read(now)

    def _allowed(self, sighting: Sighting, session: _Used | None, steady: int) -> None:
        track = self._principals.get(sighting.principal)
        if session is None:
            if sighting.session:
                session = _Used(sighting.region, steady)
                session.used = True
                self._sessions.add(sighting.session, session)
            return
        if not session.used:
            session.used = True
            opened = track.windows.get(Pattern.OPENINGS) if track is not None else None
            if opened is not None:
                opened.add(steady, -1.0)
        rule = self.settings.region_jump
        if session.region != sighting.region:
            jumped = steady - session.at < rule.within_s
            session.region = sighting.region
            if jumped and sighting.principal:
                self._count(Pattern.REGION_JUMP, "principal", sighting.principal, rule, sighting, steady)
        session.at = steady

    def _opened(self, sighting: Sighting, steady: int) -> None:
        if sighting.session and self._sessions.get(sighting.session) is None:
            self._sessions.add(sighting.session, _Used(sighting.region, steady))
        track = self._principals.get(sighting.principal)
        if track is not None:
            # Who opens a session has shown what it was asked for.
            track.windows.pop(Pattern.STEP_UPS, None)
        self._count(Pattern.OPENINGS, "principal", sighting.principal, self.settings.openings, sighting, steady)

    def _claimed(self, sighting: Sighting, steady: int) -> None:
        rule = self.settings.credentials
        track = self._track("source", sighting.source, steady)
        if not sighting.claimed or steady < track.locked_until:
            return
        window = track.window(Pattern.CREDENTIALS, rule.within_s, steady)
        count = window.name(steady, hash(sighting.claimed))
        if count >= rule.count:
            window.clear()
            self._react(Pattern.CREDENTIALS, "source", sighting.source, rule, count, sighting.now, steady)

    def _replayed(self, sighting: Sighting, steady: int) -> None:
        session = self._sessions.get(sighting.session)
        if session is None or not sighting.principal:
            return
        rule = self.settings.session_replays
        if session.replays is None:
            session.replays = Window(rule.within_s, steady)
        count = session.replays.add(steady)
        if count >= rule.count:
            session.replays.clear()
            told = ThreatEvent(
                Pattern.SESSION_REPLAYS, "principal", sighting.principal, int(count), Reaction.TELL, 0, sighting.now
            )
            self._tell(told)

    def _count(
        self, pattern: Pattern, against: Against, subject: str, rule: Rule, sighting: Sighting, steady: int
    ) -> None:
        track = self._track(against, subject, steady)
        if steady < track.locked_until:
            # Who is locked out and goes on trying is refused for that alone, and would never get out.
            return
        window = track.window(pattern, rule.within_s, steady)
        count = window.add(steady)
        if count >= rule.count:
            window.clear()
            self._react(pattern, against, subject, rule, int(count), sighting.now, steady)

    def _react(
        self, pattern: Pattern, against: Against, subject: str, rule: Rule, count: int, now: int, steady: int
    ) -> None:
        settings = self.settings
        track = self._track(against, subject, steady)
        track.fade(steady, settings)
        reaction = Reaction(rule.reaction)
        if against == "source" and reaction is not Reaction.TELL and self._many(subject):
            reaction = Reaction.RAISE_RISK
        until = 0
        if reaction is not Reaction.TELL:
            track.raise_risk(settings)
        if reaction is Reaction.LOCK_OUT:
            until = now + track.lock(steady, settings)
        elif reaction is Reaction.STEP_UP:
            track.step_up_until = steady + settings.step_up_s
            until = now + settings.step_up_s
        track.fade(steady, settings)
        self._tell(ThreatEvent(pattern, against, subject, count, reaction, until, now))

    def _stands(
        self, track: Track | None, beside: Track | None, retry: int, steady: int, now: int, *, authenticated: bool
    ) -> Standing:
        settings = self.settings
        risk, step_up, locked = 0, "", 0
        if beside is not None:
            beside.fade(steady, settings)
            risk = min(settings.source_points, ceil(beside.risk)) if authenticated else ceil(beside.risk)
            if not authenticated and steady < beside.locked_until:
                locked = now + beside.locked_until - steady
        if track is not None:
            track.fade(steady, settings)
            risk = min(100, risk + ceil(track.risk))
            if steady < track.locked_until:
                locked = now + track.locked_until - steady
            if steady < track.step_up_until:
                step_up = settings.factor
        return Standing(risk, step_up, locked, retry)

    def _track(self, against: Against, subject: str, steady: int) -> Track:
        table = self._principals if against == "principal" else self._sources
        track = table.get(subject)
        if track is None:
            track = Track(steady)
            table.add(subject, track)
        return track

    def _many(self, source: str) -> bool:
        """Whether many callers stand behind a source: a proxy, the loopback, or what is no address at all."""
        return self._places.region(source) != _OWN

    def _gravity(self, track: Track) -> float:
        return track.gravity(self.clock.steady)


def _networks(texts: Sequence[str]) -> list[Network]:
    return [ipaddress.ip_network(text) for text in texts]


def admit(standing: Standing, *, now: int) -> Standing:
    """`standing`, unless it refuses: raises `LimitedError` threat.locked_out or threat.rate_exceeded."""
    if standing.locked_until > now:
        left = standing.locked_until - now
        raise LimitedError(
            LOCKED_OUT,
            f"Too much from here was refused lately; nothing more is taken for {left} s.",
            retry_after_s=left,
            hint="Wait, and mend what was refused; each further lock-out takes twice as long.",
        )
    if standing.retry_after_s > 0:
        raise LimitedError(
            RATE_EXCEEDED,
            "More requests came than the gateway takes.",
            retry_after_s=standing.retry_after_s,
            hint=f"Try again in {standing.retry_after_s} s, and more slowly.",
        )
    return standing
