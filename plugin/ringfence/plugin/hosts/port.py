"""What a host adapter asks the decision core, and what it is answered. Pure.

An adapter translates a host's protocol into an `Inbound`, awaits `Gatekeeper.decide`, and translates the `Answer` back.
It decides nothing itself, and whatever goes wrong in it denies.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from ringfence import httpsig

OWN_PREFIX: Final = "x-ringfence-"
"""Header fields that only Ringfence sets. A host strips them from what a caller sends, whatever the answer."""

ASSERTION: Final = "x-ringfence-assertion"
"""The header field that carries the signed identity assertion to an upstream."""


class Unseen(enum.Enum):
    """Why there is no body in an `Inbound`."""

    ABSENT = "absent"
    """The request has none: the host says so, by its framing."""

    HIDDEN = "hidden"
    """The host does not show it."""

    PARTIAL = "partial"
    """The host showed a part of it, which is never verified."""


@dataclass(frozen=True, slots=True)
class Channel:
    """What a trusted host says of the connection that a request came on; empty where it says nothing.

    `thumbprint` is the SHA-256 of the client's certificate (DER) in hex, whose key the TLS handshake has proven;
    `certificate` the chain as the host gave it (PEM or DER, the leaf first), to be verified by the factor "svid".
    """

    thumbprint: str = ""
    certificate: bytes = b""


NO_CHANNEL: Final = Channel()


@dataclass(frozen=True, slots=True)
class Inbound:
    """One request as a host has received it.

    `target` has method, authority, path and query exactly as the upstream will receive them, undecoded. `headers` have
    lower-case names, in their order, repeated ones apart. `source` is the client's address, from configured hops only.
    `upstream` is the configured name of what the request is for. Nothing here is authenticated but `channel`.
    """

    target: httpsig.Target
    headers: Sequence[tuple[str, str]] = field(repr=False)
    source: str
    upstream: str
    body: bytes | Unseen = field(repr=False)
    channel: Channel = NO_CHANNEL


@dataclass(frozen=True, slots=True)
class Answer:
    """The decision, as a host can carry it out.

    An allowed request (`status` 200) goes on to its upstream with the fields `forward` set, after every field with
    `OWN_PREFIX` that the caller sent was removed. A refused one is answered with `status`, the fields `headers` and
    `body` (RFC 9457, application/problem+json). `decision_id` names the audit record of either.
    """

    status: int
    forward: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    decision_id: str = ""

    @property
    def allowed(self) -> bool:
        return self.status == 200


class Gatekeeper(Protocol):
    """The decision core as an adapter sees it."""

    async def decide(self, inbound: Inbound) -> Answer:
        """The answer, once its audit record is durable. Never raises, except when it is cancelled."""
        ...
