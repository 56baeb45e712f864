"""How a request shows that it belongs to a session, and its body as far as it is verified. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from ringfence import httpsig
from ringfence.crypto import digest
from ringfence.httpsig import Target
from ringfence.plugin.hosts.port import Inbound, Unseen

EMPTY: Final = digest(b"")


class Shown(msgspec.Struct, frozen=True, gc=False):
    """A request whose sender is authenticated.

    `verified` says that the body whose digest was signed is the one that the upstream acts on; `size` is -1 where it is
    not known, `digest` the SHA-256 that was signed (32 bytes), empty where none was.
    """

    target: Target
    body: bytes | Unseen
    verified: bool
    size: int
    digest: bytes

    def __repr__(self) -> str:
        return f"Shown(size={self.size}, verified={self.verified})"


def signed_body(inbound: Inbound, presented: httpsig.Presented, *, delegated: bool) -> Shown:
    """The body of a request that is signed. `delegated`: the upstream itself checks it before it acts.

    Raises `integrity.digest_mismatch` for a body that was seen and is another one.
    """
    body = inbound.body
    if isinstance(body, bytes):
        return Shown(inbound.target, body, True, len(body), httpsig.verify_body(presented, body))
    if body is Unseen.ABSENT:
        return Shown(inbound.target, body, True, 0, httpsig.verify_body(presented, b""))
    # A part of a body says nothing about the rest, and whoever cut it may have had a reason.
    verified = delegated and body is Unseen.HIDDEN
    return Shown(inbound.target, body, verified, -1, httpsig.announced_digest(presented))


def unsigned_body(inbound: Inbound) -> Shown:
    """The body of a request that is not signed: only one that is not there is beyond doubt."""
    body = inbound.body
    if body is Unseen.ABSENT or body == b"":
        return Shown(inbound.target, body, True, 0, EMPTY)
    return Shown(inbound.target, body, False, len(body) if isinstance(body, bytes) else -1, b"")
