"""Keys in the forms that standards define: PKCS#8 and SPKI as PEM or DER (RFC 5958, RFC 5280, RFC 7468), and JWK.

| algorithm | DER | JWK |
|---|---|---|
| Ed25519, X25519 | RFC 8410 | OKP, RFC 8037 |
| ML-DSA-65 | RFC 9881, as the seed | AKP, RFC 9964 |
| ML-KEM-768 | RFC 9935, as the seed | none yet |
| SLH-DSA-SHA2-128f, -128s | RFC 9909 | AKP, draft-ietf-cose-sphincs-plus |
| ML-DSA-65-Ed25519 | draft-ietf-lamps-pq-composite-sigs | AKP, draft-ietf-jose-pq-composite-sigs |
| X-Wing | draft-connolly-cfrg-xwing-kem | none yet |

The keys have one length an algorithm, so a DER form is a constant prefix before the key's bytes: it is written and
recognised as such, and no ASN.1 is parsed. What is written in another way (an expanded ML-DSA key without its seed,
attributes, an encrypted key) is refused.
"""

from __future__ import annotations

import base64
import binascii
import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ringfence.crypto.errors import ALGORITHM_UNKNOWN, FORM_INVALID, KEY_INVALID, CryptoError
from ringfence.crypto.providers.pyca_kems import XWing
from ringfence.crypto.signatures import signature

_PUBLIC = "PUBLIC KEY"
_PRIVATE = "PRIVATE KEY"
_BLOCK = re.compile(rb"\s*-----BEGIN ([A-Z ]+)-----\s([A-Za-z0-9+/=\s]+)-----END \1-----\s*")


class Form(enum.Enum):
    """How a key is written down."""

    PEM = "pem"
    DER = "der"
    JWK = "jwk"


@dataclass(frozen=True, slots=True)
class KeyMaterial:
    """A key pair of a named algorithm; raises `crypto.key_invalid` where the halves do not belong together."""

    algorithm: str
    public: bytes
    private: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if public_of(self.algorithm, self.private) != self.public:
            raise CryptoError(KEY_INVALID, f"The halves of the {self.algorithm} key do not belong together.")


@dataclass(frozen=True, slots=True)
class _Shape:
    """How an algorithm's keys are encoded: an OID, the sizes, what precedes a private key, and the JWK's names."""

    oid: str
    public: int
    private: int
    before_private: bytes = b""
    key_type: str = ""


_SHAPES: Final[Mapping[str, _Shape]] = MappingProxyType(
    {
        "Ed25519": _Shape("1.3.101.112", 32, 32, b"\x04\x20", "OKP"),
        "X25519": _Shape("1.3.101.110", 32, 32, b"\x04\x20", "OKP"),
        "ML-DSA-65": _Shape("2.16.840.1.101.3.4.3.18", 1952, 32, b"\x80\x20", "AKP"),
        "ML-KEM-768": _Shape("2.16.840.1.101.3.4.4.2", 1184, 64, b"\x80\x40", ""),
        "SLH-DSA-SHA2-128s": _Shape("2.16.840.1.101.3.4.3.20", 32, 64, b"", "AKP"),
        "SLH-DSA-SHA2-128f": _Shape("2.16.840.1.101.3.4.3.21", 32, 64, b"", "AKP"),
        "ML-DSA-65-Ed25519": _Shape("1.3.6.1.5.5.7.6.48", 1984, 64, b"", "AKP"),
        "X-Wing": _Shape("1.3.6.1.4.1.62253.25722", 1216, 32),
    }
)
ALGORITHMS: Final = tuple(_SHAPES)


class _Jwk(msgspec.Struct, frozen=True, omit_defaults=True):
    # Members that are not understood are ignored, as RFC 7517 section 4 demands.
    kty: str
    alg: str = ""
    crv: str = ""
    x: str = ""
    pub: str = ""
    d: str = ""
    priv: str = ""


def public_of(algorithm: str, private: bytes) -> bytes:
    """The public key of `private`. Raises `crypto.key_invalid`, `crypto.algorithm_unknown`."""
    _sized(private, _shape(algorithm).private)
    match algorithm:
        case "X25519":
            return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
        case "ML-KEM-768":
            return MLKEM768PrivateKey.from_seed_bytes(private).public_key().public_bytes_raw()
        case "X-Wing":
            return XWing().public(private)
        case _:
            return signature(algorithm).public(private)


def export_public(algorithm: str, public: bytes, form: Form) -> bytes:
    """`public` in `form`; raises `crypto.form_invalid` where no standard defines it."""
    shape = _shape(algorithm)
    _sized(public, shape.public)
    if form is Form.JWK:
        return _jwk(algorithm, shape, public, b"")
    der = _spki(shape) + public
    return der if form is Form.DER else _pem(_PUBLIC, der)


def export_private(key: KeyMaterial, form: Form) -> bytes:
    """The key pair in `form`, unencrypted; raises `crypto.form_invalid` where no standard defines it."""
    shape = _shape(key.algorithm)
    if form is Form.JWK:
        return _jwk(key.algorithm, shape, key.public, key.private)
    der = _pkcs8(shape) + key.private
    return der if form is Form.DER else _pem(_PRIVATE, der)


def import_public(data: bytes) -> tuple[str, bytes]:
    """The algorithm and the public key in `data`, whichever form it has.

    Raises `crypto.form_invalid`. A private key is refused, so that it is not mistaken for something to hand out.
    """
    if data.lstrip()[:1] == b"{":
        algorithm, public, private = _from_jwk(data)
        if private:
            raise _malformed("it is a private key")
        return algorithm, public
    der = _der(data, _PUBLIC)
    for algorithm, shape in _SHAPES.items():
        prefix = _spki(shape)
        if der.startswith(prefix) and len(der) == len(prefix) + shape.public:
            return algorithm, der[len(prefix) :]
    raise _malformed("it is no public key of a known algorithm")


def import_private(data: bytes) -> KeyMaterial:
    """The key pair in `data`, whichever form it has; raises `crypto.form_invalid` or `crypto.key_invalid`."""
    if data.lstrip()[:1] == b"{":
        algorithm, public, private = _from_jwk(data)
        if not private:
            raise _malformed("it is a public key")
        return KeyMaterial(algorithm, public, private)
    der = _der(data, _PRIVATE)
    for algorithm, shape in _SHAPES.items():
        prefix = _pkcs8(shape)
        if der.startswith(prefix) and len(der) == len(prefix) + shape.private:
            private = der[len(prefix) :]
            return KeyMaterial(algorithm, public_of(algorithm, private), private)
    raise _malformed("it is no private key of a known algorithm, or it is encrypted")


def _jwk(algorithm: str, shape: _Shape, public: bytes, private: bytes) -> bytes:
    if shape.key_type == "OKP":
        jwk = _Jwk("OKP", crv=algorithm, x=_base64url(public), d=_base64url(private))
    elif shape.key_type == "AKP":
        jwk = _Jwk("AKP", alg=algorithm, pub=_base64url(public), priv=_base64url(private))
    else:
        raise CryptoError(
            FORM_INVALID, f"No standard defines a JWK of {algorithm} yet.", field="form", hint="Use PEM or DER."
        )
    return msgspec.json.encode(jwk)


def _from_jwk(data: bytes) -> tuple[str, bytes, bytes]:
    try:
        jwk = msgspec.json.decode(data, type=_Jwk)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _malformed("it is no JWK with text in its members") from None
    algorithm = jwk.crv if jwk.kty == "OKP" else jwk.alg
    shape = _SHAPES.get(algorithm)
    if shape is None or shape.key_type != jwk.kty:
        raise _malformed("its kty and its alg or crv are none that are used here")
    public, private = (jwk.x, jwk.d) if jwk.kty == "OKP" else (jwk.pub, jwk.priv)
    key, secret = _from_base64url(public), _from_base64url(private)
    if len(key) != shape.public or len(secret) not in (0, shape.private):
        raise _malformed("its key has another length")
    return algorithm, key, secret


def _spki(shape: _Shape) -> bytes:
    """What precedes the public key in its SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7)."""
    return _prefix(0x30, [_algorithm(shape), _prefix(0x03, [b"\x00"], shape.public)], shape.public)


def _pkcs8(shape: _Shape) -> bytes:
    """What precedes the private key in its OneAsymmetricKey, version 1 (RFC 5958 section 2)."""
    octets = _prefix(0x04, [shape.before_private], shape.private)
    return _prefix(0x30, [b"\x02\x01\x00", _algorithm(shape), octets], shape.private)


def _algorithm(shape: _Shape) -> bytes:
    first, second, *rest = (int(arc) for arc in shape.oid.split("."))
    encoded = bytes([40 * first + second]) + b"".join(_arc(arc) for arc in rest)
    return _prefix(0x30, [_prefix(0x06, [encoded])])


def _arc(value: int) -> bytes:
    septets = [value & 0x7F]
    while value := value >> 7:
        septets.insert(0, 0x80 | (value & 0x7F))
    return bytes(septets)


def _prefix(tag: int, parts: list[bytes], more: int = 0) -> bytes:
    """A DER value (X.690 section 8.1) of `parts` and of `more` bytes that the caller appends."""
    content = b"".join(parts)
    length = len(content) + more
    size = (length.bit_length() + 7) // 8
    head = bytes([length]) if length < 0x80 else bytes([0x80 | size]) + length.to_bytes(size, "big")
    return bytes([tag]) + head + content


def _pem(label: str, der: bytes) -> bytes:
    text = base64.b64encode(der).decode("ascii")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode("ascii")


def _der(data: bytes, label: str) -> bytes:
    if b"-----BEGIN" not in data[:100]:
        return data
    block = _BLOCK.fullmatch(data)
    if block is None or block[1] != label.encode():
        raise _malformed(f"it is not one PEM block labelled {label}")
    try:
        return binascii.a2b_base64(b"".join(block[2].split()), strict_mode=True)
    except binascii.Error:
        raise _malformed("its block is not base64") from None


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _from_base64url(text: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (ValueError, binascii.Error):
        raise _malformed("a member is not base64url") from None
    if _base64url(data) != text:
        raise _malformed("a member is not base64url")
    return data


def _shape(algorithm: str) -> _Shape:
    shape = _SHAPES.get(algorithm)
    if shape is None:
        raise CryptoError(
            ALGORITHM_UNKNOWN, f"Keys of {algorithm!r} cannot be kept.", hint=f"Known: {', '.join(ALGORITHMS)}."
        )
    return shape


def _sized(key: bytes, size: int) -> None:
    if len(key) != size:
        raise CryptoError(KEY_INVALID, f"The key has {len(key)} bytes, not {size}.")


def _malformed(why: str) -> CryptoError:
    return CryptoError(FORM_INVALID, f"The key cannot be read: {why}.", hint="Give PEM, DER or JWK, unencrypted.")
