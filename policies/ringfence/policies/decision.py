"""What a policy is asked and what it answers: typed contexts, the query, the verdict and the port.

The terms are XACML's (PEP, PDP); the request has Cedar's shape: principal, action, resource, context. Everything that
changes from one request to the next is context, never an attribute of an entity, and every context attribute is
required: Cedar skips a `forbid` that reads a missing attribute, which would turn a gap into an Allow.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

from ringfence.policies.errors import BAD_QUERY, PolicyError

_LONG_MAX = 2**63 - 1


class DeviceStatus(enum.StrEnum):
    """The trust status of the host's attestation result (EAR, `ear.status`), or NONE when the host is not attested."""

    AFFIRMING = "affirming"
    WARNING = "warning"
    CONTRAINDICATED = "contraindicated"
    NONE = "none"


def _require(name: str, holds: bool, expected: str) -> None:
    if not holds:
        raise PolicyError(
            BAD_QUERY,
            f"{name} must be {expected}.",
            field=name,
            hint="Refuse the request: a policy cannot weigh such a value.",
        )


def _whole(name: str, value: int, low: int, high: int) -> None:
    _require(name, type(value) is int and low <= value <= high, f"a whole number from {low} to {high}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonContext:
    """What policies of every action may read. Field names are the attributes' names in the Cedar schema.

    `device_trust` and `risk` run from 0 to 100; `attestation_age_s` is negative when the result is from the future;
    `factors` are the identity factors that were verified ("signature", "session-mac"); `source` is the peer's address
    or "unix".
    """

    device_status: DeviceStatus
    device_trust: int
    attestation_age_s: int
    factors: frozenset[str]
    risk: int
    now_s: int
    hour_utc: int
    source: str

    def __post_init__(self) -> None:
        _whole("device_trust", self.device_trust, 0, 100)
        _whole("attestation_age_s", self.attestation_age_s, -_LONG_MAX, _LONG_MAX)
        _whole("risk", self.risk, 0, 100)
        _whole("now_s", self.now_s, 0, _LONG_MAX)
        _whole("hour_utc", self.hour_utc, 0, 23)
        _require("device_status", type(self.device_status) is DeviceStatus, "a DeviceStatus")
        texts = type(self.factors) is frozenset and all(type(factor) is str for factor in self.factors)
        _require("factors", texts, "a frozenset of texts")
        _require("source", type(self.source) is str, "a text")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionContext(CommonContext):
    """The context of `OpenSession`: the common attributes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContext(CommonContext):
    """The context of `SubmitJob`: the common attributes and what the job asks for, in bytes, milliseconds and qubits.

    `body_verified` says that signature and digest of the body held; `module_digest` is the guest module's digest.
    `compute_units` is the share of thread time, of 64; `level` the security level that the module is to be checked at,
    and `result` the type that its output is declared to be of, as the caller signed them.
    """

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

    def __post_init__(self) -> None:
        CommonContext.__post_init__(self)
        _whole("body_bytes", self.body_bytes, 0, _LONG_MAX)
        _whole("memory_bytes", self.memory_bytes, 0, _LONG_MAX)
        _whole("gpu_memory_bytes", self.gpu_memory_bytes, 0, _LONG_MAX)
        _whole("deadline_ms", self.deadline_ms, 0, _LONG_MAX)
        _whole("output_bytes", self.output_bytes, 0, _LONG_MAX)
        _whole("qubits", self.qubits, 0, _LONG_MAX)
        _whole("compute_units", self.compute_units, 0, _LONG_MAX)
        _require("body_verified", type(self.body_verified) is bool, "true or false")
        _require("quantum", type(self.quantum) is bool, "true or false")
        for name in ("level", "result", "module_digest"):
            _require(name, type(getattr(self, name)) is str, "a text")


class Action(enum.Enum):
    """The actions of the schema; the value is the Cedar action's id."""

    OPEN_SESSION = "OpenSession"
    SUBMIT_JOB = "SubmitJob"

    @property
    def context_type(self) -> type[SessionContext] | type[JobContext]:
        return SessionContext if self is Action.OPEN_SESSION else JobContext


@dataclass(frozen=True, slots=True)
class Query:
    """One question: may `principal`, a member of `groups`, do `action` on `host` in this context.

    Raises `PolicyError` (policy.bad_query) when a name is empty, a value has another type, or the context is another
    action's.
    """

    principal: str
    groups: tuple[str, ...]
    action: Action
    host: str
    context: SessionContext | JobContext

    def __post_init__(self) -> None:
        for name, value in (("principal", self.principal), ("host", self.host)):
            _require(name, type(value) is str and value != "", "a text that is not empty")
        groups = type(self.groups) is tuple and all(type(group) is str for group in self.groups)
        _require("groups", groups, "a tuple of texts")
        expected = self.action.context_type
        _require("context", type(self.context) is expected, f"a {expected.__name__} for {self.action.value}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer. `policies` are the `@id`s that decided, sorted; empty when nothing permitted or `errors` denied.

    `errors` holds every diagnostic of the engine; one is enough to deny.
    """

    allowed: bool
    policies: tuple[str, ...]
    errors: tuple[str, ...]


class Decider(Protocol):
    """The policy decision point as a pipeline sees it."""

    @property
    def bundle_digest(self) -> str:
        """SHA-256 of the bundle that decides, in hex."""
        ...

    def decide(self, query: Query) -> Verdict:
        """Answer a query; never raises for what a query may hold, and denies what it cannot evaluate."""
        ...
