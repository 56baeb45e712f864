"""Hashes, MAC, key derivation and the usual AEAD over plain bytes.

SHA-256 (FIPS 180-4), BLAKE3 (draft-aumasson-blake3), HMAC-SHA256 (RFC 2104), HKDF-SHA256 (RFC 5869), AES-256-GCM.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from blake3 import blake3
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from ringfence.crypto.aeads import KEY_SIZE, NONCE_SIZE, aead
from ringfence.crypto.errors import SIGNATURE_INVALID, CryptoError

__all__ = [
    "KEY_SIZE",
    "NONCE_SIZE",
    "blake3_digest",
    "digest",
    "hkdf_expand",
    "hkdf_extract",
    "mac",
    "seal",
    "unseal",
    "verify_mac",
]

_AEAD: Final = aead("AES-256-GCM")


def digest(data: bytes) -> bytes:
    """SHA-256 of `data`, 32 bytes."""
    return hashlib.sha256(data).digest()


def blake3_digest(data: bytes) -> bytes:
    """BLAKE3 of `data`, 32 bytes: for large data that Ringfence itself hashes; signed things use SHA-256."""
    return blake3(data).digest()


def mac(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA256 of `data`, 32 bytes."""
    return hmac.digest(key, data, "sha256")


def verify_mac(key: bytes, data: bytes, tag: bytes) -> None:
    """Raises `CryptoError` (`crypto.signature_invalid`) unless `tag` is the MAC of `data`; constant time."""
    if not hmac.compare_digest(mac(key, data), tag):
        raise CryptoError(SIGNATURE_INVALID, "The authentication tag does not hold for this message and key.")


def hkdf_extract(salt: bytes, secret: bytes) -> bytes:
    """HKDF-Extract, RFC 5869 section 2.2: a 32-byte pseudorandom key."""
    return hmac.digest(salt or bytes(32), secret, "sha256")


def hkdf_expand(key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand, RFC 5869 section 2.3: `length` bytes."""
    return HKDFExpand(algorithm=SHA256(), length=length, info=info).derive(key)


def seal(key: bytes, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """AES-256-GCM ciphertext and tag. A nonce must never be used twice with a key."""
    return _AEAD.cipher(key).seal(nonce, plaintext, associated)


def unseal(key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytes:
    """The plaintext; raises `CryptoError` (`crypto.ciphertext_invalid`) and gives nothing out when it was altered."""
    return _AEAD.cipher(key).open(nonce, ciphertext, associated)
