"""Requests in a session with real signatures, results and policies: every stage denies with its code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from ringfence.agent.api.grants import GRANT_LIFETIME_S, open_grant
from ringfence.agent.api.jobs import Level, ResultType
from ringfence.attestation import Status
from ringfence.audit.records import check_data, encode_data
from ringfence.crypto import digest
from ringfence.plugin.pipeline.demands import Granted
from ringfence.plugin.pipeline.docket import Decided
from ringfence.plugin.sessions.port import Session
from ringfence.policies import JobContext
from ringfence.trust import Pin, Role, TrustList
from tests.plugin.requests_scene import (
    AGENT,
    CEDAR,
    CLIENT,
    GATEWAY,
    GRANT_KEY,
    HOST,
    LIMITS,
    NOW,
    SOURCE,
    STAGES,
    STRANGER,
    TARGET,
    UNREACHABLE,
    Gateway,
    attested,
    denied,
    job,
    refused_often,
    signed,
    twice,
    without,
)

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
