"""What the pipelines know about the host behind this gateway, as a value made by whoever talks to its agent."""

from __future__ import annotations

from dataclasses import dataclass, field

from ringfence.attestation.result import AttestationResult
from ringfence.errors import RingfenceError


@dataclass(frozen=True, slots=True)
class Attested:
    """A checked attestation result of the host and the channel to its agent."""

    agent: str
    result: AttestationResult
    token: str
    digest: str
    channel: str
    grant_key: bytes = field(repr=False)
    proof_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Why there is no fresh attestation result."""

    agent: str
    fault: RingfenceError


Host = Attested | Unreachable
