"""The bundles that the policy benchmarks decide by: ten policies, and a thousand of two sorts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ringfence.policies import Query
    from ringfence.policies.bundle import Bundle

CANDIDATES: Final = 50
"""How many of the thousand no index can leave out."""
_SUBMIT: Final = 'action == Ringfence::Action::"SubmitJob"'
_PERMIT: Final = (
    f'permit (principal in Ringfence::Group::"job-submitters", {_SUBMIT}, resource) '
    'when { context.device_status == "affirming" && context.body_verified '
    '&& context.factors.contains("session-mac") };'
)
_RULES: Final = (
    _PERMIT,
    'forbid (principal, action, resource) when { context.device_status == "none" };',
    'forbid (principal, action, resource) when { context.device_status == "warning" };',
    "forbid (principal, action, resource) "
    "unless { context.attestation_age_s >= 0 && context.attestation_age_s <= 600 };",
    "forbid (principal, action, resource) when { context.risk >= 70 };",
    f"forbid (principal, {_SUBMIT}, resource) unless {{ context.body_verified }};",
    f"forbid (principal, {_SUBMIT}, resource) when {{ context.memory_bytes > 1073741824 }};",
    f"forbid (principal, {_SUBMIT}, resource) when {{ context.deadline_ms > 30000 }};",
    f"forbid (principal, {_SUBMIT}, resource) when {{ context.quantum || context.qubits > 0 }} "
    'unless { principal in Ringfence::Group::"quantum-users" };',
    f'forbid (principal, {_SUBMIT}, resource) unless {{ ["high", "quantum"].contains(context.level) }};',
)


def ten() -> Bundle:
    """Ten policies, nine of which hold for any job."""
    return _bundle("ten", _RULES)


def thousand() -> Bundle:
    """A thousand policies, of which `CANDIDATES` hold for any job and each other one for a group, tenant or host."""
    general = [
        *_RULES,
        *(_limit(number) for number in range(CANDIDATES - len(_RULES) + 1)),
    ]
    narrow = []
    for number in range(1000 - len(general)):
        limit = f"context.memory_bytes > {2**32 + number}"
        narrow.append(
            (
                f'forbid (principal in Ringfence::Group::"team-{number}", {_SUBMIT}, resource) when {{ {limit} }};',
                f'forbid (principal, {_SUBMIT}, resource) when {{ context.tenant == "tenant-{number}" && {limit} }};',
                f'forbid (principal, {_SUBMIT}, resource == Ringfence::Host::"gpu-{number}") when {{ {limit} }};',
            )[number % 3]
        )
    return _bundle("thousand", (*general, *narrow))


def worst() -> Bundle:
    """A thousand policies that all hold for any job, so that no index leaves one out."""
    return _bundle("worst", (_PERMIT, *(_limit(number) for number in range(999))))


def job() -> Query:
    """A job that each of the bundles permits."""
    from ringfence.policies import Action, Query
    from ringfence.policies.cases import BASE_JOB

    groups = ("clients", "job-submitters", "team-0")
    return Query("alice", groups, Action.SUBMIT_JOB, "gpu-2", BASE_JOB)


def _limit(number: int) -> str:
    names = ("memory_bytes", "gpu_memory_bytes", "output_bytes", "deadline_ms", "body_bytes", "requests_minute")
    return (
        f"forbid (principal, {_SUBMIT}, resource) when {{ context.{names[number % len(names)]} > {2**40 + number} }};"
    )


def _bundle(name: str, texts: tuple[str, ...]) -> Bundle:
    from ringfence.policies.bundle import Bundle, Policy
    from ringfence.policies.folder import open_bundled

    policies = tuple(
        Policy(
            f"p{number}",
            "a benchmark's",
            "permit" if " permit " in text else "forbid",
            "policies/bench.cedar",
            number + 1,
            text,
        )
        for number, text in enumerate(f'@id("p{number}") {text}' for number, text in enumerate(texts))
    )
    digest = f"{len(policies):064x}"
    return Bundle(name, 1, "a benchmark's", digest, open_bundled("default").schema, policies, ())
