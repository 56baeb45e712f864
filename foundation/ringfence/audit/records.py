"""The typed records of the audit log and their canonical encoding, one JSON line a record.

A line is, without any space and with the fields in exactly this order:

    {"v":1,"seq":N,"time_ns":T,"prev":"HASH","kind":"KIND","data":{...}}\\n

- `v`       version of the whole schema (the envelope and every kind), now 1
- `seq`     1 for the first record of a log, then one more for each
- `time_ns` nanoseconds since the Unix epoch by the writer's clock; it may step back when that clock does
- `prev`    lowercase hexadecimal SHA-256 of the previous line, its newline included; 64 zeros in the first line
- `kind`    names the type of `data`: decision, session, attestation, job, operator or suppression
- `data`    the record's fields in the order of its class below, none left out

The encoding is canonical: UTF-8, only the escapes that RFC 8259 section 7 requires (the short form where there is
one, `\\u00xx` in lowercase otherwise), integers without fraction or exponent. A line that would not be written again
byte for byte is refused. Lines are at most `MAX_LINE` bytes.

No record has a free-form field: identifiers, codes, digests and numbers are all there is room for, so that a payload,
a token or a key cannot be logged by accident. Digests are lowercase hexadecimal SHA-256, or empty where there is none.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

import msgspec

from ringfence.audit.errors import BAD_RECORD, CORRUPT, AuditError

VERSION = 1
GENESIS = "0" * 64
MAX_LINE = 65_536
"""Longest line in bytes, newline included."""

Identifier = Annotated[str, msgspec.Meta(max_length=256)]
Resource = Annotated[str, msgspec.Meta(max_length=4096)]
Digest = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Position = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """One stage of a decision, written as the array `[name, verdict, code, micros]`."""

    name: Identifier
    verdict: Identifier
    code: Identifier
    micros: Count


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A gateway's verdict on opening a session or on a request (`pipeline`)."""

    kind: ClassVar[str] = "decision"

    decision_id: Identifier
    pipeline: Literal["session", "request"]
    verdict: Literal["allow", "deny"]
    code: Identifier = ""
    session: Identifier = ""
    principal: Identifier = ""
    action: Identifier = ""
    resource: Resource = ""
    stages: Annotated[tuple[Stage, ...], msgspec.Meta(max_length=32)] = ()
    policies: Annotated[tuple[Identifier, ...], msgspec.Meta(max_length=32)] = ()
    bundle_digest: Digest = ""
    attestation_digest: Digest = ""
    grant_id: Identifier = ""
    body_digest: Digest = ""
    duration_us: Count = 0


class Session(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A session was opened or closed. `expires_at` in seconds since the epoch."""

    kind: ClassVar[str] = "session"

    event: Literal["opened", "closed"]
    session: Identifier
    principal: Identifier
    code: Identifier = ""
    key_id: Identifier = ""
    agent_key_id: Identifier = ""
    attestation_digest: Digest = ""
    bundle_digest: Digest = ""
    expires_at: Count = 0


class Attestation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An attestation result was issued, accepted or refused. `status` is the EAR's (or `none`)."""

    kind: ClassVar[str] = "attestation"

    event: Literal["issued", "accepted", "refused"]
    host_key_id: Identifier
    status: Identifier
    code: Identifier = ""
    verifier_key_id: Identifier = ""
    result_digest: Digest = ""
    expires_at: Count = 0


class JobLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The limits in force for one job: bytes, milliseconds, qubits."""

    memory_bytes: Count = 0
    gpu_memory_bytes: Count = 0
    deadline_ms: Count = 0
    output_bytes: Count = 0
    qubits: Count = 0


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the agent did with a job. An `admitted` one has spent its grant id and the caller's nonce for good.

    A job that was refused before it was admitted has no limits.
    """

    kind: ClassVar[str] = "job"

    event: Literal["admitted", "finished", "refused", "killed"]
    job_id: Identifier
    principal: Identifier = ""
    grant_id: Identifier = ""
    spent_until: Count = 0
    nonce: Identifier = ""
    code: Identifier = ""
    module_digest: Digest = ""
    input_digest: Digest = ""
    result_digest: Digest = ""
    receipt_digest: Digest = ""
    limits: JobLimits | None = None
    duration_us: Count = 0


class Operator(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A process was started or stopped, or its configuration, trust list or policy bundle was loaded."""

    kind: ClassVar[str] = "operator"

    event: Literal["started", "stopped", "configuration", "trust", "policies"]
    component: Identifier
    version: Identifier = ""
    digest: Digest = ""


class Suppression(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """So many `refusals` of one source had no record of their own since its last such record; `code` says why."""

    kind: ClassVar[str] = "suppression"

    code: Identifier
    source: Identifier
    refusals: Position


Record = Decision | Session | Attestation | Job | Operator | Suppression

_TYPES = (Decision, Session, Attestation, Job, Operator, Suppression)
_DECODERS: MappingProxyType[str, msgspec.json.Decoder[Record]] = MappingProxyType(
    {record.kind: msgspec.json.Decoder(record) for record in _TYPES}
)
KINDS: tuple[str, ...] = tuple(_DECODERS)


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: Literal[1]
    seq: Position
    time_ns: Count
    prev: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    kind: Identifier
    data: msgspec.Raw


_ENVELOPE = msgspec.json.Decoder(_Envelope)


@dataclass(frozen=True, slots=True)
class Entry:
    """One record in its place in the log."""

    seq: int
    time_ns: int
    prev: str
    record: Record


def encode_body(record: Record) -> bytes:
    """The part of a record's line that does not depend on its place: `"kind":...,"data":{...}}` and the newline.

    Raises AuditError(audit.bad_record) for a value that the log could not read back, so that one wrongly filled
    record never makes the log unreadable.
    """
    try:
        data = msgspec.json.encode(record)
        same = _DECODERS[record.kind].decode(data) == record
    except (ValueError, TypeError, OverflowError) as error:
        raise _bad_record(record.kind, str(error)) from error
    if not same:
        raise _bad_record(record.kind, "a field holds a value of another type than it declares")
    if len(data) > MAX_LINE - 512:
        raise _bad_record(record.kind, f"it takes {len(data)} bytes and a line holds at most {MAX_LINE}")
    return _body(record.kind, data)


def encode_line(seq: int, time_ns: int, prev: str, body: bytes) -> bytes:
    """A whole line, newline included, from `encode_body`'s result and its place."""
    return b'{"v":%d,"seq":%d,"time_ns":%d,"prev":"%s",%s' % (VERSION, seq, time_ns, prev.encode(), body)


def line_hash(line: bytes) -> str:
    """What the next line's `prev` must be: the hexadecimal SHA-256 of the line with its newline."""
    return hashlib.sha256(line).hexdigest()


def decode_line(line: bytes) -> Entry:
    """The record of one line (newline included). Raises AuditError(audit.corrupt) for anything but a canonical line."""
    if len(line) > MAX_LINE:
        raise _unreadable(f"it is longer than {MAX_LINE} bytes")
    try:
        envelope = _ENVELOPE.decode(line)
        decoder = _DECODERS.get(envelope.kind)
        if decoder is None:
            raise _unreadable("its kind is not one that this version knows")
        record = decoder.decode(envelope.data)
        body = _body(record.kind, msgspec.json.encode(record))
    except (ValueError, RecursionError) as error:
        raise _unreadable(str(error)) from error
    if encode_line(envelope.seq, envelope.time_ns, envelope.prev, body) != line:
        raise _unreadable("it is not in the canonical encoding")
    return Entry(envelope.seq, envelope.time_ns, envelope.prev, record)


def _body(kind: str, data: bytes) -> bytes:
    return b'"kind":"%s","data":%s}\n' % (kind.encode(), data)


def _bad_record(kind: str, reason: str) -> AuditError:
    return AuditError(
        BAD_RECORD,
        f"A {kind} record cannot be logged: {reason}.",
        field=kind,
        hint="Fill the record with the types and lengths that its class declares.",
    )


def _unreadable(reason: str) -> AuditError:
    return AuditError(CORRUPT, f"The line is not a record: {reason}.")
