"""The typed records of the audit log and their canonical encoding, one JSON line a record.

A line is, without any space and with the fields in exactly this order:

    {"v":2,"seq":N,"base":B,"prev":"HASH","time_ns":T,"kind":"KIND/VERSION","data":{...}}

- `v`       version of this envelope, now 2
- `seq`     1 for the first record of a log, then one more for each
- `base`    how many records were durable when this line was written: the same for all lines of one group commit, and
            one less than the `seq` of its first. After a power cut it tells a commit that nobody was told of from one
            that was acknowledged: a line whose `base` is `B` proves that the records up to `B` were on the disk
- `prev`    lowercase hexadecimal leaf hash (RFC 9162: SHA-256 over a zero byte and the line without its newline) of
            the line before; 64 zeros in the first
- `time_ns` nanoseconds since the Unix epoch by the writer's clock; it may step back when that clock does
- `kind`    names the type of `data` and the version of its schema, such as `decision/1`
- `data`    the record's fields in the order of its class below, none left out

The encoding is canonical: UTF-8, only the escapes that RFC 8259 section 7 requires (the short form where there is
one, `\\u00xx` in lowercase otherwise), integers without fraction or exponent. A line that would not be written again
byte for byte is refused. Lines are at most `MAX_LINE` bytes.

A change to a kind's fields is a new class with the next `schema`; the old class stays, so that old lines are read as
what they were. A reader refuses versions that it does not know.

No record has a free-form field: identifiers, codes, digests and numbers are all there is room for, so that a payload,
a token or a key cannot be logged by accident: bytes are refused, and what must be recognised again is logged as its
digest. Digests are lowercase hexadecimal SHA-256, or empty where there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import Annotated, ClassVar, Final, Literal, get_type_hints

import msgspec

from ringfence.audit.errors import BAD_RECORD, CORRUPT, AuditError

VERSION: Final = 2
GENESIS = b"0" * 64
MAX_LINE = 65_536
"""Longest line in bytes, without its newline."""

Identifier = Annotated[str, msgspec.Meta(max_length=256)]
Resource = Annotated[str, msgspec.Meta(max_length=4096)]
Digest = Annotated[str, msgspec.Meta(max_length=64, description="SHA-256 in lowercase hexadecimal, or empty")]
# A pattern would say the same as `_digests_hold` below, but costs as much as reading the rest of the record.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Position = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False, array_like=True):
    """One stage of a decision, written as the array `[name, verdict, code, micros]`."""

    name: Identifier
    verdict: Identifier
    code: Identifier
    micros: Count


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False, kw_only=True):
    """A gateway's verdict on opening a session or on a request (`pipeline`)."""

    kind: ClassVar[str] = "decision"
    schema: ClassVar[int] = 1

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


class Session(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False, kw_only=True):
    """A session was opened or closed. `expires_at` in seconds since the epoch."""

    kind: ClassVar[str] = "session"
    schema: ClassVar[int] = 1

    event: Literal["opened", "closed"]
    session: Identifier
    principal: Identifier
    code: Identifier = ""
    key_id: Identifier = ""
    agent_key_id: Identifier = ""
    attestation_digest: Digest = ""
    bundle_digest: Digest = ""
    expires_at: Count = 0


class Attestation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False, kw_only=True):
    """An attestation result was issued, accepted or refused. `status` is the EAR's (or `none`)."""

    kind: ClassVar[str] = "attestation"
    schema: ClassVar[int] = 1

    event: Literal["issued", "accepted", "refused"]
    host_key_id: Identifier
    status: Identifier
    code: Identifier = ""
    verifier_key_id: Identifier = ""
    result_digest: Digest = ""
    expires_at: Count = 0


class JobLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False, kw_only=True):
    """The limits in force for one job: bytes, milliseconds, qubits, and its share of thread time, of 64."""

    memory_bytes: Count = 0
    gpu_memory_bytes: Count = 0
    deadline_ms: Count = 0
    output_bytes: Count = 0
    qubits: Count = 0
    compute_units: Count = 0


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False, kw_only=True):
    """What the agent did with a job. An `admitted` one has spent its grant id and the caller's nonce for good.

    A job that was refused before it was admitted has no limits.
    """

    kind: ClassVar[str] = "job"
    schema: ClassVar[int] = 1

    event: Literal["admitted", "finished", "refused", "killed"]
    job_id: Identifier
    session: Identifier = ""
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


class Alert(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False, kw_only=True):
    """A running job went beyond what its host watches for, and was killed for it or not.

    `watched` says what, `measured` and `allowed` how far, in its unit: `processor` in percent of one, `memory` in
    bytes, `commands` a second, `checkpoints` in milliseconds without one. With `system_calls` its worker made one that
    a guest has no use for, and with `command_ring` it sent its devices so many batches that no guest can cause.
    """

    kind: ClassVar[str] = "alert"
    schema: ClassVar[int] = 1

    event: Literal["raised", "killed"]
    job_id: Identifier
    watched: Identifier
    session: Identifier = ""
    principal: Identifier = ""
    measured: Count = 0
    allowed: Count = 0


class Pool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False, kw_only=True):
    """An isolated memory pool was made, used or destroyed. `offset` and `length` in bytes; never what was in it."""

    kind: ClassVar[str] = "pool"
    schema: ClassVar[int] = 1

    event: Literal["created", "attached", "read", "written", "erased", "destroyed", "refused"]
    pool: Identifier
    session: Identifier = ""
    principal: Identifier = ""
    job_id: Identifier = ""
    code: Identifier = ""
    epoch: Count = 0
    offset: Count = 0
    length: Count = 0


class Operator(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False, kw_only=True):
    """What was done to a process or to its log, rather than by it for a caller.

    started, stopped               the process
    configuration, trust, policies what it loaded, by its digest
    recovered                      opening the log dropped `dropped_bytes` that were written and never acknowledged
    resumed                        an operator let the log go on after a failed sync
    unreadable                     a record of the kind `component` was refused, because it could not be read back
    """

    kind: ClassVar[str] = "operator"
    schema: ClassVar[int] = 1

    event: Literal["started", "stopped", "configuration", "trust", "policies", "recovered", "resumed", "unreadable"]
    component: Identifier
    version: Identifier = ""
    digest: Digest = ""
    dropped_bytes: Count = 0


class Suppression(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False, kw_only=True):
    """So many `refusals` of one source had no record of their own since its last such record; `code` says why."""

    kind: ClassVar[str] = "suppression"
    schema: ClassVar[int] = 1

    code: Identifier
    source: Identifier
    refusals: Position


Record = Decision | Session | Attestation | Job | Alert | Pool | Operator | Suppression

_TYPES: tuple[type[Record], ...] = (Decision, Session, Attestation, Job, Alert, Pool, Operator, Suppression)
KINDS: tuple[str, ...] = tuple(record.kind for record in _TYPES)


@dataclass(frozen=True, slots=True)
class _Schema:
    """How records of one type are read, and checked before they are written."""

    tag: bytes
    decoder: msgspec.json.Decoder[Record]
    digests: Callable[[Record], tuple[str, ...]]


def _no_digests(_: Record) -> tuple[str, ...]:
    return ()


def _schema(record: type[Record]) -> _Schema:
    names = [name for name, hint in get_type_hints(record, include_extras=True).items() if hint == Digest]
    # Twice the same, so that a getter of one name gives a tuple too.
    digests = attrgetter(*(names * 2 if len(names) == 1 else names)) if names else _no_digests
    return _Schema(f"{record.kind}/{record.schema}".encode(), msgspec.json.Decoder(record), digests)


_SCHEMAS: MappingProxyType[type[Record], _Schema] = MappingProxyType({record: _schema(record) for record in _TYPES})
_TAGGED: MappingProxyType[str, _Schema] = MappingProxyType(
    {schema.tag.decode(): schema for schema in _SCHEMAS.values()}
)


_DIGEST_SIZES = frozenset((0, 64))
_HEXADECIMAL = b"0123456789abcdef"


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: Literal[2]
    seq: Position
    base: Count
    prev: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    time_ns: Count
    kind: Identifier
    data: msgspec.Raw


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Entry:
    """One record in its place in the log."""

    seq: int
    base: int
    prev: str
    time_ns: int
    record: Record


def encode_data(record: Record) -> bytes:
    """The `data` of a record's line. Raises AuditError(audit.bad_record) for what cannot be written at all.

    What `check_data` refuses is not found here: encoding is what a caller pays for, the check what the writer does.
    """
    try:
        data = _encode(record)
    except (ValueError, TypeError, OverflowError) as error:
        raise _bad_record(record, str(error)) from error
    if type(record) not in _SCHEMAS:
        raise _bad_record(record, "it is of no type that the log knows")
    if len(data) > MAX_LINE - 512:
        raise _bad_record(record, f"it takes {len(data)} bytes and a line holds at most {MAX_LINE}")
    return data


def check_data(record: Record, data: bytes) -> bytes:
    """The tag of a record that `data` can be read back as, so that no wrongly filled one makes the log unreadable.

    Raises AuditError(audit.bad_record).
    """
    schema = _SCHEMAS[type(record)]
    try:
        found = schema.decoder.decode(data)
    except ValueError as error:
        raise _bad_record(record, str(error)) from error
    if found != record:
        raise _bad_record(record, "a field holds a value of another type than it declares")
    if not _digests_hold(schema.digests(record)):
        raise _bad_record(record, "a digest is not 64 lowercase hexadecimal digits")
    return schema.tag


def check_many(records: list[Record], data: list[bytes]) -> list[bytes | AuditError]:
    """What `check_data` gives for each record, or raises, at two thirds of its price while all of them are good."""
    schemas = [_SCHEMAS[type(record)] for record in records]
    try:
        found = [schema.decoder.decode(one) for schema, one in zip(schemas, data, strict=True)]
    except ValueError:
        found = []
    # Only what is equal to what was read back has digests that are text.
    if found == records and _digests_hold(
        [one for schema, record in zip(schemas, records, strict=True) for one in schema.digests(record)]
    ):
        return [schema.tag for schema in schemas]
    return [_checked(record, one) for record, one in zip(records, data, strict=True)]


def _checked(record: Record, data: bytes) -> bytes | AuditError:
    try:
        return check_data(record, data)
    except AuditError as error:
        return error


LINE: Final = b'{"v":2,"seq":%d,"base":%d,"prev":"%s","time_ns":%d,"kind":"%s","data":%s}'
"""A line without its newline, to be filled with what `encode_line` takes; the writer saves itself the call."""


def line_start(seq: int, base: int, prev: bytes) -> bytes:
    """How a line begins that has this place in the log; `prev` is the hexadecimal leaf hash before it."""
    return b'{"v":2,"seq":%d,"base":%d,"prev":"%s","time_ns":' % (seq, base, prev)


def encode_line(seq: int, base: int, prev: bytes, time_ns: int, tag: bytes, data: bytes) -> bytes:
    """A whole line without its newline, from its place and what `check_data` and `encode_data` gave."""
    return LINE % (seq, base, prev, time_ns, tag, data)


def decode_line(line: bytes) -> Entry:
    """The record of one line (without its newline). Raises AuditError(audit.corrupt) for any but a canonical line."""
    if len(line) > MAX_LINE:
        raise _unreadable(f"it is longer than {MAX_LINE} bytes")
    try:
        envelope = _ENVELOPE.decode(line)
        schema = _TAGGED.get(envelope.kind)
        if schema is None:
            raise _unreadable("its kind, or the version of it, is not one that this version knows")
        record = schema.decoder.decode(envelope.data)
    except (ValueError, RecursionError) as error:
        raise _unreadable(str(error)) from error
    if not _digests_hold(schema.digests(record)):
        raise _unreadable("a digest is not 64 lowercase hexadecimal digits")
    place = (envelope.seq, envelope.base, envelope.prev.encode(), envelope.time_ns)
    if encode_line(*place, schema.tag, _encode(record)) != line:
        raise _unreadable("it is not in the canonical encoding")
    return Entry(envelope.seq, envelope.base, envelope.prev, envelope.time_ns, record)


def _digests_hold(digests: Sequence[str]) -> bool:
    if not _DIGEST_SIZES.issuperset(map(len, digests)):
        return False
    return not "".join(digests).encode("ascii", "replace").translate(None, _HEXADECIMAL)


def _bad_record(record: Record, reason: str) -> AuditError:
    kind = getattr(record, "kind", type(record).__name__)
    return AuditError(
        BAD_RECORD,
        f"A {kind} record cannot be logged: {reason}.",
        field=kind,
        hint="Fill the record with the types and lengths that its class declares.",
    )


def _unreadable(reason: str) -> AuditError:
    return AuditError(CORRUPT, f"The line is not a record: {reason}.")
