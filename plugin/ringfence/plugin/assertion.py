"""The identity assertion: what a gateway says of one request, signed, for an upstream to verify. Pure.

A JWT (RFC 7519) of one form: the header is exactly

    {"alg":"EdDSA","kid":"THUMBPRINT","typ":"ringfence-assertion+jwt"}

with the RFC 7638 thumbprint of the gateway's Ed25519 key (RFC 8037). A verifier compares the header's text with those
of the keys that it has, so there is no algorithm to confuse and no `jku` to follow. `htm` and `htu` name the request as
in DPoP (RFC 9449 section 4.2), with authority and query. Keys are published as a JWK set (RFC 7517), two at a time
while one follows the other.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from ringfence import httpsig
from ringfence.crypto import CryptoError, digest, signature
from ringfence.crypto.ports import SigningKey, VerifyingKey
from ringfence.plugin.upstream.errors import (
    ASSERTION_EXPIRED,
    ASSERTION_INVALID,
    ASSERTION_KEY_UNKNOWN,
    ASSERTION_KEYS_MALFORMED,
    ASSERTION_MALFORMED,
    ASSERTION_WRONG_AUDIENCE,
    ASSERTION_WRONG_TARGET,
    UpstreamError,
)

KEYS_PATH: Final = "/.well-known/ringfence/jwks.json"
TYPE: Final = "ringfence-assertion+jwt"
LIFETIME_S: Final = 60
SKEW_S: Final = 5
MAX_TOKEN: Final = 16 * 1024
MAX_KEYS: Final = 8

_ED25519: Final = "Ed25519"
_COMPACT = re.compile(r"([A-Za-z0-9_-]{1,512})\.([A-Za-z0-9_-]{1,16000})\.([A-Za-z0-9_-]{86})")
_X = re.compile(r"[A-Za-z0-9_-]{43}")

Text = Annotated[str, msgspec.Meta(max_length=10_000)]
Texts = Annotated[tuple[Annotated[str, msgspec.Meta(max_length=256)], ...], msgspec.Meta(max_length=256)]


class Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is asserted of one request.

    `iss` is the gateway's key id, `aud` the upstream's configured name, `sub` the principal's key id or name, `sid` its
    session. `content_digest` is the signed `Content-Digest` field, "" where no body was signed. `attestation` and
    `bundle` are the SHA-256 (hex) of the host's attestation result and of the policies that allowed the request. Times
    are seconds since the epoch; `jti` is used once.
    """

    iss: Text
    aud: Text
    sub: Text
    htm: Text
    htu: Text
    iat: int
    exp: int
    jti: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{16,64}\Z")]
    sid: Text = ""
    groups: Texts = ()
    factors: Texts = ()
    content_digest: Annotated[str, msgspec.Meta(pattern=r"^(sha-256=:[A-Za-z0-9+/]{43}=:)?\Z")] = ""
    decision_id: Text = ""
    attestation: Text = ""
    bundle: Text = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom and what an assertion is about, beside the request: see `Claims`."""

    principal: str
    session: str = ""
    groups: tuple[str, ...] = ()
    factors: tuple[str, ...] = ()
    content_digest: str = ""
    decision_id: str = ""
    attestation: str = ""
    bundle: str = ""


def uri_of(target: httpsig.Target) -> str:
    """The `htu` of a target: authority in lower case, path and query as they are."""
    return target.authority.lower() + target.path + ("" if target.query == "?" else target.query)


class AssertionIssuer:
    """Signs assertions for one gateway with one key; an assertion costs one Ed25519 signature."""

    def __init__(self, gateway: str, private: bytes) -> None:
        """`gateway` is the gateway's key id, `private` 32 bytes. Raises `CryptoError`."""
        algorithm = signature(_ED25519)
        self._gateway = gateway
        self._key: SigningKey = algorithm.signing_key(private)
        self.public = algorithm.public(private)
        self._header = _header(self.public)

    def issue(self, target: httpsig.Target, audience: str, subject: Subject, *, now: int, jti: str) -> str:
        """The token. `jti` is 16 to 64 random characters of base64url."""
        claims = Claims(
            iss=self._gateway,
            aud=audience,
            sub=subject.principal,
            htm=target.method,
            htu=uri_of(target),
            iat=now,
            exp=now + LIFETIME_S,
            jti=jti,
            sid=subject.session,
            groups=subject.groups,
            factors=subject.factors,
            content_digest=subject.content_digest,
            decision_id=subject.decision_id,
            attestation=subject.attestation,
            bundle=subject.bundle,
        )
        signed = f"{self._header}.{_encode(msgspec.json.encode(claims))}"
        return f"{signed}.{_encode(self._key.sign(signed.encode('ascii')))}"


class AssertionVerifier:
    """Verifies what one gateway asserts to one upstream.

    Raises `assertion.keys_malformed` for a key that is none, or for more than `MAX_KEYS`.
    """

    def __init__(self, keys: Sequence[bytes], *, gateway: str, audience: str) -> None:
        if not 0 < len(keys) <= MAX_KEYS:
            raise _keys_malformed(f"There are {len(keys)} keys, not 1 to {MAX_KEYS}.")
        algorithm = signature(_ED25519)
        try:
            self._keys: Mapping[str, VerifyingKey] = {_header(key): algorithm.verifying_key(key) for key in keys}
        except CryptoError as error:
            raise _keys_malformed(error.message) from error
        self._gateway = gateway
        self._audience = audience
        self._decoder = msgspec.json.Decoder(Claims)

    def verify(self, token: str, target: httpsig.Target, *, now: int) -> Claims:
        """The claims, signed by the gateway for this upstream, this request and now. Raises `UpstreamError`.

        That `jti` is new, and that the body is the one of `content_digest`, is the caller's to check.
        """
        claims = self._signed(token)
        if claims.iss != self._gateway or claims.aud != self._audience:
            raise UpstreamError(
                ASSERTION_WRONG_AUDIENCE,
                "The assertion is another gateway's, or for another upstream.",
                field="aud",
                hint="Give the gateway and this service the same name for the upstream.",
            )
        if not (0 < claims.exp - claims.iat <= LIFETIME_S and claims.iat - SKEW_S <= now < claims.exp + SKEW_S):
            raise UpstreamError(ASSERTION_EXPIRED, "The assertion is not valid at this time.", hint="Set the clocks.")
        if claims.htm != target.method or claims.htu != uri_of(target):
            raise UpstreamError(
                ASSERTION_WRONG_TARGET,
                "The request that arrived is not the one that was authorised.",
                field="htu",
                hint="Have the gateway forward method, authority, path and query as they are.",
            )
        return claims

    def _signed(self, token: str) -> Claims:
        parts = _COMPACT.fullmatch(token) if len(token) <= MAX_TOKEN else None
        if parts is None:
            raise _malformed("It is not a signed token.")
        header, payload, signed_by = parts.groups()
        key = self._keys.get(header)
        if key is None:
            raise UpstreamError(
                ASSERTION_KEY_UNKNOWN,
                "The assertion is signed by no key that is known, or in another form.",
                field="kid",
                hint=f"Fetch the gateway's keys again, from {KEYS_PATH}.",
            )
        try:
            key.verify(f"{header}.{payload}".encode("ascii"), _decode(signed_by))
        except CryptoError:
            raise UpstreamError(ASSERTION_INVALID, "The assertion's signature does not hold.") from None
        try:
            return self._decoder.decode(_decode(payload))
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError):
            raise _malformed("Its claims are not those of an assertion.") from None


def published_keys(keys: Sequence[bytes]) -> bytes:
    """The JWK set of public keys (32 bytes each): the one that signs, and the one before or after it."""
    return msgspec.json.encode(
        {"keys": [_jwk(key) | {"kid": _thumbprint(key), "alg": "EdDSA", "use": "sig"} for key in keys]}
    )


class _Jwk(msgspec.Struct, frozen=True):
    # Members and keys that are not understood are ignored, as RFC 7517 sections 4 and 5 demand.
    kty: str
    crv: str = ""
    x: str = ""
    use: str = "sig"


class _JwkSet(msgspec.Struct, frozen=True):
    keys: Annotated[tuple[_Jwk, ...], msgspec.Meta(max_length=64)]


def read_published_keys(document: bytes) -> tuple[bytes, ...]:
    """The Ed25519 keys of a JWK set of at most 64 KiB. Raises `assertion.keys_malformed`."""
    if len(document) > 64 * 1024:
        raise _keys_malformed("The document has more than 64 KiB.")
    try:
        found = msgspec.json.decode(document, type=_JwkSet).keys
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _keys_malformed(f"It is no JWK set: {error}.") from None
    keys = []
    for jwk in found:
        if jwk.kty == "OKP" and jwk.crv == _ED25519 and jwk.use == "sig":
            if not _X.fullmatch(jwk.x):
                raise _keys_malformed("A key is not 32 bytes in base64url.")
            try:
                keys.append(_decode(jwk.x))
            except UpstreamError as error:
                raise _keys_malformed("A key is not in canonical base64url.") from error
    if not 0 < len(keys) <= MAX_KEYS:
        raise _keys_malformed(f"It has {len(keys)} Ed25519 keys, not 1 to {MAX_KEYS}.")
    return tuple(keys)


def _jwk(public: bytes) -> dict[str, Any]:
    return {"crv": _ED25519, "kty": "OKP", "x": _encode(public)}


def _thumbprint(public: bytes) -> str:
    return _encode(digest(msgspec.json.encode(_jwk(public))))


def _header(public: bytes) -> str:
    return _encode(msgspec.json.encode({"alg": "EdDSA", "kid": _thumbprint(public), "typ": TYPE}))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise _malformed("It is not base64url.") from None
    if _encode(data) != text:
        # A second spelling of one token would be a second token to whoever compares them.
        raise _malformed("It is not in canonical base64url.")
    return data


def _malformed(what: str) -> UpstreamError:
    return UpstreamError(ASSERTION_MALFORMED, f"The assertion is malformed. {what}", field="x-ringfence-assertion")


def _keys_malformed(what: str) -> UpstreamError:
    return UpstreamError(
        ASSERTION_KEYS_MALFORMED, f"The gateway's keys are malformed. {what}", hint=f"Fetch them from {KEYS_PATH}."
    )
