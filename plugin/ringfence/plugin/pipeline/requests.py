"""The pipeline of a request in a session: session, signature, integrity, device trust, risk, policy, grant. No I/O.

The caller of this pipeline makes the decision's record durable before it lets the grant go. It may `screen` a
request by its header fields before it reads the body; the decision still begins with the first stage, because session
and signature may have ended while the body came.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ringfence import httpsig
from ringfence.agent.api.grants import GRANT_LIFETIME_S, Grant, seal_grant
from ringfence.agent.api.jobs import JobStatement, parse_submission
from ringfence.crypto.handshake import Random
from ringfence.plugin.errors import JOB_FOREIGN, PRINCIPAL_UNKNOWN, REQUEST_REPLAYED, GateError
from ringfence.plugin.host import Attested, Host
from ringfence.plugin.pipeline.docket import Decided, Docket
from ringfence.plugin.pipeline.stages import (
    SESSION_FACTOR,
    Ceiling,
    PolicyDeniedError,
    apply_policy,
    common_context,
    same_device,
    trust_device,
)
from ringfence.plugin.replay import ReplayCache
from ringfence.plugin.risk.ledger import RiskLedger, tolerable
from ringfence.plugin.sessions.port import Session
from ringfence.plugin.sessions.store import MemorySessions
from ringfence.policies import Action, Decider, JobContext, Query
from ringfence.trust.errors import TrustError
from ringfence.trust.pins import Role, TrustList

Outcome = TypeVar("Outcome")


@dataclass(frozen=True, slots=True)
class Head:
    """A request's header as it was received: nothing here is authenticated."""

    target: httpsig.Target
    headers: Sequence[tuple[str, str]]
    source: str


@dataclass(frozen=True, slots=True)
class Request(Head):
    """A whole request, as unauthenticated as its header."""

    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Granted:
    """A request that may be forwarded, with its grant and the grant's tag."""

    grant: Grant
    channel: str
    encoded: bytes
    tag: bytes = field(repr=False)


class RequestPipeline:
    """Decides whether a job may be forwarded to the host."""

    def __init__(
        self,
        *,
        gateway: str,
        trust: Callable[[], TrustList],
        sessions: MemorySessions,
        decider: Decider,
        replay: ReplayCache,
        risk: RiskLedger,
        ceiling: Ceiling,
        ticks_ns: Callable[[], int],
        random: Random,
    ) -> None:
        self._gateway = gateway
        self._trust = trust
        self._sessions = sessions
        self._decider = decider
        self._replay = replay
        self._risk = risk
        self._ceiling = ceiling
        self._ticks_ns = ticks_ns
        self._random = random

    def screen(self, head: Head, host: Host, *, now: int) -> Decided[Session]:
        """The decision as far as the header allows one: a denial is final, and nothing is spent."""
        return self._decide(head, host, now, lambda docket: self._authenticate(docket, head, now)[1])

    def decide(self, request: Request, host: Host, *, now: int) -> Decided[Granted]:
        """The decision on one request."""
        return self._decide(request, host, now, lambda docket: self._stages(docket, request, host, now))

    def _decide(self, head: Head, host: Host, now: int, stages: Callable[[Docket], Outcome]) -> Decided[Outcome]:
        docket = Docket(self._random(16).hex(), "request", self._ticks_ns)
        docket.action = Action.SUBMIT_JOB.value
        docket.resource = host.agent
        docket.bundle_digest = self._decider.bundle_digest
        decided = docket.decide(lambda: stages(docket))
        if decided.blames_caller:
            self._risk.refused(docket.principal or head.source, now=now)
        return decided

    def _authenticate(self, docket: Docket, head: Head, now: int) -> tuple[httpsig.Presented, Session]:
        presented = docket.run("parse", lambda: httpsig.parse(head.headers))
        session = docket.run("session", lambda: self._find(presented.session, now))
        docket.run("signature", lambda: httpsig.verify(presented, session.key, head.target, now=now))
        return presented, session

    def _stages(self, docket: Docket, request: Request, host: Host, now: int) -> Granted:
        presented, session = self._authenticate(docket, request, now)
        docket.run("integrity", lambda: self._accept(docket, request, presented, session, now))
        attested = docket.run("device_trust", lambda: self._trust_device(session, host, now))
        # The session is bound to the result it was opened with; the host's latest one must still agree with it.
        docket.attestation_digest = session.attestation_digest
        score = docket.run(
            "risk",
            lambda: tolerable(self._risk.assess(session.principal, request.source, now=now), self._ceiling.risk),
        )
        statement = docket.run("policy", lambda: self._permit(docket, request, session, attested, score.score, now))
        return docket.run("grant", lambda: self._grant(docket, session, attested, statement, now))

    def _find(self, name: str, now: int) -> Session:
        session = self._sessions.find(name, now=now)
        try:
            self._trust().find(Role.CLIENT, session.principal, now)
        except TrustError as error:
            self._sessions.end(name)
            raise GateError(
                PRINCIPAL_UNKNOWN,
                "The session's client is not pinned here any more.",
                field="keyid",
                hint="Have the operator run `ringfence trust add client`, then open a new session.",
            ) from error
        return session

    def _accept(
        self, docket: Docket, request: Request, presented: httpsig.Presented, session: Session, now: int
    ) -> None:
        body_digest = httpsig.verify_body(presented, request.body)
        self._replay.spend(f"{session.name}:{presented.nonce}", now=now, code=REQUEST_REPLAYED)
        docket.session = session.name
        docket.principal = session.principal
        docket.body_digest = body_digest.hex()

    def _trust_device(self, session: Session, host: Host, now: int) -> Attested:
        attested = trust_device(host, now=now)
        try:
            return same_device(attested, agent=session.host, status=session.status)
        except GateError:
            # It does not come back to life when the host does.
            self._sessions.end(session.name)
            raise

    def _permit(
        self, docket: Docket, request: Request, session: Session, attested: Attested, risk: int, now: int
    ) -> JobStatement:
        _, statement = parse_submission(request.body)
        if statement.principal != session.principal or statement.host != attested.agent:
            raise GateError(
                JOB_FOREIGN,
                "The job inside the request names another principal or host than the session.",
                field="statement",
                hint="Sign the job with the session's key pair, for the session's host.",
            )
        common = common_context(attested.result, factors=(SESSION_FACTOR,), risk=risk, now=now, source=request.source)
        context = JobContext(
            **common,
            body_verified=True,
            body_bytes=len(request.body),
            memory_bytes=statement.limits.memory_bytes,
            gpu_memory_bytes=statement.limits.gpu_memory_bytes,
            deadline_ms=statement.limits.deadline_ms,
            output_bytes=statement.limits.output_bytes,
            qubits=statement.limits.qubits,
            compute_units=statement.limits.compute_units,
            quantum=statement.limits.qubits > 0,
            level=statement.level.value,
            result=statement.result.value,
            module_digest=statement.module_digest.hex(),
            module_signers=(),
        )
        query = Query(session.principal, session.groups, Action.SUBMIT_JOB, attested.agent, context)
        try:
            docket.policies = apply_policy(self._decider, query)
        except PolicyDeniedError as refusal:
            docket.policies = refusal.policies
            raise
        return statement

    def _grant(
        self, docket: Docket, session: Session, attested: Attested, statement: JobStatement, now: int
    ) -> Granted:
        grant = Grant(
            grant_id=self._random(16).hex(),
            audience=attested.agent,
            gateway=self._gateway,
            session=session.name,
            principal=session.principal,
            body_digest=bytes.fromhex(docket.body_digest),
            limits=statement.limits,
            bundle_digest=docket.bundle_digest,
            attestation_digest=session.attestation_digest,
            issued_at=now,
            expires_at=min(now + GRANT_LIFETIME_S, session.expires_at),
        )
        docket.grant_id = grant.grant_id
        encoded, tag = seal_grant(attested.grant_key, grant)
        return Granted(grant, attested.channel, encoded, tag)


REPLAY_LIFETIME_S = httpsig.MAX_LIFETIME_S + 2 * httpsig.SKEW_S
