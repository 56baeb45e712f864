"""What the pipelines know about the host behind this gateway, as a value made by whoever talks to its agent."""

from __future__ import annotations

from dataclasses import dataclass, field

from ringfence.attestation.result import AttestationResult
from ringfence.errors import RingfenceError
from ringfence.policies import DeviceStatus


@dataclass(frozen=True, slots=True)
class DeviceTrust:
    """How far a host is trusted on this attestation result: its status, a score and a reputation from 0 to 100.

    `drift` counts the changes of the device since the result before it; `reasons` say what lowered the score.
    """

    status: DeviceStatus
    score: int
    reputation: int
    drift: int = 0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attested:
    """A checked attestation result of the host and the channel to its agent."""

    agent: str
    result: AttestationResult
    token: str
    digest: str
    channel: str
    trust: DeviceTrust
    grant_key: bytes = field(repr=False)
    proof_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Why there is no fresh attestation result."""

    agent: str
    fault: RingfenceError


Host = Attested | Unreachable


def plain_trust(result: AttestationResult, _now: int) -> DeviceTrust:
    """Trust by the attestation result alone; a device without a history stands in the middle."""
    return DeviceTrust(DeviceStatus(result.status.value), result.score, 50)
