"""Policy tests as files: cases beside the policies, read from TOML and run against the bundle.

A case names the query and its answer. `context` overrides `BASE_SESSION` or `BASE_JOB`, so that a case says only what
it is about; `policies` are the ids that must decide, no more and no fewer (none when nothing permits):

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
from typing import Literal

import msgspec

from ringfence.policies.bundle import Bundle, Case
from ringfence.policies.decision import Action, DeviceStatus, JobContext, Query, SessionContext, Verdict
from ringfence.policies.engine import CedarDecider
from ringfence.policies.errors import BAD_CASE, PolicyError

_MIB = 1024 * 1024

BASE_SESSION = SessionContext(
    device_status=DeviceStatus.AFFIRMING,
    device_trust=90,
    attestation_age_s=60,
    factors=frozenset({"signature"}),
    risk=10,
    now_s=1_800_014_400,
    hour_utc=12,
    source="unix",
)
"""What a case's context is before its overrides: an attested host at noon and a client with a good signature."""

BASE_JOB = JobContext(
    device_status=DeviceStatus.AFFIRMING,
    device_trust=90,
    attestation_age_s=60,
    factors=frozenset({"session-mac"}),
    risk=10,
    now_s=1_800_014_400,
    hour_utc=12,
    source="unix",
    body_verified=True,
    body_bytes=4096,
    memory_bytes=64 * _MIB,
    gpu_memory_bytes=64 * _MIB,
    deadline_ms=5_000,
    output_bytes=_MIB,
    qubits=0,
    compute_units=64,
    quantum=False,
    level="high",
    result="bytes",
    module_digest="00" * 32,
)
"""The same for a job: a small one without a quantum circuit."""


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
    base = BASE_SESSION if text.action is Action.OPEN_SESSION else BASE_JOB
    context: dict[str, object] = msgspec.to_builtins(base)
    unknown = sorted(set(text.context) - set(context))
    if unknown:
        raise _bad_case(file, f"The case {text.name!r} sets {unknown[0]!r}, which is no attribute of its context.")
    try:
        query = Query(
            principal=text.principal,
            groups=tuple(text.groups),
            action=text.action,
            host=text.resource,
            context=msgspec.convert(context | text.context, type(base)),
        )
    except (msgspec.ValidationError, PolicyError) as error:
        raise _bad_case(file, f"The case {text.name!r} asks what cannot be asked: {error}.") from error
    return Case(text.name, query, text.expect == "allow", tuple(sorted(text.policies)), file)


def run_cases(bundle: Bundle) -> list[CaseResult]:
    """Decide every case of a bundle and compare the answer and the deciding policies, in the bundle's order."""
    decider = CedarDecider(bundle)
    results = []
    for case in bundle.cases:
        verdict = decider.decide(case.query)
        expected = Verdict(case.allowed, case.policies, ())
        failure = "" if verdict == expected else f"{case.file}: {case.name}: expected {expected}, decided {verdict}"
        results.append(CaseResult(case, verdict, failure))
    return results


def _bad_case(file: str, message: str) -> PolicyError:
    return PolicyError(BAD_CASE, message, field=file, hint="See ringfence.policies.cases for the form of a case.")
