"""What a caller asks for is what its receipt must speak of: level, result and limits are the ones that it signed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

import msgspec
import msgspec.structs
import pytest

from ringfence.agent.api.grants import CHANNEL_PURPOSE
from ringfence.agent.api.jobs import Receipt, Usage, parse_submission, sign_receipt
from ringfence.agent.channels import Channels
from ringfence.attestation import Status
from ringfence.attestation.result import AttestationResult
from ringfence.attestation.result import digest as result_digest
from ringfence.client import Client, ClientError, JobLimits, JobResult, Level, ResultType, Session
from ringfence.client.transport import Answer
from ringfence.crypto import COMPOSITE, digest
from ringfence.crypto.handshake import Established, Initiator
from ringfence.plugin.api import MSGPACK, JobAnswer, SessionParameters
from ringfence.trust import KeyPair, Pin, Role, TrustList

NOW = 1_800_000_000
CALLER, GATEWAY, HOST, VERIFIER = (KeyPair(*COMPOSITE.generate()) for _ in range(4))
LIMITS = JobLimits(2**20, 2**20, 1000, 100, 0, 32)
ATTESTED = AttestationResult(
    issuer=VERIFIER.key_id,
    subject=HOST.key_id,
    agent_key=HOST.public,
    status=Status.AFFIRMING,
    score=Status.AFFIRMING.score,
    reasons=(),
    issued_at=NOW,
    expires_at=NOW + 300,
    evidence_digest="e" * 64,
)
PARAMETERS = SessionParameters("result", b"", "b" * 64, "decision", ())


class Service:
    """A gateway and its host in one: answers a submission with output and a receipt, changed as a test says."""

    authority = "localhost"

    def __init__(self) -> None:
        self.session = ""
        self.change: Callable[[Receipt], Receipt] = lambda receipt: receipt

    def post(self, path: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float) -> Answer:  # noqa: ARG002
        submission, statement = parse_submission(body)
        receipt = Receipt(
            job_id="job",
            host=HOST.key_id,
            principal=CALLER.key_id,
            session=self.session,
            grant_id="grant",
            statement_digest=digest(submission.statement),
            module_digest=statement.module_digest,
            input_digest=statement.input_digest,
            result_digest=digest(b"42"),
            bundle_digest=PARAMETERS.bundle_digest,
            attestation_digest=result_digest(PARAMETERS.attestation),
            limits=statement.limits,
            level=statement.level,
            result=statement.result,
            usage=Usage(1.0, 1.0, 1, 0, 0, 0, 0, 0),
            code="",
            started_at=NOW,
            finished_at=NOW,
        )
        answer = JobAnswer(b"42", *sign_receipt(HOST, self.change(receipt)), "decision", "grant", LIMITS, ())
        return Answer(200, MSGPACK, msgspec.msgpack.encode(answer))


def established() -> Established:
    """A session's keys: any channel's do."""
    channels = Channels(
        HOST, lambda: TrustList((Pin("front", Role.GATEWAY, GATEWAY.public, NOW),)), secrets.token_bytes
    )
    initiator = Initiator.start(GATEWAY, HOST.public, CHANNEL_PURPOSE, now=NOW, random=secrets.token_bytes)
    return initiator.finish(channels.open(initiator.message, now=NOW))


KEYS = established()


@pytest.fixture
def service() -> Service:
    made = Service()
    made.session = KEYS.name
    return made


@pytest.fixture
def session(service: Service) -> Session:
    client = Client(
        "", CALLER, gateway=GATEWAY.public, verifiers=[VERIFIER.public], clock=lambda: NOW, exchange=service
    )
    return Session(client, KEYS, PARAMETERS, ATTESTED)


def submit(session: Session) -> JobResult:
    return session.submit(b"module", b"input", limits=LIMITS, level=Level.QUANTUM, result=ResultType.F64)


def test_a_job_carries_the_level_and_the_type_of_its_result(session: Session) -> None:
    receipt = submit(session).receipt
    assert (receipt.level, receipt.result, receipt.limits) == (Level.QUANTUM, ResultType.F64, LIMITS)


def test_a_job_is_checked_at_level_high_unless_asked(session: Session) -> None:
    _, statement = parse_submission(session.sign_job(b"module", b"input"))
    assert (statement.level, statement.result, statement.limits.compute_units) == (Level.HIGH, ResultType.BYTES, 64)


@pytest.mark.parametrize(
    "changes",
    [
        {"level": Level.LOW},
        {"result": ResultType.BYTES},
        {"limits": msgspec.structs.replace(LIMITS, compute_units=64)},
        {"statement_digest": bytes(32)},
    ],
)
def test_a_receipt_of_something_else_is_no_proof(
    session: Session, service: Service, changes: dict[str, object]
) -> None:
    service.change = lambda receipt: msgspec.structs.replace(receipt, **changes)
    with pytest.raises(ClientError) as caught:
        submit(session)
    assert (caught.value.code.name, caught.value.field) == ("client.receipt_mismatch", next(iter(changes)))
