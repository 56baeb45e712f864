"""Who signs: key ids, and the port through which a process uses its own private key."""

from __future__ import annotations

import base64
from typing import Protocol

from ringfence.crypto.signatures import Signature, signature
from ringfence.crypto.symmetric import digest

COMPOSITE: Signature = signature("ML-DSA-65-Ed25519")


class Signer(Protocol):
    """A private key of the composite algorithm that can be used but not read."""

    @property
    def key_id(self) -> str: ...

    @property
    def public(self) -> bytes: ...

    def sign(self, message: bytes, context: bytes = b"") -> bytes: ...


def key_id(public: bytes) -> str:
    """The id of a public key: `rf1` and the unpadded base64url of its SHA-256, 46 characters."""
    return "rf1" + base64.urlsafe_b64encode(digest(public)).rstrip(b"=").decode("ascii")
