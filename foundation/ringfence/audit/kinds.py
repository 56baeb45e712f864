"""The types of the audit log's records. `records` documents the line that each is written on.

A change to a kind's fields is a new class with the next `schema`; the old class stays, so that old lines are read as
what they were.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

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


Fact = bool | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | Resource | tuple[Identifier, ...]


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What the policies were asked beside principal, action and resource: enough to ask them, or others, again."""

    groups: Annotated[tuple[Identifier, ...], msgspec.Meta(max_length=64)]
    context: Annotated[dict[Identifier, Fact], msgspec.Meta(max_length=64)]


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False, kw_only=True):
    """A gateway's verdict on opening a session, on a request, or on a question about one (`pipeline`).

    `challenge` verdicts are denials that name in `missing` the identity factors that would help. `source` is where the
    request came from, as far as configured hops vouch for it. A request that is allowed spends `nonce` until
    `nonce_until`, in seconds since the epoch. `asked` is there once the policies were asked; `reasons` say what raised
    the risk or lowered the trust.
    """

    kind: ClassVar[str] = "decision"
    schema: ClassVar[int] = 2

    decision_id: Identifier
    pipeline: Literal["session", "request", "factor", "question"]
    verdict: Literal["allow", "deny", "challenge"]
    code: Identifier = ""
    session: Identifier = ""
    principal: Identifier = ""
    action: Identifier = ""
    resource: Resource = ""
    source: Identifier = ""
    stages: Annotated[tuple[Stage, ...], msgspec.Meta(max_length=32)] = ()
    policies: Annotated[tuple[Identifier, ...], msgspec.Meta(max_length=32)] = ()
    missing: Annotated[tuple[Identifier, ...], msgspec.Meta(max_length=8)] = ()
    reasons: Annotated[tuple[Identifier, ...], msgspec.Meta(max_length=16)] = ()
    asked: Asked | None = None
    bundle_digest: Digest = ""
    attestation_digest: Digest = ""
    grant_id: Identifier = ""
    body_digest: Digest = ""
    nonce: Identifier = ""
    nonce_until: Count = 0
    duration_us: Count = 0


class Session(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False, kw_only=True):
    """A session was opened, changed or closed, for the reason `code`. `expires_at` in seconds since the epoch."""

    kind: ClassVar[str] = "session"
    schema: ClassVar[int] = 1

    event: Literal["opened", "changed", "closed"]
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


class DecisionV1(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False, kw_only=True):
    """A decision as logs before schema 2 have it."""

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


class Shadow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False, kw_only=True):
    """A bundle that is only tried out (`bundle_digest`) would have answered otherwise than the one that decides.

    `enforced` is what was done, `verdict` what the bundle in the shadow says, decided by its `policies`.
    """

    kind: ClassVar[str] = "shadow"
    schema: ClassVar[int] = 1

    principal: Identifier
    action: Identifier
    resource: Resource
    enforced: Literal["allow", "deny"]
    verdict: Literal["allow", "deny"]
    policies: Annotated[tuple[Identifier, ...], msgspec.Meta(max_length=32)] = ()
    bundle_digest: Digest = ""


class Threat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False, kw_only=True):
    """The gateway saw a pattern of attack: `event` names it, `subject` is whom it counts against, `count` how often.

    `against` says whether the subject is an authenticated principal or only a source. `reaction` is what was done.
    """

    kind: ClassVar[str] = "threat"
    schema: ClassVar[int] = 1

    event: Identifier
    against: Literal["source", "principal"]
    subject: Identifier
    count: Count = 0
    reaction: Identifier = ""
    until: Count = 0


Record = Decision | DecisionV1 | Session | Attestation | Job | Alert | Pool | Operator | Suppression | Shadow | Threat

TYPES: tuple[type[Record], ...] = (
    Decision,
    DecisionV1,
    Session,
    Attestation,
    Job,
    Alert,
    Pool,
    Operator,
    Suppression,
    Shadow,
    Threat,
)
KINDS: tuple[str, ...] = tuple(dict.fromkeys(record.kind for record in TYPES))
