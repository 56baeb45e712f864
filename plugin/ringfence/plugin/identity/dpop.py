"""DPoP proofs: that whoever sends a token holds the key that it is bound to. Source: RFC 9449, section 4.3. Pure."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from jwt.utils import base64url_encode
from msgspec import Meta

from ringfence.plugin.identity import jose, jwks
from ringfence.plugin.identity.errors import PROOF_INVALID, IdentityError

MAX_PROOF: Final = 4096
SKEW_S: Final = 5


@dataclass(frozen=True, slots=True)
class Expected:
    """What a proof must say: the request that it is for, the token (`ath`), the nonce, and the key's thumbprint.

    The nonce is the transcript's, in base64url, so that the proof is worth nothing in another session; with that, a
    replayed `jti` needs no memory of its own.
    """

    method: str
    url: str
    token: str
    transcript: bytes
    thumbprint: str
    max_age_s: int


class _Proof(msgspec.Struct, frozen=True):
    jti: Annotated[str, Meta(min_length=8, max_length=256)]
    htm: str
    htu: str
    iat: Annotated[int, Meta(ge=0, lt=253_402_300_800)]
    ath: str
    nonce: str


def check(data: bytes, expected: Expected, *, now: int) -> None:
    """Raises `identity.proof_invalid`, and what `jose` raises, unless `data` is the proof that is expected."""
    token = jose.parse(data[: MAX_PROOF + 1], algorithms=jwks.PERMITTED, types=frozenset({"dpop+jwt"}), field="proof")
    entry = token.header.jwk
    if len(data) > MAX_PROOF or entry is msgspec.UNSET or "d" in entry:
        raise _invalid(f"it has no public key, or more than {MAX_PROOF} bytes")
    key = jwks.usable(entry)
    if key is None:
        raise _invalid("its key is weak, or of a kind that is not accepted")
    if not hmac.compare_digest(jwks.thumbprint(entry).encode(), expected.thumbprint.encode()):
        raise _invalid("the token is bound to another key")
    proof = jose.claims(jose.verified(token, key, field="proof"), _Proof, field="proof")
    if (proof.htm, proof.htu) != (expected.method, expected.url):
        raise _invalid("it is for another request")
    if not hmac.compare_digest(proof.ath.encode(), _encoded(hashlib.sha256(expected.token.encode()).digest())):
        raise _invalid("it is for another token")
    if not hmac.compare_digest(proof.nonce.encode(), _encoded(expected.transcript)):
        raise _invalid("it is for another session")
    if not now - expected.max_age_s <= proof.iat <= now + SKEW_S:
        raise _invalid("it was not made now")


def _encoded(data: bytes) -> bytes:
    return base64url_encode(data)


def _invalid(why: str) -> IdentityError:
    return IdentityError(
        PROOF_INVALID, f"The proof of possession is refused: {why}.", field="proof", hint="Make a new proof."
    )
