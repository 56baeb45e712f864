"""The port of an identity factor: evidence in, what it proves out. Pure.

One module an adapter; the one list of built-in factors is `ringfence.plugin.identity.factors`. Adapters never import
each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Binding:
    """What evidence must be bound to, so that it proves nothing anywhere else.

    `transcript` is the SHA-256 (32 bytes) of what the evidence is for: a session's handshake, or the challenge of a
    step-up. `thumbprint` is the SHA-256 in hex of the certificate of the client's channel, or empty. `principal` is
    whom the session belongs to, or empty where this factor is to say it.
    """

    transcript: bytes
    thumbprint: str
    principal: str


@dataclass(frozen=True, slots=True)
class Proven:
    """What one factor has proven.

    `subject` is the identity in the factor's own terms (a SPIFFE id, issuer and subject of a token, a credential's
    owner); `key_bound` whether the caller has proven to hold a key; `proven_until` when it ends, in seconds since the
    epoch. `groups` and `attributes` ("name=value") are what the issuer says of the subject. `oddities` are reasons to
    raise the risk, such as a counter that went back.
    """

    factor: str
    subject: str
    key_bound: bool
    proven_until: int
    groups: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    oddities: tuple[str, ...] = ()


class Factor(Protocol):
    """An identity factor."""

    @property
    def name(self) -> str:
        """The factor's name as policies read it in `context.factors`."""
        ...

    async def verify(self, evidence: bytes, binding: Binding, *, now: int) -> Proven:
        """What `evidence` proves, now. Raises `GateError` (kind UNAUTHENTICATED or INVALID) for anything else.

        Whatever it awaits has a deadline. It never raises anything else for what a caller may send.
        """
        ...
