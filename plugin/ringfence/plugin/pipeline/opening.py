"""The pipeline that opens a session: parse, signature, identity, device trust, risk, policy, session. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ringfence.attestation.result import AttestationResult
from ringfence.crypto import Signer
from ringfence.crypto.handshake import HELLO_LIFETIME_S, NO_SHARES, Greeted, Random, Received, Responder, Shares
from ringfence.plugin.api import SESSION_PURPOSE
from ringfence.plugin.errors import HELLO_REPLAYED, PRINCIPAL_UNKNOWN, GateError
from ringfence.plugin.host import Attested, Host
from ringfence.plugin.pipeline.docket import Decided, Docket
from ringfence.plugin.pipeline.stages import (
    SIGNATURE_FACTOR,
    Ceiling,
    PolicyDeniedError,
    apply_policy,
    common_context,
    trust_device,
)
from ringfence.plugin.replay import ReplayCache
from ringfence.plugin.risk.ledger import RiskLedger, tolerable
from ringfence.policies import Action, Decider, Query, SessionContext
from ringfence.trust.errors import TrustError
from ringfence.trust.pins import Pin, Role, TrustList


@dataclass(frozen=True, slots=True)
class Opening:
    """A session that may be opened: the handshake's responder, and for whom, on which host."""

    responder: Responder
    pin: Pin
    host: Attested


@dataclass(frozen=True, slots=True)
class _Known:
    received: Received
    pin: Pin


class OpeningPipeline:
    """Decides whether a client may open a session. State: the replay cache and the risk ledger it is given."""

    def __init__(
        self,
        *,
        signer: Signer,
        trust: Callable[[], TrustList],
        decider: Decider,
        replay: ReplayCache,
        risk: RiskLedger,
        ceiling: Ceiling,
        lifetime_s: int,
        ticks_ns: Callable[[], int],
        random: Random,
        shares: Shares = NO_SHARES,
    ) -> None:
        self._signer = signer
        self._trust = trust
        self._decider = decider
        self._replay = replay
        self._risk = risk
        self._ceiling = ceiling
        self._lifetime_s = lifetime_s
        self._ticks_ns = ticks_ns
        self._random = random
        self._shares = shares

    def decide(self, message: bytes, host: Host, *, source: str, now: int) -> Decided[Opening]:
        """The decision on one hello."""
        docket = Docket(self._random(16).hex(), "session", self._ticks_ns)
        docket.action = Action.OPEN_SESSION.value
        docket.resource = host.agent
        docket.bundle_digest = self._decider.bundle_digest
        decided = docket.decide(lambda: self._stages(docket, message, host, source, now))
        if decided.blames_caller:
            self._risk.refused(docket.principal or source, now=now)
        return decided

    def _stages(self, docket: Docket, message: bytes, host: Host, source: str, now: int) -> Opening:
        known = docket.run("parse", lambda: self._look_up(message, now))
        greeted = docket.run("signature", lambda: self._authenticate(known, now))
        docket.run("identity", lambda: self._identify(docket, known.pin))
        attested = docket.run("device_trust", lambda: trust_device(host, now=now))
        docket.attestation_digest = attested.digest
        score = docket.run(
            "risk", lambda: tolerable(self._risk.assess(known.pin.key_id, source, now=now), self._ceiling.risk)
        )
        docket.run("policy", lambda: self._permit(docket, known.pin, attested.result, score.score, source, now))
        responder = docket.run("session", lambda: self._answer(docket, greeted, attested, now))
        return Opening(responder, known.pin, attested)

    def _look_up(self, message: bytes, now: int) -> _Known:
        received = Received.parse(message)
        try:
            pin = self._trust().find(Role.CLIENT, received.hello.initiator, now)
        except TrustError as error:
            # One answer whether the key is unknown, expired or of another role: a stranger learns nothing.
            raise GateError(
                PRINCIPAL_UNKNOWN,
                "The key is not pinned here as a client's, or its pin has ended.",
                field="initiator",
                hint="Have the operator run `ringfence trust add client`.",
            ) from error
        return _Known(received, pin)

    def _authenticate(self, known: _Known, now: int) -> Greeted:
        greeted = known.received.authenticate(known.pin.public, self._signer, SESSION_PURPOSE, now=now)
        nonce = f"{known.pin.key_id}:{known.received.hello.nonce.hex()}"
        self._replay.spend(nonce, now=now, code=HELLO_REPLAYED)
        return greeted

    def _identify(self, docket: Docket, pin: Pin) -> None:
        docket.principal = pin.key_id

    def _permit(self, docket: Docket, pin: Pin, result: AttestationResult, risk: int, source: str, now: int) -> None:
        common = common_context(result, factors=(SIGNATURE_FACTOR,), risk=risk, now=now, source=source)
        query = Query(pin.key_id, pin.groups, Action.OPEN_SESSION, docket.resource, SessionContext(**common))
        try:
            docket.policies = apply_policy(self._decider, query)
        except PolicyDeniedError as refusal:
            docket.policies = refusal.policies
            raise

    def _answer(self, docket: Docket, greeted: Greeted, attested: Attested, now: int) -> Responder:
        name = self._random(16).hex()
        expires_at = min(now + self._lifetime_s, attested.result.expires_at)
        responder = greeted.answer(
            self._signer, name=name, expires_at=expires_at, random=self._random, shares=self._shares
        )
        docket.session = name
        return responder


REPLAY_LIFETIME_S = 2 * HELLO_LIFETIME_S
