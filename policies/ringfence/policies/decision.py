"""What a policy is asked and what it answers: typed contexts, the query, the verdict and the port.

The terms are XACML's (PEP, PDP); the request has Cedar's shape: principal, action, resource, context. Everything that
changes from one request to the next is context, never an attribute of an entity, and every context attribute is
required: Cedar skips a `forbid` that reads a missing attribute, which would turn a gap into an Allow.

A set is held as a sorted tuple without repeats, so that a query has one form, in memory and in the audit log.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

import msgspec

from ringfence.policies.errors import BAD_QUERY, PolicyError

_LONG_MAX = 2**63 - 1


class DeviceStatus(enum.StrEnum):
    """The trust status of the host's attestation result (EAR, `ear.status`), or NONE when the host is not attested."""

    AFFIRMING = "affirming"
    WARNING = "warning"
    CONTRAINDICATED = "contraindicated"
    NONE = "none"


class CommonContext(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """What policies of every action may read. Field names are the attributes' names in the Cedar schema.

    device     `device_status`, `device_trust` (0 to 100, of this attestation), `device_reputation` (0 to 100, over
               time), `attestation_age_s` (negative: a result from the future)
    identity   `factors` that were verified, such as "signature" or "session-mac"; `tenant` and `attributes`
               ("name=value") of the principal as its directory has them, `directory_age_s` old (-1: not from a
               directory); `channel_bound`: the session holds only on the channel that it was opened on
    approvals  how many other persons have approved this principal's break-glass access, now
    activity   `risk` (0 to 100), `requests_minute`, `jobs_running` (of the principal), `session_age_s`
    moment     `now_s` since the Unix epoch, `hour_utc`, `weekday_utc` (0 is Monday)
    place      `source`: the peer's address or "unix"; `resource_tenant`: whose the resource is, "" for nobody's
    """

    SETS: ClassVar[tuple[str, ...]] = ("factors", "attributes")

    device_status: DeviceStatus
    device_trust: int
    device_reputation: int
    attestation_age_s: int
    factors: tuple[str, ...]
    tenant: str
    attributes: tuple[str, ...]
    directory_age_s: int
    channel_bound: bool
    approvals: int
    risk: int
    requests_minute: int
    jobs_running: int
    session_age_s: int
    now_s: int
    hour_utc: int
    weekday_utc: int
    source: str
    resource_tenant: str

    def __post_init__(self) -> None:
        if not (
            _typed(self)
            and 0 <= self.device_trust <= 100
            and 0 <= self.device_reputation <= 100
            and 0 <= self.risk <= 100
            and 0 <= self.hour_utc <= 23
            and 0 <= self.weekday_utc <= 6
            and -_LONG_MAX <= self.attestation_age_s <= _LONG_MAX
            and -_LONG_MAX <= self.directory_age_s <= _LONG_MAX
            and 0 <= self.approvals <= _LONG_MAX
            and 0 <= self.requests_minute <= _LONG_MAX
            and 0 <= self.jobs_running <= _LONG_MAX
            and 0 <= self.session_age_s <= _LONG_MAX
            and 0 <= self.now_s <= _LONG_MAX
        ):
            raise _misfit(self)


class SessionContext(CommonContext, frozen=True, gc=False, forbid_unknown_fields=True):
    """The context of `OpenSession`: the common attributes."""


class JobContext(CommonContext, frozen=True, gc=False, forbid_unknown_fields=True):
    """The context of `SubmitJob`: the common attributes and what the job asks for, in bytes, milliseconds and qubits.

    `body_verified` says that signature and digest of the body held; `module_digest` is the guest module's digest and
    `module_signers` are the pinned signers who vouch for it. `compute_units` is the share of thread time, of 64;
    `level` the security level that the module is to be checked at, and `result` the type that its output is declared
    to be of, as the caller signed them.
    """

    SETS: ClassVar[tuple[str, ...]] = ("factors", "attributes", "module_signers")

    body_verified: bool
    body_bytes: int
    memory_bytes: int
    gpu_memory_bytes: int
    deadline_ms: int
    output_bytes: int
    qubits: int
    compute_units: int
    quantum: bool
    level: str
    result: str
    module_digest: str
    module_signers: tuple[str, ...]

    def __post_init__(self) -> None:
        CommonContext.__post_init__(self)
        if not (
            0 <= self.body_bytes <= _LONG_MAX
            and 0 <= self.memory_bytes <= _LONG_MAX
            and 0 <= self.gpu_memory_bytes <= _LONG_MAX
            and 0 <= self.deadline_ms <= _LONG_MAX
            and 0 <= self.output_bytes <= _LONG_MAX
            and 0 <= self.qubits <= _LONG_MAX
            and 0 <= self.compute_units <= _LONG_MAX
        ):
            raise _misfit(self)


class AccessContext(CommonContext, frozen=True, gc=False, forbid_unknown_fields=True):
    """The context of `Access`, a request to an upstream behind a gateway: the common attributes and the request.

    `method`, `authority` and `path` are exactly what the upstream receives; `query` is without its question mark.
    `body_verified` says that the gateway saw the body whose digest was signed, or that the upstream is one that checks
    it before it acts; `body_bytes` is -1 where the gateway does not see the body.
    """

    method: str
    authority: str
    path: str
    query: str
    body_verified: bool
    body_bytes: int

    def __post_init__(self) -> None:
        CommonContext.__post_init__(self)
        if not -1 <= self.body_bytes <= _LONG_MAX:
            raise _misfit(self)


Context = SessionContext | JobContext | AccessContext


def _typed(context: CommonContext) -> bool:
    """Whether every field has exactly its type: True is no number here, and a set is sorted without repeats."""
    # On the path of every request, so in as few calls as may be.
    if tuple(map(type, msgspec.structs.astuple(context))) != _KINDS[type(context)]:
        return False
    for name in context.SETS:
        value = getattr(context, name)
        if value and not _sorted_texts(value):
            return False
    return True


def _sorted_texts(value: tuple[object, ...]) -> bool:
    if len(value) == 1:
        return type(value[0]) is str
    before = ""
    for index, item in enumerate(value):
        if type(item) is not str or (index and item <= before):
            return False
        before = item
    return True


def _kinds(context: type[CommonContext]) -> tuple[type, ...]:
    names: dict[str, type] = {"str": str, "int": int, "bool": bool, "DeviceStatus": DeviceStatus}
    return tuple(
        names.get(str(field.type) if isinstance(field.type, str) else field.type.__name__, tuple)
        for field in msgspec.structs.fields(context)
    )


_KINDS: Final[dict[type[CommonContext], tuple[type, ...]]] = {
    context: _kinds(context) for context in (SessionContext, JobContext, AccessContext)
}


def _misfit(context: CommonContext) -> PolicyError:
    """The error that names the first field which does not hold what it must."""
    ranges = {"device_trust": 100, "device_reputation": 100, "risk": 100, "hour_utc": 23, "weekday_utc": 6}
    for field, kind in zip(msgspec.structs.fields(context), _KINDS[type(context)], strict=True):
        value: object = getattr(context, field.name)
        low = {"attestation_age_s": -_LONG_MAX, "directory_age_s": -_LONG_MAX}.get(field.name, 0)
        if field.name == "body_bytes" and isinstance(context, AccessContext):
            low = -1
        high = ranges.get(field.name, _LONG_MAX)
        if kind is bool and type(value) is not bool:
            return _bad(field.name, "true or false")
        if type(value) is not kind:
            return _bad(field.name, f"a value of type {kind.__name__}")
        if isinstance(value, int) and not low <= value <= high:
            return _bad(field.name, f"a whole number from {low} to {high}")
        if isinstance(value, tuple) and not _sorted_texts(value):
            return _bad(field.name, "a sorted tuple of texts without repeats")
    raise AssertionError("every field fits")


def _bad(name: str, expected: str) -> PolicyError:
    return PolicyError(
        BAD_QUERY,
        f"{name} must be {expected}.",
        field=name,
        hint="Refuse the request: a policy cannot weigh such a value.",
    )


class Action(enum.Enum):
    """The actions of the schema; the value is the Cedar action's id."""

    OPEN_SESSION = "OpenSession"
    SUBMIT_JOB = "SubmitJob"
    ACCESS = "Access"

    @property
    def context_type(self) -> type[SessionContext] | type[JobContext] | type[AccessContext]:
        return _CONTEXTS[self]

    @property
    def resource_type(self) -> str:
        """The entity type of what is acted on: a host, or an upstream behind a gateway."""
        return "Upstream" if self is Action.ACCESS else "Host"


_CONTEXTS: Final[dict[Action, type[SessionContext] | type[JobContext] | type[AccessContext]]] = {
    Action.OPEN_SESSION: SessionContext,
    Action.SUBMIT_JOB: JobContext,
    Action.ACCESS: AccessContext,
}


class Query(msgspec.Struct, frozen=True, gc=False):
    """One question: may `principal`, a member of `groups`, do `action` on `resource` in this context.

    Raises `PolicyError` (policy.bad_query) when a name is empty, a value has another type, or the context is another
    action's.
    """

    principal: str
    groups: tuple[str, ...]
    action: Action
    resource: str
    context: Context

    def __post_init__(self) -> None:
        if not (type(self.principal) is str and self.principal):
            raise _bad("principal", "a text that is not empty")
        if not (type(self.resource) is str and self.resource):
            raise _bad("resource", "a text that is not empty")
        if type(self.groups) is not tuple or not all(type(group) is str for group in self.groups):
            raise _bad("groups", "a tuple of texts")
        expected = _CONTEXTS[self.action]
        if type(self.context) is not expected:
            raise _bad("context", f"a {expected.__name__} for {self.action.value}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer. `policies` are the `@id`s that decided, sorted; empty when nothing permitted or `errors` denied.

    `errors` holds every diagnostic of the engine; one is enough to deny. `step_up` names the identity factors that are
    missing, where every policy that denies is annotated with `@step_up("FACTOR")`: with them the answer may change.
    """

    allowed: bool
    policies: tuple[str, ...]
    errors: tuple[str, ...]
    step_up: tuple[str, ...] = ()


class Decider(Protocol):
    """The policy decision point as a pipeline sees it."""

    @property
    def bundle_digest(self) -> str:
        """SHA-256 of the bundle that decides, in hex."""
        ...

    def decide(self, query: Query) -> Verdict:
        """Answer a query; never raises for what a query may hold, and denies what it cannot evaluate."""
        ...
