"""The pipeline of requests with one session open, and jobs and requests as its caller signs them."""

from __future__ import annotations

import itertools
import secrets
from dataclasses import replace

import msgspec

from ringfence import httpsig
from ringfence.agent.api.jobs import JobLimits, JobStatement, Level, ResultType, sign_job
from ringfence.attestation import AttestationError, AttestationResult, Status
from ringfence.attestation.errors import NONCE_MISMATCH
from ringfence.attestation.result import digest as result_digest
from ringfence.attestation.result import issue
from ringfence.audit.records import check_data, encode_data
from ringfence.crypto import COMPOSITE, digest
from ringfence.errors import RingfenceError
from ringfence.plugin.host import Attested, Host, Unreachable, plain_trust
from ringfence.plugin.hosts.port import Inbound
from ringfence.plugin.pipeline.demands import Granted, JobDemand
from ringfence.plugin.pipeline.docket import Decided
from ringfence.plugin.pipeline.means import Means
from ringfence.plugin.pipeline.requests import RequestPipeline
from ringfence.plugin.replay import MESSAGE_LIFETIME_S, NonceLedger
from ringfence.plugin.risk.assessor import Assessor
from ringfence.plugin.risk.port import Features
from ringfence.plugin.risk.settings import RiskSettings
from ringfence.plugin.sessions.port import Session
from ringfence.plugin.sessions.store import MemorySessions
from ringfence.plugin.threats.calm import Calm
from ringfence.policies import Query, Verdict
from ringfence.policies.engine import CedarDecider
from ringfence.policies.folder import open_bundled
from ringfence.trust import KeyPair, Pin, Role, TrustList

NOW = 1_800_000_000
SOURCE = "192.0.2.1"
STAGES = ("parse", "session", "signature", "integrity", "device_trust", "risk", "policy", "grant")
CLIENT, STRANGER, GATEWAY, AGENT, VERIFIER = (KeyPair(*COMPOSITE.generate()) for _ in range(5))
LIMITS = JobLimits(memory_bytes=2**20, gpu_memory_bytes=0, deadline_ms=1000, output_bytes=100, qubits=0)
TARGET = httpsig.Target("POST", "gateway", "/v1/jobs")
GRANT_KEY = bytes(range(32))
UNREACHABLE = Unreachable(AGENT.key_id, AttestationError(NONCE_MISMATCH, "The nonce is another one."))


def attested(status: Status = Status.AFFIRMING, *, agent: KeyPair = AGENT, since: int = NOW) -> Attested:
    """A host with a result that a verifier signed."""
    result = AttestationResult(
        issuer=VERIFIER.key_id,
        subject=agent.key_id,
        agent_key=agent.public,
        status=status,
        score=status.score,
        reasons=(),
        issued_at=since,
        expires_at=since + 300,
        evidence_digest="e" * 64,
    )
    token = issue(result, VERIFIER)
    return Attested(
        agent.key_id, result, token, result_digest(token), "channel", plain_trust(result, since), GRANT_KEY, bytes(32)
    )


HOST = attested()


class Spy:
    """The shipped policies, with the queries they were asked."""

    def __init__(self) -> None:
        self.decider = CEDAR
        self.queries: list[Query] = []

    @property
    def bundle_digest(self) -> str:
        return self.decider.bundle_digest

    def decide(self, query: Query) -> Verdict:
        self.queries.append(query)
        return self.decider.decide(query)


CEDAR = CedarDecider(open_bundled("default"))


class Gateway:
    """The pipeline of requests, with one session open."""

    def __init__(
        self, *, nonces: int = 1000, groups: tuple[str, ...] = ("job-submitters",), lifetime_s: int = 200
    ) -> None:
        self.decider = Spy()
        self.risk = Assessor(RiskSettings())
        self.sessions = MemorySessions(10)
        self.session = Session(
            name="session",
            principal=CLIENT.key_id,
            groups=groups,
            host=AGENT.key_id,
            status="affirming",
            attestation_digest=HOST.digest,
            bundle_digest=CEDAR.bundle_digest,
            opened_at=NOW,
            idle_s=3600,
            expires_at=NOW + lifetime_s,
            key=bytes(range(32)),
            factors=(("session-mac", 0),),
        )
        self.sessions.add(self.session, now=NOW)
        self.trust = TrustList((Pin("client", Role.CLIENT, CLIENT.public, NOW),))
        self.pipeline = RequestPipeline(
            Means(
                trust=lambda: self.trust,
                sessions=self.sessions,
                decider=self.decider,
                replay=NonceLedger(lifetime_s=MESSAGE_LIFETIME_S, capacity=nonces, quota=1000),
                risk=self.risk,
                threats=Calm(),
                ceiling=90,
                ticks_ns=itertools.count(0, 5000).__next__,
                random=secrets.token_bytes,
            ),
            JobDemand(gateway=GATEWAY.key_id, random=secrets.token_bytes),
        )

    def submit(self, request: Inbound, host: Host = HOST, now: int = NOW) -> Decided[Granted]:
        return self.pipeline.decide(request, host, now=now)

    def guilt(self, subject: str) -> int:
        """The points for refusals that count against `subject`, as a principal or as a source."""
        scored = self.risk.assess(Features(subject, subject, "", 0, "", 0, NOW))
        return sum(reason.points for reason in scored.reasons if reason.feature.endswith("refusals"))


def job(
    signer: KeyPair = CLIENT,
    *,
    host: str = AGENT.key_id,
    level: Level = Level.HIGH,
    result: ResultType = ResultType.BYTES,
    **limits: int,
) -> bytes:
    statement = JobStatement(
        host=host,
        principal=signer.key_id,
        nonce=secrets.token_bytes(16),
        issued_at=NOW,
        expires_at=NOW + 60,
        module_digest=digest(b"module"),
        input_digest=digest(b"input"),
        limits=msgspec.structs.replace(LIMITS, **limits),
        level=level,
        result=result,
    )
    return sign_job(signer, statement, b"module", b"input")


def signed(session: Session, body: bytes | None = None, *, now: int = NOW) -> Inbound:
    body = job() if body is None else body
    nonce = secrets.token_urlsafe(18)
    headers = httpsig.sign(session.key, TARGET, body, session=session.name, nonce=nonce, now=now, lifetime_s=60)
    return Inbound(TARGET, list(headers.items()), SOURCE, "", body)


def denied(decided: Decided[object], stage: str, code: str) -> None:
    """The stages before `stage` allowed, it denied with `code`, and nothing ran after it."""
    assert isinstance(decided.ruling, RingfenceError)
    ran = STAGES[: STAGES.index(stage) + 1]
    assert [view.name for view in decided.trace] == list(ran)
    assert [view.verdict for view in decided.trace] == ["allow"] * (len(ran) - 1) + ["deny"]
    assert [view.code for view in decided.trace] == [""] * (len(ran) - 1) + [code]
    record = decided.record
    assert (record.verdict, record.code, decided.ruling.code.name) == ("deny", code, code)
    assert record.grant_id == ""
    check_data(record, encode_data(record))


def refused_often(gateway: Gateway, times: int = 9) -> Gateway:
    for _ in range(times):
        gateway.risk.refused(CLIENT.key_id, authenticated=True, now=NOW)
    return gateway


def without(request: Inbound, field: str) -> Inbound:
    return replace(request, headers=[(name, value) for name, value in request.headers if name != field])


def twice(gateway: Gateway) -> Decided[Granted]:
    request = signed(gateway.session)
    assert isinstance(gateway.submit(request).ruling, Granted)
    return gateway.submit(request)
