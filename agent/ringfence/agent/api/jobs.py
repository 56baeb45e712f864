"""Jobs on the wire: what a caller signs, what it submits, and the receipt that it gets back. Pure.

A caller signs the *bytes* of a statement, and the bytes travel as signed. They are parsed before the signature is
checked only to look the caller's key up. All digests are SHA-256.
"""

from __future__ import annotations

from typing import Final

import msgspec
import msgspec.structs

from ringfence.agent.api.errors import (
    JOB_DIGEST,
    JOB_EXPIRED,
    JOB_MALFORMED,
    JOB_MISDIRECTED,
    JOB_SIGNATURE,
    RECEIPT_INVALID,
    JobError,
)
from ringfence.agent.sandbox.levels import Level as Level  # part of the job's statement, and so of this interface
from ringfence.agent.sandbox.levels import ResultType as ResultType
from ringfence.crypto import COMPOSITE, CryptoError, Signer, digest, key_id

JOB_CONTEXT: Final = b"ringfence job statement 1"
RECEIPT_CONTEXT: Final = b"ringfence job receipt 1"
HOST_PROOF_CONTEXT: Final = b"ringfence host proof 1"
MAX_JOB_LIFETIME_S: Final = 600
_NONCE = 16
_DIGEST = 32


class JobLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a job may use, in bytes, milliseconds and qubits; 0 qubits means no quantum device.

    `compute_units` is its share of thread time, of 64: under contention twice the units get twice the time.
    """

    memory_bytes: int
    gpu_memory_bytes: int
    deadline_ms: int
    output_bytes: int
    qubits: int
    compute_units: int = 64

    def within(self, ceiling: JobLimits) -> bool:
        """Whether no limit is above `ceiling`."""
        return all(mine <= theirs for mine, theirs in zip(self.as_tuple(), ceiling.as_tuple(), strict=True))

    def as_tuple(self) -> tuple[int, ...]:
        """Every limit, in the order of the fields."""
        return msgspec.structs.astuple(self)


class JobStatement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the caller asks for, of which host, until when; how its module is checked, and what its result is to be."""

    host: str
    principal: str
    nonce: bytes
    issued_at: int
    expires_at: int
    module_digest: bytes
    input_digest: bytes
    limits: JobLimits
    level: Level = Level.HIGH
    result: ResultType = ResultType.BYTES


class Submission(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request: a statement, its signature, and what it speaks of."""

    statement: bytes
    signature: bytes
    module: bytes
    input: bytes


class Usage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a job used."""

    wall_ms: float
    cpu_ms: float
    peak_memory_bytes: int
    peak_gpu_bytes: int
    launches: int
    gates: int
    measurements: int
    checkpoints: int


class ActiveJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A job that runs now: since when (seconds since the Unix epoch), with which limits and level, its use so far."""

    job_id: str
    since: int
    level: Level
    limits: JobLimits
    usage: Usage


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the agent signs about a job it admitted; `code` is empty when the guest finished.

    `level` is the one that the module was checked at, `result` the type that the output was declared to be of.
    """

    job_id: str
    host: str
    principal: str
    session: str
    grant_id: str
    statement_digest: bytes
    module_digest: bytes
    input_digest: bytes
    result_digest: bytes
    bundle_digest: str
    attestation_digest: str
    limits: JobLimits
    level: Level
    result: ResultType
    usage: Usage
    code: str
    started_at: int
    finished_at: int


def sign_job(signer: Signer, statement: JobStatement, module: bytes, input_: bytes) -> bytes:
    """The submission of a job, ready to be sent."""
    encoded = msgspec.msgpack.encode(statement)
    return msgspec.msgpack.encode(Submission(encoded, signer.sign(encoded, JOB_CONTEXT), module, input_))


def parse_submission(body: bytes) -> tuple[Submission, JobStatement]:
    """A submission and its statement, neither authenticated yet."""
    try:
        submission = msgspec.msgpack.decode(body, type=Submission)
        statement = msgspec.msgpack.decode(submission.statement, type=JobStatement)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JobError(JOB_MALFORMED, f"The submission does not parse: {error}.", field="body") from None
    if len(statement.nonce) != _NONCE:
        raise JobError(JOB_MALFORMED, f"The nonce has {len(statement.nonce)} bytes, not {_NONCE}.", field="nonce")
    for name, value in (("module_digest", statement.module_digest), ("input_digest", statement.input_digest)):
        if len(value) != _DIGEST:
            raise JobError(JOB_MALFORMED, f"The digest has {len(value)} bytes, not {_DIGEST}.", field=name)
    if any(limit < 0 for limit in statement.limits.as_tuple()):
        raise JobError(JOB_MALFORMED, "A limit is negative.", field="limits")
    return submission, statement


def check_submission(submission: Submission, statement: JobStatement, *, principal: bytes, host: str, now: int) -> None:
    """Raises `JobError` unless `principal` (a public key) signed exactly this job for `host`, and it is still valid."""
    try:
        COMPOSITE.verify(principal, submission.statement, submission.signature, JOB_CONTEXT)
    except CryptoError:
        raise JobError(JOB_SIGNATURE, "The caller's signature over the job does not hold.", field="signature") from None
    if statement.principal != key_id(principal):
        raise JobError(JOB_SIGNATURE, "The job names another principal than its signer.", field="principal")
    if statement.host != host:
        raise JobError(JOB_MISDIRECTED, f"The job is for host {statement.host}, this is {host}.", field="host")
    lifetime = statement.expires_at - statement.issued_at
    if not 0 < lifetime <= MAX_JOB_LIFETIME_S or not statement.issued_at - 30 <= now < statement.expires_at:
        raise JobError(
            JOB_EXPIRED, "The job is not valid at this time.", field="expires_at", hint="Sign the job again."
        )
    if digest(submission.module) != statement.module_digest:
        raise JobError(JOB_DIGEST, "The module is not the one that the caller signed.", field="module")
    if digest(submission.input) != statement.input_digest:
        raise JobError(JOB_DIGEST, "The input is not the one that the caller signed.", field="input")


def sign_receipt(signer: Signer, receipt: Receipt) -> tuple[bytes, bytes]:
    """A receipt's bytes and the agent's signature over them."""
    encoded = msgspec.msgpack.encode(receipt)
    return encoded, signer.sign(encoded, RECEIPT_CONTEXT)


def check_receipt(encoded: bytes, signature: bytes, *, agent: bytes) -> Receipt:
    """The receipt, proven to be signed by `agent` (the public key that the attestation result names)."""
    try:
        COMPOSITE.verify(agent, encoded, signature, RECEIPT_CONTEXT)
        receipt = msgspec.msgpack.decode(encoded, type=Receipt)
    except CryptoError:
        raise JobError(RECEIPT_INVALID, "The receipt is not signed by the attested agent.", field="receipt") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JobError(RECEIPT_INVALID, f"The receipt does not parse: {error}.", field="receipt") from None
    if receipt.host != key_id(agent):
        raise JobError(RECEIPT_INVALID, "The receipt names another host than its signer.", field="host")
    return receipt


def encode_active(jobs: tuple[ActiveJob, ...]) -> bytes:
    """What runs on a host, as its agent tells it."""
    return msgspec.msgpack.encode(jobs)


def decode_active(encoded: bytes) -> tuple[ActiveJob, ...]:
    """What an agent says that runs. Raises `JobError` (`job.malformed`)."""
    try:
        return msgspec.msgpack.decode(encoded, type=tuple[ActiveJob, ...])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JobError(JOB_MALFORMED, f"The list of jobs does not parse: {error}.", field="jobs") from None


def host_proof_message(nonce: bytes, gateway: str) -> bytes:
    """What the agent signs to take part in a session: the session's nonce and whose gateway it is."""
    return nonce + gateway.encode()
