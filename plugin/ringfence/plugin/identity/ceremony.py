"""What WebAuthn's two ceremonies share: client data, authenticator data, keys. Bytes into values. Pure.

Source: Web Authentication Level 3, sections 5.8.1 (client data), 6.1 (authenticator data) and 7. The CBOR and COSE
forms are read by `fido2`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

import msgspec
from fido2.cose import CoseKey
from fido2.webauthn import AttestationObject, AuthenticatorData
from msgspec import Meta

from ringfence.plugin.identity.errors import (
    CEREMONY_MISDIRECTED,
    USER_NOT_VERIFIED,
    IdentityError,
    malformed,
    too_large,
)

T = TypeVar("T")

MAX_RESPONSE: Final = 32 * 1024
ALGORITHMS: Final = (-7, -8, -35, -257)
"""COSE algorithms that count: ES256, EdDSA (Ed25519), ES384, RS256, in the order in which they are preferred."""
_MIN_RSA_BYTES: Final = 256
FAULTS: Final = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    RecursionError,
    OverflowError,
    struct.error,  # an integer that is cut short
)
"""What reading hostile CBOR may raise in `fido2`."""


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """This gateway as authenticators know it: its id, and the origins whose pages may speak for it."""

    rp_id: str
    origins: frozenset[str]


class _ClientData(msgspec.Struct, frozen=True):
    type: str
    challenge: str
    origin: str
    cross_origin: bool = msgspec.field(name="crossOrigin", default=False)
    top_origin: str | None = msgspec.field(name="topOrigin", default=None)


Encoded = Annotated[str, Meta(max_length=MAX_RESPONSE, pattern=r"^[A-Za-z0-9_-]*\Z")]


def decode(data: bytes, kind: type[T], what: str) -> T:
    """The JSON form of a ceremony's response (section 5.1, `toJSON`), bounded.

    Raises `identity.evidence_too_large`, `identity.evidence_malformed`.
    """
    if len(data) > MAX_RESPONSE:
        raise too_large(what, len(data), MAX_RESPONSE, field="response")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise malformed(what, "it is not the JSON form of the ceremony's response", field="response") from None


def raw(text: str) -> bytes:
    """The bytes of an unpadded base64url text. Raises `identity.evidence_malformed`."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise malformed("The response", "a member of it is not base64url", field="response") from None


def check_client_data(data: bytes, kind: str, challenge: bytes, party: RelyingParty) -> None:
    """Raises `identity.ceremony_misdirected` unless the browser made `data` for this challenge, origin and ceremony.

    Stops a response that was made for another site, session or purpose, and one made inside a foreign frame.
    """
    try:
        said = msgspec.json.decode(data, type=_ClientData)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise malformed("The client data", "it is not JSON with its members", field="clientDataJSON") from None
    if said.type != kind:
        raise _misdirected("it is of another ceremony", "type")
    if not hmac.compare_digest(said.challenge.encode("utf-8", "replace"), encoded(challenge).encode()):
        raise _misdirected("it answers another challenge", "challenge")
    if said.origin not in party.origins or said.cross_origin or said.top_origin is not None:
        raise _misdirected("it was made on another site, or inside a foreign frame", "origin")


def authenticator_data(data: bytes) -> AuthenticatorData:
    """Raises `identity.evidence_malformed`."""
    try:
        return AuthenticatorData(data)
    except FAULTS:
        raise malformed("The authenticator data", "it is of another shape", field="authenticatorData") from None


def attestation_object(data: bytes) -> tuple[AuthenticatorData, str, Mapping[str, object]]:
    """Authenticator data, format and statement of an attestation object. Raises `identity.evidence_malformed`."""
    try:
        found = AttestationObject(data)
        if isinstance(found.fmt, str) and isinstance(found.att_stmt, Mapping):
            return found.auth_data, found.fmt, found.att_stmt
    except FAULTS:
        pass
    raise malformed("The attestation object", "it is of another shape", field="attestationObject")


def check_authenticator(data: AuthenticatorData, party: RelyingParty) -> None:
    """Raises `identity.ceremony_misdirected` for another relying party, `identity.user_not_verified` without UV."""
    if not hmac.compare_digest(data.rp_id_hash, hashlib.sha256(party.rp_id.encode()).digest()):
        raise _misdirected("the authenticator made it for another relying party", "rpId")
    if not data.is_user_present() or not data.is_user_verified():
        raise IdentityError(
            USER_NOT_VERIFIED,
            "The authenticator did not verify its user.",
            field="flags",
            hint="Ask for user verification, and answer with a PIN or a biometric.",
        )


def public_key(cose: Mapping[int, object]) -> CoseKey:
    """The key in a COSE map, where it is of an accepted algorithm and strength. Raises `identity.evidence_malformed`.

    The key type and curve must be those of the algorithm (RFC 9053), since `alg` alone decides how it is used.
    """
    expected = {-7: (2, 1), -35: (2, 2), -8: (1, 6)}
    try:
        algorithm, kind = cose.get(3), cose.get(1)
        fits = algorithm in ALGORITHMS and (
            kind == 3 and isinstance(n := cose.get(-1), bytes) and len(n.lstrip(b"\0")) >= _MIN_RSA_BYTES
            if algorithm == -257
            else (kind, cose.get(-1)) == expected.get(algorithm)
        )
        if fits:
            return CoseKey.parse(cose)
    except FAULTS:
        pass
    raise malformed("The public key", "it is not an ES256, EdDSA, ES384 or RS256 key of its strength", field="key")


def encoded(data: bytes) -> str:
    """Unpadded base64url."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _misdirected(why: str, field: str) -> IdentityError:
    return IdentityError(
        CEREMONY_MISDIRECTED, f"The response is refused: {why}.", field=field, hint="Begin the ceremony again."
    )
