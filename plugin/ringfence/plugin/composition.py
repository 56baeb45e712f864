"""Wires one gateway's parts to each other: what decides, what it remembers, and what it tells. Nothing runs yet."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ringfence import audit
from ringfence.agent.api.jobs import JobStatement
from ringfence.agent.api.remote import RemoteAgent
from ringfence.attestation.result import AttestationResult
from ringfence.audit.kinds import Decision, Record
from ringfence.config.files import read_bounded
from ringfence.crypto.handshake import Shares
from ringfence.plugin.asserting import SigningAsserter, open_issuer
from ringfence.plugin.assertion import published_keys
from ringfence.plugin.browsers import Browsers
from ringfence.plugin.config import GatewayConfig, Opened
from ringfence.plugin.device.reputation import BetaReputation
from ringfence.plugin.device.score import Posture, score
from ringfence.plugin.endorsing import Endorsements
from ringfence.plugin.gate import Gate
from ringfence.plugin.host import DeviceTrust
from ringfence.plugin.identifying import Identification, identification
from ringfence.plugin.keeper import Keeper
from ringfence.plugin.link import HostLink, Verifier
from ringfence.plugin.past import Past
from ringfence.plugin.pipeline.browsing import BrowsingPipeline
from ringfence.plugin.pipeline.demands import AccessDemand, Granted, JobDemand, Signers, Upstream, no_signers
from ringfence.plugin.pipeline.factors import FactorPipeline
from ringfence.plugin.pipeline.means import Means, no_browsers
from ringfence.plugin.pipeline.opening import OpeningPipeline, SessionLimits
from ringfence.plugin.pipeline.requests import RequestPipeline
from ringfence.plugin.policing import PolicyNews
from ringfence.plugin.replay import MESSAGE_LIFETIME_S, NonceLedger
from ringfence.plugin.risk import keeping
from ringfence.plugin.risk.familiarity import Familiarity
from ringfence.plugin.risk.networks import parse_networks
from ringfence.plugin.risk.regions import Regions
from ringfence.plugin.running import Running
from ringfence.plugin.sessions.ending import Endings
from ringfence.plugin.sessions.revocations import Revocations
from ringfence.plugin.sessions.store import MemorySessions
from ringfence.plugin.settling import Settlement
from ringfence.plugin.signin import csrf
from ringfence.plugin.signin.app import SignIn, forgery_key
from ringfence.plugin.signin.assembly import open_sign_in
from ringfence.plugin.strangers import StrangerLimit
from ringfence.plugin.threats.detector import Detector
from ringfence.plugin.threats.events import ThreatEvent
from ringfence.plugin.threats.watch import Broadcast, DecisionSeen
from ringfence.policies import DeviceStatus
from ringfence.policies.holder import BundleHolder

PENDING_THREATS: Final = 4096


@dataclass(slots=True)
class Noticed:
    """Threats that still have to be recorded; where more come than can be, the oldest are dropped and counted."""

    waiting: deque[ThreatEvent] = field(default_factory=lambda: deque(maxlen=PENDING_THREATS))
    dropped: int = 0

    def __call__(self, event: ThreatEvent) -> None:
        if len(self.waiting) == PENDING_THREATS:
            self.dropped += 1
        self.waiting.append(event)


@dataclass(frozen=True, slots=True)
class Gatehouse:
    """One gateway's parts, wired and not yet running."""

    gate: Gate
    keeper: Keeper
    opening: OpeningPipeline
    requests: RequestPipeline[JobStatement, Granted]
    link: HostLink
    settlement: Settlement
    means: Means
    sessions: MemorySessions
    revocations: Revocations
    endings: Endings
    tending: keeping.Keeper
    detector: Detector
    identification: Identification
    broadcast: Broadcast
    noticed: Noticed
    asserter: SigningAsserter
    published_keys: Callable[[], bytes]
    sign_in: SignIn | None
    upstreams: Mapping[str, Upstream]
    policies: BundleHolder
    policies_name: str
    reload_s: int
    news: PolicyNews


def compose(
    config: GatewayConfig, opened: Opened, log: audit.AuditLog, past: Past, tell: Callable[[str], None]
) -> Gatehouse:
    """The parts that `config` asks for. Raises `RingfenceError` where a file that it names cannot be used."""
    limits, signer = config.limits, opened.signer
    random = secrets.token_bytes
    folder = config.state / "gateway"
    broadcast, noticed = Broadcast(), Noticed()
    memory = keeping.load(
        folder / "learned", keys={signer.key_id: signer.public}, risk=config.risk, device=config.device
    )
    sessions = MemorySessions(limits.sessions)
    replay = NonceLedger(
        lifetime_s=MESSAGE_LIFETIME_S, capacity=limits.remembered_nonces, quota=limits.nonces_of_principal
    )
    replay.restore(past.spent, now=_now())
    known = identification(config.identity, trust=opened.trust, behaviour=Familiarity(memory.assessor))
    running = Running()
    detector = Detector(config.threats, noticed)
    forgery = secrets.token_bytes(32)
    means = Means(
        trust=opened.trust,
        sessions=sessions,
        decider=opened.decider,
        replay=replay,
        risk=memory.assessor,
        threats=detector,
        ceiling=limits.risk_ceiling,
        ticks_ns=time.monotonic_ns,
        random=random,
        directory=known.directory,
        approvals=known.approvals,
        region=_regions(config.networks).region,
        running=running,
        protect=_protection(config, forgery),
    )
    settlement = Settlement(
        log,
        StrangerLimit(limits.refusals_per_minute),
        ticks_ns=time.monotonic_ns,
        tell=lambda record: _publish(broadcast, record),
    )
    shares = Shares.named(config.additional_shares, required=config.additional_share_required)
    link = HostLink(
        RemoteAgent(config.host.socket),
        agent=config.host.agent,
        signer=signer,
        trust=opened.trust,
        verifier=Verifier(opened.verifier, config.host.references(), limits.attestation_lifetime_s),
        log=log,
        tell=tell,
        clock_ns=time.time_ns,
        random=random,
        shares=shares,
        rate=_Rating(memory.reputation, config),
    )
    issuer = open_issuer(folder / "assertion.key", gateway=signer.key_id, random=random)
    asserter = SigningAsserter(issuer, random)
    revocations = Revocations(limits.session_lifetime_s)
    opening = OpeningPipeline(
        means,
        signer=signer,
        limits=SessionLimits(limits.session_lifetime_s, config.sessions.idle_s),
        shares=shares,
    )
    requests = RequestPipeline(means, JobDemand(gateway=signer.key_id, random=random, signers=_signers(config, opened)))
    gate = Gate(
        signer=signer,
        opening=opening,
        requests=requests,
        factors=FactorPipeline(means),
        prove=known.prove,
        sessions=sessions,
        revocations=revocations,
        link=link,
        settlement=settlement,
        running=running,
        job_timeout_s=limits.job_timeout_s,
        clock_ns=time.time_ns,
    )
    upstreams = {name: Upstream(name, one.tenant, one.verifies_body) for name, one in config.upstreams.items()}
    keeper = Keeper(
        link=link,
        pipelines={name: RequestPipeline(means, AccessDemand(one)) for name, one in upstreams.items()},
        settlement=settlement,
        asserter=asserter,
        tell=tell,
        clock_ns=time.time_ns,
    )
    sign_in = None
    if config.sign_in is not None:
        browsers = Browsers(
            pipeline=BrowsingPipeline(
                means,
                limits=SessionLimits(config.sign_in.session_s, config.sessions.idle_s),
                identify=known.signed_in,
            ),
            link=link,
            sessions=sessions,
            revocations=revocations,
            settlement=settlement,
            clock=_now,
        )
        sign_in = open_sign_in(config.sign_in, browsers, key=forgery, clock=_now, randomness=random)
    tending = keeping.Keeper(memory, folder / "learned", signer=signer, clock_s=_now, uniform=_uniform, tell=tell)
    endings = Endings(sessions, ticks_ns=time.monotonic_ns)
    return Gatehouse(
        gate=gate,
        keeper=keeper,
        opening=opening,
        requests=requests,
        link=link,
        settlement=settlement,
        means=means,
        sessions=sessions,
        revocations=revocations,
        endings=endings,
        tending=tending,
        detector=detector,
        identification=known,
        broadcast=broadcast,
        noticed=noticed,
        asserter=asserter,
        published_keys=lambda: published_keys((issuer.public,)),
        sign_in=sign_in,
        upstreams=upstreams,
        policies=opened.decider,
        policies_name=config.policies,
        reload_s=config.policy.reload_s if "/" in config.policies else 0,
        news=opened.news,
    )


class _Rating:
    """Rates the host on each attestation result, and remembers how it changed from one to the next."""

    def __init__(self, reputation: BetaReputation, config: GatewayConfig) -> None:
        self._reputation = reputation
        self._settings = config.device
        self._status: DeviceStatus | None = None
        self._changes: deque[int] = deque(maxlen=64)

    def __call__(self, result: AttestationResult, now: int) -> DeviceTrust:
        status = DeviceStatus(result.status.value)
        if self._status is not None and self._status is not status:
            self._changes.append(now)
        self._status = status
        device = result.subject
        self._reputation.observe(device, good=status is DeviceStatus.AFFIRMING, weight=1.0, now=now)
        standing = self._reputation.standing(device, now=now)
        changes = sum(1 for at in self._changes if abs(now - at) < 86_400)
        scored = score(result, standing, Posture(status_changes=changes), now=now, settings=self._settings)
        return DeviceTrust(status, scored.score, standing, changes, tuple(reason.text for reason in scored.reasons))


def _protection(config: GatewayConfig, key: bytes) -> Callable[[str, Sequence[tuple[str, str]]], None]:
    """What keeps other sites from using browsers' sessions; without signing in there are none to use."""
    if config.sign_in is None:
        return no_browsers
    origin, forgery = config.sign_in.origin, forgery_key(key)
    return lambda method, headers: csrf.protect(method, headers, key=forgery, origin=origin)


def _signers(config: GatewayConfig, opened: Opened) -> Signers:
    """Who vouches for modules; without a folder of endorsements, nobody."""
    settings = config.endorsements
    if settings is None:
        return no_signers
    return Endorsements(settings.folder, opened.trust, group=settings.group).signers


def _regions(path: Path | None) -> Regions:
    if path is None:
        return Regions({})
    return parse_networks(read_bounded(path), str(path))


def _publish(broadcast: Broadcast, record: Record) -> None:
    if isinstance(record, Decision):
        asked = record.asked
        risk = asked.context.get("risk", 0) if asked is not None else 0
        broadcast.publish(
            DecisionSeen(
                at=_now(),
                decision_id=record.decision_id,
                pipeline=record.pipeline,
                verdict=record.verdict,
                code=record.code,
                principal=record.principal,
                session=record.session,
                action=record.action,
                source=record.source,
                risk=risk if isinstance(risk, int) else 0,
                duration_us=record.duration_us,
            )
        )


def _now() -> int:
    return time.time_ns() // 1_000_000_000


def _uniform() -> float:
    return secrets.randbelow(1 << 53) / (1 << 53)
