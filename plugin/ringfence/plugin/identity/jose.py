"""A signed token in its compact form: what it says in its header, its signature, its claims. Pure.

Sources: RFC 7515 (JWS), RFC 7519 (JWT), RFC 8725 (best current practices). The token chooses nothing: the algorithm
must be one that is pinned and the one of the key, `typ` is pinned, and a key that the token brings along or points to
(`jwk`, `jku`, `x5u`, `x5c`) is not looked at. `crit` and `b64` are refused, since nothing critical is understood.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import jwt
import msgspec
from jwt.algorithms import get_default_algorithms
from jwt.utils import base64url_decode

from ringfence.plugin.identity.errors import (
    TOKEN_ALGORITHM,
    TOKEN_SIGNATURE,
    TOKEN_TYPE,
    IdentityError,
    malformed,
    too_large,
)
from ringfence.plugin.identity.jwks import PERMITTED, VerificationKey

T = TypeVar("T")

MAX_TOKEN: Final = 16 * 1024
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# PyJWT's algorithms without its codec, which looks at a token character by character in Python: 16 KiB of a stranger's
# would cost milliseconds before a signature is checked.
_ALGORITHMS: Final = {name: method for name, method in get_default_algorithms().items() if name in PERMITTED}


class Header(msgspec.Struct, frozen=True):
    """What counts of a header; other parameters are ignored, as RFC 7515, section 4, demands."""

    alg: str
    typ: str = ""
    kid: str = ""
    crit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    b64: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    jwk: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Token:
    """A token whose header is read and permitted, and whose signature is not verified."""

    compact: str
    header: Header


def parse(data: bytes, *, algorithms: AbstractSet[str], types: AbstractSet[str], field: str) -> Token:
    """The token in `data`, once its header is permitted: `alg` in `algorithms`, and `typ` in `types` ("": absent).

    Raises `identity.evidence_too_large`, `_evidence_malformed`, `_token_algorithm` or `_token_type`.
    """
    if len(data) > MAX_TOKEN:
        raise too_large("The token", len(data), MAX_TOKEN, field=field)
    compact = data.decode("latin-1")
    if not _COMPACT.fullmatch(compact):
        raise malformed("The token", "it is not three segments of base64url", field=field)
    try:
        header = msgspec.json.decode(base64url_decode(compact.partition(".")[0]), type=Header)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise malformed("The token", "its header is not that of a signed token", field=field) from None
    if header.alg not in algorithms or header.alg not in PERMITTED:
        raise IdentityError(
            TOKEN_ALGORITHM,
            f"The token is signed with another algorithm than {', '.join(sorted(algorithms))}.",
            field=field,
            hint="Let the issuer sign with one of those.",
        )
    if header.crit is not msgspec.UNSET or header.b64 is not msgspec.UNSET:
        raise malformed("The token", "its header has parameters that must be understood and are not", field=field)
    # RFC 7515, section 4.1.9: case does not matter, and "application/" may be left out.
    if header.typ.lower().removeprefix("application/") not in types:
        raise IdentityError(
            TOKEN_TYPE,
            "The token is not of the type that is expected here.",
            field=field,
            hint="Send an access token where one is due, and no other token of the issuer.",
        )
    return Token(compact, header)


def verified(token: Token, key: VerificationKey, *, field: str) -> bytes:
    """The token's payload. Raises `identity.token_algorithm`, `identity.token_signature`."""
    if key.algorithm not in {"", token.header.alg} or token.header.alg not in key.fits:
        raise IdentityError(TOKEN_ALGORITHM, "The token's algorithm is not that of the key that it names.", field=field)
    signed, _, signature = token.compact.rpartition(".")
    try:
        holds = _ALGORITHMS[token.header.alg].verify(signed.encode("ascii"), key.public, base64url_decode(signature))
        payload = base64url_decode(signed.partition(".")[2])
    except (jwt.PyJWTError, ValueError, TypeError):
        holds = False
    if not holds:
        raise IdentityError(TOKEN_SIGNATURE, "The token's signature does not hold under the issuer's key.", field=field)
    return payload


def claims(payload: bytes, kind: type[T], *, field: str) -> T:
    """The claims in a verified payload. Raises `identity.evidence_malformed`."""
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise malformed("The token", "its claims are not of the kind that is expected", field=field) from None
