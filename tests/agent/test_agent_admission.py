"""Admission under attack: a job runs only when gateway and caller both want exactly this job, here, now, once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ringfence import audit
from ringfence.agent.admission import Admitted, Presented, admit
from ringfence.agent.api.grants import GRANT_LIFETIME_S, Grant, seal_grant
from ringfence.agent.api.jobs import (
    JOB_CONTEXT,
    MAX_JOB_LIFETIME_S,
    RECEIPT_CONTEXT,
    JobLimits,
    JobStatement,
    Submission,
    sign_job,
)
from ringfence.agent.host import recover_spent
from ringfence.agent.spent import SpentIds
from ringfence.crypto import COMPOSITE, digest, mac
from ringfence.errors import RingfenceError
from ringfence.trust import KeyPair, Pin, Role, TrustList

NOW = 1_800_000_000
KEY = bytes(range(32))
MODULE, INPUT = b"\0asm module", b"input"
LIMITS = JobLimits(memory_bytes=100, gpu_memory_bytes=200, deadline_ms=300, output_bytes=400, qubits=5, compute_units=6)
CALLER, OTHER, STRANGER, GATEWAY, HOST = (KeyPair(*COMPOSITE.generate()) for _ in range(5))
TRUST = TrustList(
    (
        Pin("caller", Role.CLIENT, CALLER.public, NOW, ("job-submitters",)),
        Pin("other", Role.CLIENT, OTHER.public, NOW),
        Pin("gateway", Role.GATEWAY, GATEWAY.public, NOW),
    )
)
STATEMENT = JobStatement(
    host=HOST.key_id,
    principal=CALLER.key_id,
    nonce=bytes(16),
    issued_at=NOW,
    expires_at=NOW + 60,
    module_digest=digest(MODULE),
    input_digest=digest(INPUT),
    limits=LIMITS,
)
BODY = sign_job(CALLER, STATEMENT, MODULE, INPUT)
GRANT = Grant(
    grant_id="00" * 16,
    audience=HOST.key_id,
    gateway=GATEWAY.key_id,
    session="session",
    principal=CALLER.key_id,
    body_digest=digest(BODY),
    limits=LIMITS,
    bundle_digest="b" * 64,
    attestation_digest="a" * 64,
    issued_at=NOW,
    expires_at=NOW + 60,
)


@dataclass
class Host:
    """An agent's side of admission: what it trusts, allows and remembers."""

    trust: TrustList = TRUST
    ceiling: JobLimits = LIMITS
    now: int = NOW
    spent: SpentIds = field(default_factory=SpentIds)

    def admit(self, presented: Presented) -> Admitted:
        return admit(
            presented,
            key=KEY,
            gateway=GATEWAY.key_id,
            host=HOST.key_id,
            trust=self.trust,
            ceiling=self.ceiling,
            spent=self.spent,
            now=self.now,
        )

    def refuse(self, presented: Presented) -> str:
        with pytest.raises(RingfenceError) as caught:
            self.admit(presented)
        return caught.value.code.name


def present(body: bytes = BODY, **changes: object) -> Presented:
    """What a gateway with the channel's key can hand over: `body` with a grant for it, changed as asked."""
    grant = msgspec.structs.replace(GRANT, **{"body_digest": digest(body), **changes})
    return Presented(*seal_grant(KEY, grant), body)


def signed(*, by: KeyPair = CALLER, module: bytes = MODULE, **changes: object) -> bytes:
    """A submission signed by `by`, its statement changed as asked."""
    return sign_job(by, msgspec.structs.replace(STATEMENT, **changes), module, INPUT)


def repacked(**changes: bytes) -> bytes:
    """The caller's own submission with parts of it exchanged by whoever carries it."""
    return msgspec.msgpack.encode(msgspec.structs.replace(msgspec.msgpack.decode(BODY, type=Submission), **changes))


def test_a_job_that_both_want_is_admitted_and_spent() -> None:
    host = Host()
    admitted = host.admit(present())
    assert (admitted.grant, admitted.statement) == (GRANT, STATEMENT)
    assert (admitted.submission.module, admitted.submission.input) == (MODULE, INPUT)
    assert len(host.spent) == 2


FORGED: dict[str, tuple[Callable[[], Presented], str]] = {
    "no tag": (lambda: replace(present(), tag=b""), "grant.forged"),
    "a tag by another key": (lambda: replace(present(), tag=mac(bytes(32), present().grant)), "grant.forged"),
    "a changed grant": (lambda: replace(present(), grant=present(session="other").grant), "grant.forged"),
    "garbage under the channel's key": (lambda: Presented(b"{}", mac(KEY, b"{}"), BODY), "grant.malformed"),
    "an empty grant": (lambda: Presented(b"", mac(KEY, b""), BODY), "grant.malformed"),
    "an oversized grant": (lambda: present(session="s" * 5000), "grant.malformed"),
    "a grant for another host": (lambda: present(audience=STRANGER.key_id), "grant.wrong_audience"),
    "a grant by another gateway": (lambda: present(gateway=STRANGER.key_id), "grant.wrong_audience"),
    "an expired grant": (lambda: present(issued_at=NOW - 60, expires_at=NOW), "grant.expired"),
    "a grant from the future": (
        lambda: present(issued_at=NOW + GRANT_LIFETIME_S + 1, expires_at=NOW + GRANT_LIFETIME_S + 2),
        "grant.expired",
    ),
    "a grant that lives too long": (lambda: present(expires_at=NOW + GRANT_LIFETIME_S + 1), "grant.expired"),
    "a grant that never lived": (lambda: present(issued_at=NOW + 2, expires_at=NOW + 1), "grant.expired"),
    "a body cut short": (lambda: replace(present(), body=BODY[:-1]), "grant.body_mismatch"),
    "a body with more": (lambda: replace(present(), body=BODY + b"\0"), "grant.body_mismatch"),
    "no body": (lambda: replace(present(), body=b""), "grant.body_mismatch"),
    "the body of another job": (lambda: replace(present(), body=signed(nonce=b"n" * 16)), "grant.body_mismatch"),
    "garbage for a body": (lambda: present(b"\xc1garbage"), "job.malformed"),
    "a short nonce": (lambda: present(signed(nonce=b"")), "job.malformed"),
    "a negative limit": (
        lambda: present(signed(limits=msgspec.structs.replace(LIMITS, qubits=-1))),
        "job.malformed",
    ),
    "an unknown principal": (
        lambda: present(signed(by=STRANGER, principal=STRANGER.key_id), principal=STRANGER.key_id),
        "job.principal_unknown",
    ),
    "a gateway as principal": (
        lambda: present(signed(by=GATEWAY, principal=GATEWAY.key_id), principal=GATEWAY.key_id),
        "job.principal_unknown",
    ),
    "a grant for another principal": (lambda: present(principal=OTHER.key_id), "job.principal_unknown"),
    "a job invented by the gateway": (lambda: present(signed(by=GATEWAY)), "job.signature_invalid"),
    "a job signed by another client": (lambda: present(signed(by=OTHER)), "job.signature_invalid"),
    "no signature": (lambda: present(repacked(signature=b"")), "job.signature_invalid"),
    "a changed statement": (
        lambda: present(
            repacked(statement=msgspec.msgpack.encode(msgspec.structs.replace(STATEMENT, nonce=b"n" * 16)))
        ),
        "job.signature_invalid",
    ),
    "a signature made for something else": (
        lambda: present(repacked(signature=CALLER.sign(msgspec.msgpack.encode(STATEMENT), RECEIPT_CONTEXT))),
        "job.signature_invalid",
    ),
    "a job for another host": (lambda: present(signed(host=STRANGER.key_id)), "job.wrong_host"),
    "an expired job": (lambda: present(signed(issued_at=NOW - 60, expires_at=NOW)), "job.expired"),
    "a job from the future": (lambda: present(signed(issued_at=NOW + 31, expires_at=NOW + 40)), "job.expired"),
    "a job that lives too long": (lambda: present(signed(expires_at=NOW + MAX_JOB_LIFETIME_S + 1)), "job.expired"),
    "a job that never lived": (lambda: present(signed(issued_at=NOW + 2, expires_at=NOW + 1)), "job.expired"),
    "another module": (lambda: present(repacked(module=b"\0asm evil")), "job.digest_mismatch"),
    "another input": (lambda: present(repacked(input=b"")), "job.digest_mismatch"),
}


@pytest.mark.parametrize("case", FORGED)
def test_whatever_is_not_exactly_right_is_refused_and_spends_nothing(case: str) -> None:
    make, code = FORGED[case]
    host = Host()
    assert host.refuse(make()) == code
    assert len(host.spent) == 0
    host.admit(present())


def test_the_signature_context_is_the_jobs_own() -> None:
    statement = msgspec.msgpack.encode(STATEMENT)
    Host().admit(present(repacked(signature=CALLER.sign(statement, JOB_CONTEXT))))


@pytest.mark.parametrize("name", LIMITS.__struct_fields__)
def test_no_limit_may_exceed_the_grants_or_the_hosts(name: str) -> None:
    less = msgspec.structs.replace(LIMITS, **{name: getattr(LIMITS, name) - 1})
    assert Host().refuse(present(limits=less)) == "job.limits_exceed_grant"
    assert Host(ceiling=less).refuse(present()) == "job.limits_exceed_grant"
    Host().admit(present(signed(limits=less)))


def test_a_pin_that_has_expired_or_is_gone_admits_nothing() -> None:
    expired = Pin("caller", Role.CLIENT, CALLER.public, NOW, expires_at=NOW)
    for trust in (TrustList((expired,)), TrustList()):
        assert Host(trust=trust).refuse(present()) == "job.principal_unknown"


def test_a_grant_admits_once() -> None:
    host = Host()
    host.admit(present())
    assert host.refuse(present()) == "grant.already_spent"
    assert host.refuse(present(signed(nonce=b"n" * 16))) == "grant.already_spent"


def test_a_job_runs_once_whatever_grants_are_given_for_it() -> None:
    host = Host()
    host.admit(present())
    assert host.refuse(present(grant_id="11" * 16)) == "job.replayed"
    other = signed(by=OTHER, principal=OTHER.key_id)
    host.admit(present(other, grant_id="22" * 16, principal=OTHER.key_id))


def test_a_clock_that_jumps_ahead_and_back_reopens_neither_grant_nor_job() -> None:
    host = Host()
    host.admit(present())
    host.now = NOW + 61
    later, until = host.now, host.now + 60
    next_job = signed(nonce=b"n" * 16, issued_at=later, expires_at=until)
    host.admit(present(next_job, grant_id="11" * 16, issued_at=later, expires_at=until))
    host.now = NOW + 30
    assert host.refuse(present()) == "grant.already_spent"
    # A fresh grant outlives the jump; the caller's own statement must not.
    assert host.refuse(present(grant_id="22" * 16, issued_at=later, expires_at=until)) == "job.replayed"


async def test_what_was_spent_stays_spent_across_a_restart(tmp_path: Path) -> None:
    admitted = Host().admit(present())
    with _log(tmp_path) as log:
        record = audit.Job(
            event="admitted",
            job_id="job",
            grant_id=admitted.grant.grant_id,
            nonce=admitted.nonce_id,
            spent_until=admitted.spent_until,
        )
        await log.durable(log.append(record))
    with _log(tmp_path) as log:
        recovered = recover_spent(log, now=NOW + 1)
        after_a_jump = recover_spent(log, now=NOW + 100)
    assert Host(spent=recovered).refuse(present()) == "grant.already_spent"
    assert Host(spent=recovered).refuse(present(grant_id="11" * 16)) == "job.replayed"
    # The clock was ahead at the restart and has been set back since.
    assert Host(spent=after_a_jump).refuse(present()) == "grant.already_spent"
    fresh = present(grant_id="11" * 16, issued_at=NOW + 60, expires_at=NOW + 120)
    assert Host(spent=after_a_jump).refuse(fresh) == "job.replayed"


def _log(folder: Path) -> Any:
    return audit.AuditLog.open(folder, HOST, clock_ns=lambda: NOW * 10**9, verify=COMPOSITE.verify)
