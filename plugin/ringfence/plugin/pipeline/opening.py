"""The pipeline that opens a session: parse, signature, identity, device trust, risk, policy, session. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import structs

from ringfence.crypto import CryptoError, Signer
from ringfence.crypto.handshake import HELLO_LIFETIME_S, NO_SHARES, Greeted, Received, Responder, Shares
from ringfence.plugin.api import SESSION_PURPOSE
from ringfence.plugin.errors import HELLO_REPLAYED, PRINCIPAL_UNKNOWN, GateError
from ringfence.plugin.host import Attested, Host
from ringfence.plugin.hosts.port import NO_CHANNEL, Channel
from ringfence.plugin.pipeline.docket import Decided, Docket
from ringfence.plugin.pipeline.facts import Activity, common_facts
from ringfence.plugin.pipeline.means import Means
from ringfence.plugin.pipeline.stages import (
    SESSION_FACTOR,
    SIGNATURE_FACTOR,
    admit_stranger,
    apply_policy,
    assess,
    sight,
    trust_device,
)
from ringfence.plugin.sessions.port import Session
from ringfence.policies import Action, Query, SessionContext
from ringfence.trust.errors import TrustError
from ringfence.trust.pins import Pin, Role

MIN_LIFETIME_S = 30


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How long a session may live at most, and how long without a request, in seconds."""

    lifetime_s: int
    idle_s: int


@dataclass(frozen=True, slots=True)
class Opening:
    """A session that may be opened: the handshake's responder, the session without its key, and its host."""

    responder: Responder
    session: Session
    host: Attested


@dataclass(frozen=True, slots=True)
class _Known:
    received: Received
    pin: Pin


class OpeningPipeline:
    """Decides whether a client may open a session."""

    def __init__(self, means: Means, *, signer: Signer, limits: SessionLimits, shares: Shares = NO_SHARES) -> None:
        self._means = means
        self._signer = signer
        self._limits = limits
        self._shares = shares

    def decide(
        self, message: bytes, host: Host, *, source: str, now: int, channel: Channel = NO_CHANNEL
    ) -> Decided[Opening]:
        """The decision on one hello. A session that is opened on a channel with a certificate holds there only."""
        means = self._means
        docket = Docket(
            means.random(16).hex(),
            "session",
            means.ticks_ns,
            action=Action.OPEN_SESSION.value,
            resource=host.agent,
            source=source,
            bundle_digest=means.decider.bundle_digest,
        )
        decided = docket.decide(lambda: self._stages(docket, message, host, channel, now))
        if decided.blames_caller:
            means.risk.refused(docket.principal or source, authenticated=bool(docket.principal), now=now)
        sight(means, decided, now, claimed=_claimed(message))
        return decided

    def _stages(self, docket: Docket, message: bytes, host: Host, channel: Channel, now: int) -> Opening:
        means = self._means
        docket.begin("parse")
        admit_stranger(means, docket.source, now)
        known = self._look_up(message, now)
        docket.begin("signature")
        greeted = self._authenticate(docket, known, now)
        docket.begin("identity")
        draft = self._identify(docket, known.pin, channel, now)
        docket.begin("device_trust")
        attested = trust_device(host, now=now)
        docket.attestation_digest = attested.digest
        docket.begin("risk")
        activity = assess(means, docket, size=len(message), drift=attested.trust.drift, now=now)
        docket.begin("policy")
        facts = common_facts(attested, draft, (SIGNATURE_FACTOR,), activity, now=now, source=docket.source, tenant="")
        context = SessionContext(*facts)
        apply_policy(
            means.decider, docket, Query(draft.principal, draft.groups, Action.OPEN_SESSION, docket.resource, context)
        )
        docket.begin("session")
        return self._answer(docket, greeted, draft, attested, activity, now)

    def _look_up(self, message: bytes, now: int) -> _Known:
        received = Received.parse(message)
        try:
            pin = self._means.trust().find(Role.CLIENT, received.hello.initiator, now)
        except TrustError as error:
            # One answer whether the key is unknown, expired or of another role: a stranger learns nothing.
            raise GateError(
                PRINCIPAL_UNKNOWN,
                "The key is not pinned here as a client's, or its pin has ended.",
                field="initiator",
                hint="Have the operator run `ringfence trust add client`.",
            ) from error
        return _Known(received, pin)

    def _authenticate(self, docket: Docket, known: _Known, now: int) -> Greeted:
        greeted = known.received.authenticate(known.pin.public, self._signer, SESSION_PURPOSE, now=now)
        principal = known.pin.key_id
        hello = known.received.hello
        nonce, until = f"{principal}:{hello.nonce.hex()}", hello.created_at + HELLO_LIFETIME_S
        self._means.replay.spend(principal, nonce, until=until, now=now, code=HELLO_REPLAYED)
        docket.nonce, docket.nonce_until = nonce, until
        return greeted

    def _identify(self, docket: Docket, pin: Pin, channel: Channel, now: int) -> Session:
        docket.principal = pin.key_id
        known = self._means.directory(pin.key_id, now)
        return Session(
            name="",
            principal=pin.key_id,
            groups=tuple(sorted({*pin.groups, *known.groups})),
            host="",
            status="",
            attestation_digest="",
            bundle_digest=docket.bundle_digest,
            opened_at=now,
            expires_at=0,
            idle_s=self._limits.idle_s,
            key=b"",
            factors=((SESSION_FACTOR, 0),),
            thumbprint=channel.thumbprint,
            tenant=known.tenant,
            attributes=known.attributes,
            directory_at=known.fetched_at,
            source=docket.source,
        )

    def _answer(
        self, docket: Docket, greeted: Greeted, draft: Session, host: Attested, activity: Activity, now: int
    ) -> Opening:
        name = self._means.random(16).hex()
        expires_at = min(now + lifetime(self._limits, activity), host.result.expires_at)
        responder = greeted.answer(
            self._signer, name=name, expires_at=expires_at, random=self._means.random, shares=self._shares
        )
        docket.session = name
        session = structs.replace(
            draft,
            name=name,
            host=host.agent,
            status=host.trust.status.value,
            attestation_digest=host.digest,
            expires_at=expires_at,
        )
        return Opening(responder, session, host)


def lifetime(limits: SessionLimits, activity: Activity) -> int:
    """How many seconds a session may live: the riskier, the sooner it has to prove itself again."""
    return max(MIN_LIFETIME_S, limits.lifetime_s * (100 - activity.risk) // 100)


def _claimed(message: bytes) -> str:
    try:
        return Received.parse(message).hello.initiator
    except CryptoError:
        return ""
