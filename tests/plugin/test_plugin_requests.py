"""Requests in a session with real signatures, results and policies: every stage denies with its code."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from ringfence import httpsig
from ringfence.agent.api.grants import GRANT_LIFETIME_S, open_grant
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
from ringfence.policies import JobContext, Query, Verdict
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


Submitted = Callable[[Gateway], Decided[Granted]]
REQUEST_DENIALS: dict[str, tuple[Submitted, str, str]] = {
    "no signature": (
        lambda g: g.submit(without(signed(g.session), "signature")),
        "parse",
        "integrity.signature_missing",
    ),
    "an unknown session": (
        lambda g: g.submit(signed(msgspec.structs.replace(g.session, name="unknown"))),
        "session",
        "session.unknown",
    ),
    "an expired session": (
        lambda g: g.submit(
            signed(g.session, now=g.session.expires_at), attested(since=g.session.expires_at), now=g.session.expires_at
        ),
        "session",
        "session.expired",
    ),
    "another key": (
        lambda g: g.submit(signed(msgspec.structs.replace(g.session, key=bytes(32)))),
        "signature",
        "integrity.signature_invalid",
    ),
    "another path": (
        lambda g: g.submit(replace(signed(g.session), target=replace(TARGET, path="/v1/job"))),
        "signature",
        "integrity.signature_invalid",
    ),
    "another body": (
        lambda g: g.submit(replace(signed(g.session), body=job())),
        "integrity",
        "integrity.digest_mismatch",
    ),
    "a body cut short": (
        lambda g: g.submit(replace(signed(g.session, b"body"), body=b"bod")),
        "integrity",
        "integrity.digest_mismatch",
    ),
    "an old request": (
        lambda g: g.submit(signed(g.session, now=NOW - 100)),
        "signature",
        "integrity.signature_expired",
    ),
    "a replayed request": (twice, "integrity", "integrity.replayed"),
    "an absent host": (lambda g: g.submit(signed(g.session), UNREACHABLE), "device_trust", "device.not_attested"),
    "a stale result": (
        lambda g: g.submit(signed(g.session), attested(since=NOW - 300)),
        "device_trust",
        "device.not_attested",
    ),
    "a host in another state": (
        lambda g: g.submit(signed(g.session), attested(Status.WARNING)),
        "device_trust",
        "device.trust_changed",
    ),
    "another host": (
        lambda g: g.submit(signed(g.session), attested(agent=STRANGER)),
        "device_trust",
        "device.trust_changed",
    ),
    "many refusals": (lambda g: refused_often(g).submit(signed(g.session)), "risk", "risk.too_high"),
    "a risk that policies forbid": (
        lambda g: refused_often(g, 6).submit(signed(g.session)),
        "policy",
        "policy.denied",
    ),
    "no job": (lambda g: g.submit(signed(g.session, b"")), "policy", "job.malformed"),
    "another's job": (lambda g: g.submit(signed(g.session, job(STRANGER))), "policy", "integrity.foreign_job"),
    "a job for another host": (
        lambda g: g.submit(signed(g.session, job(host=STRANGER.key_id))),
        "policy",
        "integrity.foreign_job",
    ),
    "too much memory": (lambda g: g.submit(signed(g.session, job(memory_bytes=2**32))), "policy", "policy.denied"),
    "too long": (lambda g: g.submit(signed(g.session, job(deadline_ms=30_001))), "policy", "policy.denied"),
    "a circuit": (lambda g: g.submit(signed(g.session, job(qubits=1))), "policy", "policy.denied"),
    "too many units": (lambda g: g.submit(signed(g.session, job(compute_units=65))), "policy", "policy.denied"),
    "a low level": (lambda g: g.submit(signed(g.session, job(level=Level.MEDIUM))), "policy", "policy.denied"),
    "more than Cedar can count": (
        lambda g: g.submit(signed(g.session, job(qubits=2**63))),
        "policy",
        "policy.bad_query",
    ),
}


@pytest.mark.parametrize("case", REQUEST_DENIALS)
def test_every_stage_of_a_request_denies_with_its_code(case: str) -> None:
    attempt, stage, code = REQUEST_DENIALS[case]
    gateway = Gateway()
    session = gateway.session
    decided = attempt(gateway)
    denied(decided, stage, code)
    record = decided.record
    authenticated = STAGES.index(stage) > STAGES.index("integrity")
    assert (record.principal, record.session) == ((CLIENT.key_id, session.name) if authenticated else ("", ""))
    assert bool(record.body_digest) == authenticated
    assert record.attestation_digest == (HOST.digest if STAGES.index(stage) > STAGES.index("device_trust") else "")
    assert len(gateway.decider.queries) == (code == "policy.denied") + (case == "a replayed request")
    # An absent or a changed host is not the caller's fault; an unproven claim is not the fault of whom it names.
    blamed = CLIENT.key_id if authenticated else SOURCE
    blameless = code in ("device.not_attested", "device.trust_changed")
    assert (gateway.guilt(blamed) >= 12) == (not blameless)
    assert authenticated or gateway.guilt(CLIENT.key_id) == 0


def test_a_request_gets_a_grant_for_exactly_its_job() -> None:
    gateway = Gateway()
    session = gateway.session
    body = job()
    decided = gateway.submit(signed(session, body))
    assert isinstance(decided.ruling, Granted)
    granted, record = decided.ruling, decided.record
    grant = open_grant(GRANT_KEY, granted.encoded, granted.tag, audience=AGENT.key_id, gateway=GATEWAY.key_id, now=NOW)
    assert grant == granted.grant
    assert granted.channel == HOST.channel
    assert (grant.session, grant.principal, grant.limits) == (session.name, CLIENT.key_id, LIMITS)
    assert (grant.body_digest, grant.bundle_digest) == (digest(body), CEDAR.bundle_digest)
    assert (grant.attestation_digest, grant.expires_at) == (HOST.digest, NOW + GRANT_LIFETIME_S)
    assert [view.name for view in decided.trace] == list(STAGES)
    assert (record.verdict, record.grant_id, record.body_digest) == ("allow", grant.grant_id, digest(body).hex())
    assert (record.session, record.principal, record.policies) == (session.name, CLIENT.key_id, ("permit-job",))
    assert granted.tag.hex() not in repr(granted)
    check_data(record, encode_data(record))


def test_no_grant_outlives_its_session() -> None:
    gateway = Gateway(lifetime_s=5)
    ruling = gateway.submit(signed(gateway.session)).ruling
    assert isinstance(ruling, Granted)
    assert ruling.grant.expires_at == NOW + 5


def test_policies_see_what_was_authenticated() -> None:
    gateway = Gateway(groups=("job-submitters", "quantum-users"))
    session = gateway.session
    asked = job(qubits=24, level=Level.QUANTUM, result=ResultType.F64, compute_units=32)
    assert isinstance(gateway.submit(signed(session, asked)).ruling, Granted)
    query = gateway.decider.queries[-1]
    assert (query.principal, query.resource, "quantum-users" in query.groups) == (CLIENT.key_id, AGENT.key_id, True)
    assert isinstance(query.context, JobContext)
    assert (query.context.level, query.context.result, query.context.compute_units) == ("quantum", "f64", 32)
    denied(gateway.submit(signed(session, job(qubits=25))), "policy", "policy.denied")


def test_a_header_that_passed_is_decided_on_again_when_its_body_has_come() -> None:
    gateway = Gateway()
    request = signed(gateway.session, now=NOW)
    screened = gateway.pipeline.screen(request, HOST, now=NOW)
    assert screened.ruling == gateway.session
    # Nothing is spent, and nobody is named, by a header alone.
    assert (screened.record.principal, screened.record.session) == ("", "")
    assert isinstance(gateway.pipeline.screen(request, HOST, now=NOW).ruling, Session)
    denied(gateway.submit(request, now=NOW + 100), "signature", "integrity.signature_expired")
    denied(gateway.pipeline.screen(request, HOST, now=NOW + 100), "signature", "integrity.signature_expired")
    assert isinstance(gateway.submit(request).ruling, Granted)

    gateway = Gateway()
    request = signed(gateway.session)
    assert isinstance(gateway.pipeline.screen(request, HOST, now=NOW).ruling, Session)
    gateway.trust = TrustList(())
    denied(gateway.submit(request), "session", "identity.unknown_key")


def test_a_session_does_not_come_back_when_its_host_does() -> None:
    gateway = Gateway()
    session = gateway.session
    denied(gateway.submit(signed(session), attested(Status.WARNING)), "device_trust", "device.trust_changed")
    denied(gateway.submit(signed(session)), "session", "session.unknown")


def test_a_renewed_result_in_the_same_state_keeps_the_session() -> None:
    gateway = Gateway()
    session = gateway.session
    decided = gateway.submit(signed(session), attested(since=NOW - 10))
    assert isinstance(decided.ruling, Granted)
    assert decided.ruling.grant.attestation_digest == session.attestation_digest


def test_whoever_knows_a_session_id_cannot_harm_its_owner() -> None:
    gateway = Gateway()
    session = gateway.session
    for _ in range(50):
        denied(
            gateway.submit(signed(msgspec.structs.replace(session, key=bytes(32)))),
            "signature",
            "integrity.signature_invalid",
        )
    elsewhere = replace(signed(session), source="192.0.2.2")
    assert isinstance(gateway.submit(elsewhere).ruling, Granted)
    # Not even from the same address, which others may share.
    assert isinstance(gateway.submit(signed(session)).ruling, Granted)


def test_a_full_replay_cache_denies() -> None:
    gateway = Gateway(nonces=1)
    assert isinstance(gateway.submit(signed(gateway.session)).ruling, Granted)
    denied(gateway.submit(signed(gateway.session)), "integrity", "integrity.replay_capacity")


def test_a_removed_client_loses_its_sessions() -> None:
    gateway = Gateway()
    gateway.trust = TrustList()

    denied(gateway.submit(signed(gateway.session)), "session", "identity.unknown_key")

    gateway.trust = TrustList((Pin("client", Role.CLIENT, CLIENT.public, NOW),))
    denied(gateway.submit(signed(gateway.session)), "session", "session.unknown")


def test_a_risk_that_is_too_high_does_not_feed_itself() -> None:
    gateway = refused_often(Gateway())
    before = gateway.guilt(CLIENT.key_id)

    denied(gateway.submit(signed(gateway.session)), "risk", "risk.too_high")

    assert gateway.guilt(CLIENT.key_id) == before
