"""Policy tests as files: cases beside the policies, read from TOML and run against the bundle.

A case names the query and its answer. `context` overrides the base of its action (`BASES`), so that a case says
only what it is about; `policies` are the ids that must decide, no more and no fewer (none when nothing permits):

    [[case]]
    name = "an unattested host is refused"
    principal = "alice"
    groups = ["clients"]
    action = "OpenSession"
    resource = "gpu-1"
    context = { device_status = "none" }
    expect = "deny"
    policies = ["forbid-unattested-host"]
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from ringfence.policies.bundle import Bundle, Case
from ringfence.policies.decision import (
    AccessContext,
    Action,
    Context,
    DeviceStatus,
    JobContext,
    Query,
    SessionContext,
    Verdict,
)
from ringfence.policies.engine import CedarDecider
from ringfence.policies.errors import BAD_CASE, PolicyError

_MIB = 1024 * 1024

_COMMON: Final = {
    "device_status": DeviceStatus.AFFIRMING,
    "device_trust": 90,
    "device_reputation": 90,
    "attestation_age_s": 60,
    "factors": ("session-mac",),
    "tenant": "",
    "attributes": (),
    "directory_age_s": -1,
    "channel_bound": False,
    "approvals": 0,
    "risk": 10,
    "requests_minute": 1,
    "jobs_running": 0,
    "session_age_s": 60,
    "now_s": 1_800_014_400,
    "hour_utc": 12,
    "weekday_utc": 4,
    "source": "unix",
    "resource_tenant": "",
}

BASE_SESSION: Final = msgspec.convert(_COMMON | {"factors": ("signature",), "session_age_s": 0}, SessionContext)
"""What a case's context is before its overrides: an attested host at noon and a client with a good signature."""

BASE_JOB: Final = msgspec.convert(
    _COMMON
    | {
        "body_verified": True,
        "body_bytes": 4096,
        "memory_bytes": 64 * _MIB,
        "gpu_memory_bytes": 64 * _MIB,
        "deadline_ms": 5_000,
        "output_bytes": _MIB,
        "qubits": 0,
        "compute_units": 64,
        "quantum": False,
        "level": "high",
        "result": "bytes",
        "module_digest": "00" * 32,
        "module_signers": (),
    },
    JobContext,
)
"""The same for a job: a small one without a quantum circuit."""

BASE_ACCESS: Final = msgspec.convert(
    _COMMON
    | {
        "method": "GET",
        "authority": "service.example",
        "path": "/",
        "query": "",
        "body_verified": True,
        "body_bytes": 0,
    },
    AccessContext,
)
"""The same for a request to an upstream: a GET without a body."""

BASES: Final[dict[Action, Context]] = {
    Action.OPEN_SESSION: BASE_SESSION,
    Action.SUBMIT_JOB: BASE_JOB,
    Action.ACCESS: BASE_ACCESS,
}


class _CaseText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    principal: str
    groups: list[str]
    action: Action
    resource: str
    expect: Literal["allow", "deny"]
    policies: list[str]
    context: dict[str, bool | int | str | list[str]] = {}


class _CaseFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    case: list[_CaseText]


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How a case went: `failure` says in one sentence what differed, and is empty when nothing did."""

    case: Case
    verdict: Verdict
    failure: str


def parse_cases(text: str, file: str) -> tuple[Case, ...]:
    """Read the cases of one file; raises `PolicyError` (policy.bad_case) naming the file and the case."""
    try:
        parsed = msgspec.convert(tomllib.loads(text), _CaseFile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise _bad_case(file, f"The file holds no cases: {error}.") from error
    return tuple(_case(case, file) for case in parsed.case)


def _case(text: _CaseText, file: str) -> Case:
    base = BASES[text.action]
    context: dict[str, object] = msgspec.to_builtins(base)
    unknown = sorted(set(text.context) - set(context))
    if unknown:
        raise _bad_case(file, f"The case {text.name!r} sets {unknown[0]!r}, which is no attribute of its context.")
    try:
        query = Query(
            principal=text.principal,
            groups=tuple(text.groups),
            action=text.action,
            resource=text.resource,
            context=msgspec.convert(context | _with_sets(text.context), type(base)),
        )
    except (msgspec.ValidationError, PolicyError) as error:
        raise _bad_case(file, f"The case {text.name!r} asks what cannot be asked: {error}.") from error
    return Case(text.name, query, text.expect == "allow", tuple(sorted(text.policies)), file)


def _with_sets(context: dict[str, bool | int | str | list[str]]) -> dict[str, object]:
    """A set may be written in any order."""
    return {name: sorted(set(value)) if isinstance(value, list) else value for name, value in context.items()}


def run_cases(bundle: Bundle) -> list[CaseResult]:
    """Decide every case of a bundle and compare the answer and the deciding policies, in the bundle's order."""
    decider = CedarDecider(bundle)
    results = []
    for case in bundle.cases:
        verdict = decider.decide(case.query)
        expected = Verdict(case.allowed, case.policies, (), verdict.step_up)
        said = f"expected {_said(expected)}, decided {_said(verdict)}"
        failure = "" if verdict == expected else f"{case.file}: {case.name}: {said}"
        results.append(CaseResult(case, verdict, failure))
    return results


def _said(verdict: Verdict) -> str:
    by = ", ".join(verdict.policies) or "no policy"
    errors = f", with errors: {'; '.join(verdict.errors)}" if verdict.errors else ""
    return f"{'allow' if verdict.allowed else 'deny'} by {by}{errors}"


def _bad_case(file: str, message: str) -> PolicyError:
    return PolicyError(BAD_CASE, message, field=file, hint="See ringfence.policies.cases for the form of a case.")
