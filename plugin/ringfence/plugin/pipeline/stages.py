"""The stages that both pipelines share, each a pure decision: raises to deny, returns what it established to allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ringfence.attestation.result import AttestationResult
from ringfence.plugin.errors import DEVICE_CHANGED, DEVICE_UNATTESTED, POLICY_DENIED, POLICY_FAILED, GateError
from ringfence.plugin.host import Attested, Host, Unreachable
from ringfence.policies import Decider, DeviceStatus, Query

SIGNATURE_FACTOR: Final = "signature"
SESSION_FACTOR: Final = "session-mac"


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the gateway itself demands, whatever the policies say."""

    risk: int


def trust_device(host: Host, *, now: int) -> Attested:
    """The host, if there is a fresh attestation result for it. What its status permits is the policies' decision."""
    if isinstance(host, Unreachable):
        raise GateError(
            DEVICE_UNATTESTED,
            f"There is no fresh attestation result for the host: {host.fault.message}",
            hint=host.fault.hint or "Start its agent, then try again.",
        )
    if not host.result.issued_at <= now < host.result.expires_at:
        raise GateError(
            DEVICE_UNATTESTED,
            "The host's attestation result is not valid at this time.",
            hint="Check the clocks, then try again.",
        )
    return host


def same_device(host: Attested, *, agent: str, status: str) -> Attested:
    """`host`, if it is still the device, in the state, that the session was opened with."""
    if host.agent != agent or host.result.status != status:
        raise GateError(
            DEVICE_CHANGED,
            f"The host's trust status is now {host.result.status}; the session was opened at {status}.",
            hint="Open a new session.",
        )
    return host


def common_context(
    result: AttestationResult, *, factors: tuple[str, ...], risk: int, now: int, source: str
) -> dict[str, Any]:
    """The part of a policy's context that every action has."""
    return {
        "device_status": DeviceStatus(result.status.value),
        "device_trust": result.score,
        "device_reputation": 50,
        "attestation_age_s": now - result.issued_at,
        "factors": factors,
        "tenant": "",
        "attributes": (),
        "directory_age_s": -1,
        "channel_bound": False,
        "approvals": 0,
        "risk": risk,
        "requests_minute": 0,
        "jobs_running": 0,
        "session_age_s": 0,
        "now_s": now,
        "hour_utc": now // 3600 % 24,
        "weekday_utc": (now // 86_400 + 3) % 7,
        "source": source,
        "resource_tenant": "",
    }


def apply_policy(decider: Decider, query: Query) -> tuple[str, ...]:
    """The ids of the policies that permit; raises with the ids of those that forbid, or the engine's errors."""
    verdict = decider.decide(query)
    if verdict.errors:
        raise GateError(
            POLICY_FAILED,
            "A policy could not be evaluated, and what cannot be evaluated is denied.",
            hint="Run the bundle's tests.",
        )
    if not verdict.allowed:
        why = ", ".join(verdict.policies) or "no policy permits it"
        raise PolicyDeniedError(why, verdict.policies)
    return verdict.policies


class PolicyDeniedError(GateError):
    """The policies deny; `policies` are the deciding ids."""

    def __init__(self, why: str, policies: tuple[str, ...]) -> None:
        super().__init__(
            POLICY_DENIED,
            f"The policies deny this request: {why}.",
            hint="Ask for less, have the host attested, or have the named policy reviewed.",
        )
        self.policies = policies
