"""HTTP message signatures: the strict profile of RFC 9421 that every request inside a session uses. Pure.

One signature, labelled `ringfence`, by hmac-sha256 (section 3.3.3) under a key of the session, over exactly

    "@method" "@authority" "@path" "@query" "content-digest"

with `created`, `expires`, `nonce`, `keyid` (the session) and `alg`. The body enters through `Content-Digest` with
sha-256 (RFC 9530). Anything else, a second signature, another component, another order or spelling, is refused: a
verifier that accepts one form only cannot disagree with its peer about what was signed.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from ringfence.crypto import CryptoError, digest, mac, verify_mac
from ringfence.errors import Code, Kind, RingfenceError


class IntegrityError(RingfenceError):
    """A request is not exactly what its sender signed, now."""


SIGNATURE_MISSING = Code("integrity.signature_missing", Kind.UNAUTHENTICATED)
SIGNATURE_MALFORMED = Code("integrity.signature_malformed", Kind.INVALID)
SIGNATURE_INVALID = Code("integrity.signature_invalid", Kind.UNAUTHENTICATED)
SIGNATURE_EXPIRED = Code("integrity.signature_expired", Kind.UNAUTHENTICATED)
DIGEST_MISMATCH = Code("integrity.digest_mismatch", Kind.UNAUTHENTICATED)

LABEL: Final = "ringfence"
COVERED: Final = ("@method", "@authority", "@path", "@query", "content-digest")
MAX_LIFETIME_S: Final = 300
SKEW_S: Final = 30

_FIELDS = ("signature-input", "signature", "content-digest")
_COVERED_TEXT = "(" + " ".join(f'"{name}"' for name in COVERED) + ")"
_INPUT = re.compile(
    re.escape(LABEL + "=")
    + "(?P<params>"
    + re.escape(_COVERED_TEXT)
    + r";created=(?P<created>[0-9]{1,12});expires=(?P<expires>[0-9]{1,12})"
    + r';nonce="(?P<nonce>[A-Za-z0-9_-]{16,64})";keyid="(?P<keyid>[A-Za-z0-9_-]{1,64})";alg="hmac-sha256")'
)
_SIGNATURE = re.compile(re.escape(LABEL + "=") + r":(?P<value>[A-Za-z0-9+/]{43}=):")
_DIGEST = re.compile(r"sha-256=:(?P<value>[A-Za-z0-9+/]{43}=):")


@dataclass(frozen=True, slots=True)
class Target:
    """What a request addresses, exactly as received: `query` begins with `?` (`?` alone when there is none)."""

    method: str
    authority: str
    path: str
    query: str = "?"


class Presented(msgspec.Struct, frozen=True, gc=False):
    """A signature that has been parsed and not verified; `session` may be used to look its key up, no more."""

    session: str
    nonce: str
    created_at: int
    expires_at: int
    parameters: str
    content_digest: str
    signature: bytes


def signature_base(covered: Sequence[tuple[str, str]], parameters: str) -> bytes:
    """The signature base, RFC 9421 section 2.5: one line a component, then the signature parameters.

    Raises `integrity.signature_malformed` for a value of more than one line, which could pass for other components.
    """
    for name, value in covered:
        if "\n" in value:
            raise IntegrityError(SIGNATURE_MALFORMED, "The component has more than one line.", field=name)
    lines = [f'"{name}": {value}' for name, value in covered]
    lines.append(f'"@signature-params": {parameters}')
    return "\n".join(lines).encode()


# The one form that this profile has, with room for its values: on the path of every request.
_BASE = signature_base([(name, "%s") for name in COVERED], "%s").decode()


def content_digest(body: bytes) -> str:
    """The `Content-Digest` field of `body`."""
    return _digest_field(digest(body))


def sign(
    key: bytes, target: Target, body: bytes, *, session: str, nonce: str, now: int, lifetime_s: int
) -> dict[str, str]:
    """The three header fields that sign a request."""
    parameters = (
        f'{_COVERED_TEXT};created={now};expires={now + lifetime_s};nonce="{nonce}";keyid="{session}";alg="hmac-sha256"'
    )
    field = content_digest(body)
    signature = base64.b64encode(mac(key, _base(target, field, parameters))).decode("ascii")
    return {
        "content-digest": field,
        "signature-input": f"{LABEL}={parameters}",
        "signature": f"{LABEL}=:{signature}:",
    }


def fields(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The fields of a signature among `headers` (lower-case names); raises for one that appears more than once."""
    found: dict[str, str] = {}
    for name, text in headers:
        if name in _FIELDS:
            if name in found:
                raise IntegrityError(SIGNATURE_MALFORMED, "The field appears more than once.", field=name)
            found[name] = text
    return found


def parse(found: Mapping[str, str]) -> Presented:
    """The signature in its `fields`; every one must be there, in the profile's form."""
    if len(found) != len(_FIELDS):
        for name in (name for name in _FIELDS if name not in found):
            raise IntegrityError(
                SIGNATURE_MISSING,
                "The request carries no such field.",
                field=name,
                hint="Sign the request with the session's key as RFC 9421 says; the client library does.",
            )
    parameters, created_at, expires_at, nonce, session = _match(_INPUT, found, "signature-input").groups()
    value: str = _match(_SIGNATURE, found, "signature")[1]
    _match(_DIGEST, found, "content-digest")
    signature = binascii.a2b_base64(value)
    if binascii.b2a_base64(signature, newline=False).decode("ascii") != value:
        # The last character carries two bits more than 32 bytes need; a decoder drops them.
        raise IntegrityError(SIGNATURE_MALFORMED, "The signature is not in canonical base64.", field="signature")
    return Presented(session, nonce, int(created_at), int(expires_at), parameters, found["content-digest"], signature)


def verify(presented: Presented, key: bytes, target: Target, *, now: int) -> None:
    """Raises `IntegrityError` unless the signature holds for `target`, now. The body is checked by `verify_body`."""
    try:
        verify_mac(key, _base(target, presented.content_digest, presented.parameters), presented.signature)
    except CryptoError:
        raise IntegrityError(
            SIGNATURE_INVALID,
            "The signature does not hold: the method, authority, path, query or digest was changed, or another key "
            "signed.",
            field="signature",
        ) from None
    lifetime = presented.expires_at - presented.created_at
    if not 0 < lifetime <= MAX_LIFETIME_S:
        raise IntegrityError(SIGNATURE_EXPIRED, f"The signature lives {lifetime} s, not 1 to {MAX_LIFETIME_S} s.")
    if not presented.created_at - SKEW_S <= now < presented.expires_at + SKEW_S:
        raise IntegrityError(
            SIGNATURE_EXPIRED, "The signature is not valid at this time.", hint="Set the clock and sign again."
        )


def verify_body(presented: Presented, body: bytes) -> bytes:
    """The SHA-256 of `body`; raises `IntegrityError` unless it is the one that was signed."""
    actual = digest(body)
    if _digest_field(actual) != presented.content_digest:
        raise IntegrityError(
            DIGEST_MISMATCH,
            "The body is not the one that was signed; it was changed or cut short on the way.",
            field="content-digest",
            hint="Send the request again.",
        )
    return actual


def announced_digest(presented: Presented) -> bytes:
    """The SHA-256 of the body that was signed, for whoever sees the body; raises `integrity.signature_malformed`."""
    value = presented.content_digest.removeprefix("sha-256=:").removesuffix(":")
    raw = base64.b64decode(value)
    if base64.b64encode(raw).decode("ascii") != value:
        raise IntegrityError(SIGNATURE_MALFORMED, "The digest is not in canonical base64.", field="content-digest")
    return raw


def _digest_field(actual: bytes) -> str:
    return f"sha-256=:{binascii.b2a_base64(actual, newline=False).decode('ascii')}:"


def _base(target: Target, field: str, parameters: str) -> bytes:
    values = (target.method, target.authority.lower(), target.path, target.query, field)
    base = _BASE % (*values, parameters)
    if base.count("\n") != len(COVERED):
        return signature_base(list(zip(COVERED, values, strict=True)), parameters)
    return base.encode()


def _match(pattern: re.Pattern[str], found: Mapping[str, str], name: str) -> re.Match[str]:
    matched = pattern.fullmatch(found[name])
    if matched is None:
        raise IntegrityError(
            SIGNATURE_MALFORMED,
            "The field does not have the form that this profile of RFC 9421 asks for.",
            field=name,
            hint="See docs/architecture.md for the profile.",
        )
    return matched
