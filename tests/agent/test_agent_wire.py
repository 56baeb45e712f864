"""The agent's wire values: receipts, submissions, grants and errors decode to what was meant or to one clear error."""

from __future__ import annotations

import msgspec
import msgspec.structs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ringfence.agent.api import failures
from ringfence.agent.api.errors import JOB_MALFORMED, RECEIPT_INVALID, GrantError, JobError
from ringfence.agent.api.grants import open_grant
from ringfence.agent.api.jobs import (
    HOST_PROOF_CONTEXT,
    JOB_CONTEXT,
    RECEIPT_CONTEXT,
    JobLimits,
    JobStatement,
    Level,
    Receipt,
    ResultType,
    Submission,
    Usage,
    check_receipt,
    check_submission,
    host_proof_message,
    parse_submission,
    sign_job,
    sign_receipt,
)
from ringfence.crypto import COMPOSITE, digest, mac
from ringfence.errors import Code, Kind, RingfenceError
from ringfence.trust import KeyPair

AGENT, OTHER = KeyPair(*COMPOSITE.generate()), KeyPair(*COMPOSITE.generate())
LIMITS = JobLimits(memory_bytes=1, gpu_memory_bytes=2, deadline_ms=3, output_bytes=4, qubits=5, compute_units=6)
RECEIPT = Receipt(
    job_id="job",
    host=AGENT.key_id,
    principal=OTHER.key_id,
    session="session",
    grant_id="grant",
    statement_digest=bytes(32),
    module_digest=bytes(32),
    input_digest=bytes(32),
    result_digest=bytes(32),
    bundle_digest="b" * 64,
    attestation_digest="a" * 64,
    limits=LIMITS,
    level=Level.QUANTUM,
    result=ResultType.F64,
    usage=Usage(1.0, 2.0, 3, 4, 5, 6, 7, 8),
    code="",
    started_at=1,
    finished_at=2,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def refuse_receipt(encoded: bytes, signature: bytes, agent: bytes = AGENT.public) -> None:
    with pytest.raises(JobError) as caught:
        check_receipt(encoded, signature, agent=agent)
    assert caught.value.code is RECEIPT_INVALID


def test_a_receipt_holds_under_its_agents_key_only() -> None:
    encoded, signature = sign_receipt(AGENT, RECEIPT)
    assert check_receipt(encoded, signature, agent=AGENT.public) == RECEIPT
    refuse_receipt(encoded, signature, OTHER.public)
    refuse_receipt(encoded, signature, b"")
    refuse_receipt(encoded + b"\0", signature)
    refuse_receipt(encoded, signature[:-1])
    refuse_receipt(*sign_receipt(OTHER, RECEIPT), OTHER.public)


def test_only_a_signature_made_for_a_receipt_makes_one() -> None:
    encoded = msgspec.msgpack.encode(RECEIPT)
    for context in (b"", JOB_CONTEXT, HOST_PROOF_CONTEXT):
        refuse_receipt(encoded, AGENT.sign(encoded, context))


@pytest.mark.parametrize("encoded", [b"", b"\xc1", b"\x80", msgspec.msgpack.encode({"job_id": "job"})])
def test_a_signed_receipt_that_does_not_parse_is_refused(encoded: bytes) -> None:
    refuse_receipt(encoded, AGENT.sign(encoded, RECEIPT_CONTEXT))


@given(st.binary(max_size=200))
@example(b"\x91" * 20_000)
@example(msgspec.msgpack.encode({"statement": b"\x80", "signature": b"", "module": b"", "input": b""}))
def test_a_garbage_submission_is_malformed(body: bytes) -> None:
    with pytest.raises(JobError) as caught:
        parse_submission(body)
    assert caught.value.code is JOB_MALFORMED


@given(st.binary(max_size=200))
@example(b"\x81" * 4096)
def test_a_garbage_grant_is_an_error_of_ours_even_when_authentic(encoded: bytes) -> None:
    with pytest.raises(GrantError) as caught:
        open_grant(b"key", encoded, mac(b"key", encoded), audience="host", gateway="gateway", now=0)
    assert caught.value.code.name == "grant.malformed"


@given(*[st.tuples(*[st.integers(0, 3)] * 6)] * 2)
def test_limits_are_within_others_when_none_is_above(mine: tuple[int, ...], theirs: tuple[int, ...]) -> None:
    expected = all(one <= other for one, other in zip(mine, theirs, strict=True))
    assert JobLimits(*mine).within(JobLimits(*theirs)) is expected


def test_a_statement_names_its_signer() -> None:
    statement = JobStatement(AGENT.key_id, OTHER.key_id, bytes(16), 1, 2, digest(b""), digest(b""), LIMITS)
    submission, parsed = parse_submission(sign_job(OTHER, statement, b"", b""))
    check_submission(submission, parsed, principal=OTHER.public, host=AGENT.key_id, now=1)
    in_its_name, parsed = parse_submission(sign_job(AGENT, statement, b"", b""))
    with pytest.raises(JobError) as caught:
        check_submission(in_its_name, parsed, principal=AGENT.public, host=AGENT.key_id, now=1)
    assert (caught.value.code.name, caught.value.field) == ("job.signature_invalid", "principal")


def statement_with(**changes: object) -> bytes:
    """A submission whose signed statement says `changes`, whatever they are."""
    statement = JobStatement(AGENT.key_id, OTHER.key_id, bytes(16), 1, 2, digest(b""), digest(b""), LIMITS)
    encoded = msgspec.msgpack.encode(msgspec.to_builtins(statement, builtin_types=[bytes]) | changes)
    return msgspec.msgpack.encode(Submission(encoded, OTHER.sign(encoded, JOB_CONTEXT), b"", b""))


def test_a_statement_names_its_level_and_the_type_of_its_result() -> None:
    submission, statement = parse_submission(statement_with(level="quantum", result="f32"))
    check_submission(submission, statement, principal=OTHER.public, host=AGENT.key_id, now=1)
    assert (statement.level, statement.result) == (Level.QUANTUM, ResultType.F32)


@pytest.mark.parametrize(
    "changes", [{"level": "higher"}, {"level": ""}, {"level": 3}, {"result": "i16"}, {"result": None}, {"mode": "high"}]
)
def test_a_level_or_a_type_that_does_not_exist_is_malformed(changes: dict[str, object]) -> None:
    with pytest.raises(JobError) as caught:
        parse_submission(statement_with(**changes))
    assert caught.value.code is JOB_MALFORMED
    assert next(iter(changes)) in caught.value.message


def test_a_level_cannot_be_changed_under_the_caller_s_signature() -> None:
    signed, _ = parse_submission(statement_with(level="quantum"))
    weaker, statement = parse_submission(statement_with(level="low"))
    moved = msgspec.structs.replace(weaker, signature=signed.signature)
    with pytest.raises(JobError) as caught:
        check_submission(moved, statement, principal=OTHER.public, host=AGENT.key_id, now=1)
    assert caught.value.code.name == "job.signature_invalid"


def test_a_host_proof_names_nonce_and_gateway() -> None:
    """The nonce has a fixed size, so no two pairs share a message."""
    messages = {host_proof_message(nonce, key) for nonce in (bytes(32), b"\1" * 32) for key in ("rf1a", "rf1b")}
    assert len(messages) == 4


@given(code=TEXT, kind=st.sampled_from(Kind), message=TEXT, field=TEXT, hint=TEXT)
def test_an_error_crosses_grpc_unchanged(code: str, kind: Kind, message: str, field: str, hint: str) -> None:
    sent = RingfenceError(Code(code, kind), message, field=field, hint=hint)
    received = failures.decode([("other", b""), *failures.encode(sent)])
    assert received is not None
    assert (received.code, received.message, received.field, received.hint) == (sent.code, message, field, hint)


@given(st.binary(max_size=100) | st.text(max_size=20))
@example(b"\xc1")
@example(msgspec.msgpack.encode({"code": "a"}))
def test_metadata_that_is_no_error_gives_none(value: bytes | str) -> None:
    assert failures.decode([(failures.TRAILER, value)]) is None


def test_no_metadata_gives_none_and_an_unknown_kind_is_internal() -> None:
    assert failures.decode(None) is None
    assert failures.decode([]) is None
    assert failures.rebuild("a.b", "NEWER", "message").code.kind is Kind.INTERNAL
