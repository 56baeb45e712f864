"""JSON Web Key Sets: an issuer's public keys by their ids. Source: RFC 7517, RFC 7518, RFC 8037. Pure.

Symmetric keys are refused altogether: whoever could verify with one could sign with it. Keys that are too weak, for
encryption, or of another kind are left out, so that one odd key does not take the others with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms
from jwt.utils import base64url_encode
from msgspec import Meta

from ringfence.plugin.identity.errors import KEYS_MALFORMED, IdentityError

MAX_SET: Final = 128 * 1024
MAX_KEYS: Final = 64
MAX_MEMBER: Final = 2048
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
_RSA: Final = frozenset({"PS256", "PS384", "RS256", "RS384"})
_CURVES: Final = {"P-256": frozenset({"ES256"}), "P-384": frozenset({"ES384"}), "Ed25519": frozenset({"EdDSA"})}
PERMITTED: Final = _RSA | {"ES256", "ES384", "EdDSA"}
_THUMBPRINT_MEMBERS: Final = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key, the algorithms that it `fits`, and the one that its issuer says it is for ("": any that fits)."""

    public: PublicKey = field(repr=False)
    fits: frozenset[str]
    algorithm: str = ""


class _Set(msgspec.Struct, frozen=True):
    keys: Annotated[tuple[dict[str, Any], ...], Meta(max_length=MAX_KEYS)]


def decode(data: bytes) -> Mapping[str, VerificationKey]:
    """The usable keys of a JWK set by their `kid`.

    Raises `identity.keys_malformed` where it is none, has a symmetric or a private key, two keys of one id, more than
    64 keys or 128 KiB, or nothing usable.
    """
    if len(data) > MAX_SET:
        raise _malformed(f"it has {len(data)} bytes, more than {MAX_SET}")
    try:
        listed = msgspec.json.decode(data, type=_Set).keys
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise _malformed(f"it is no JWK set of at most {MAX_KEYS} keys") from None
    found: dict[str, VerificationKey] = {}
    for entry in listed:
        if entry.get("kty") == "oct" or "d" in entry:
            raise _malformed("it has a symmetric or a private key")
        name, key = entry.get("kid"), usable(entry)
        if key is None or not isinstance(name, str) or not name:
            continue
        if name in found:
            raise _malformed("two of its keys have one id")
        found[name] = key
    if not found:
        raise _malformed("no key in it has an id and can verify what is accepted here")
    return found


def usable(entry: Mapping[str, Any]) -> VerificationKey | None:
    """The key that one JWK holds, or nothing where it is none that counts: weak, for encryption, of another kind."""
    if entry.get("use", "sig") != "sig" or not _verifies(entry):
        return None
    fits = _RSA if entry.get("kty") == "RSA" else _CURVES.get(_text(entry, "crv"), frozenset())
    algorithm = entry.get("alg", "")
    if not fits or not isinstance(algorithm, str) or (algorithm and algorithm not in fits):
        return None
    if any(not 0 < len(_text(entry, name)) <= MAX_MEMBER for name in _members(entry)):
        return None
    try:
        public = get_default_algorithms()[next(iter(fits))].from_jwk(dict(entry))
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    match public:
        case rsa.RSAPublicKey() if MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS:
            return VerificationKey(public, fits, algorithm)
        case ec.EllipticCurvePublicKey() | ed25519.Ed25519PublicKey():
            return VerificationKey(public, fits, algorithm)
        case _:
            return None


def thumbprint(entry: Mapping[str, Any]) -> str:
    """The SHA-256 thumbprint of a usable JWK in base64url (RFC 7638, section 3)."""
    members = {name: _text(entry, name) for name in _members(entry)}
    return base64url_encode(hashlib.sha256(msgspec.json.encode(members, order="sorted")).digest()).decode("ascii")


def _members(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return _THUMBPRINT_MEMBERS.get(_text(entry, "kty"), ("kty",))


def _verifies(entry: Mapping[str, Any]) -> bool:
    operations = entry.get("key_ops", ["verify"])
    return isinstance(operations, list) and "verify" in operations


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""


def _malformed(why: str) -> IdentityError:
    return IdentityError(
        KEYS_MALFORMED, f"The key set is refused: {why}.", field="keys", hint="Ask the issuer for its JWK set."
    )
