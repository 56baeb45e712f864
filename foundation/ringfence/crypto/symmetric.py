"""AES-256-GCM (SP 800-38D), HKDF-SHA256 (RFC 5869), HMAC-SHA256 (RFC 2104) and SHA-256 over plain bytes."""

from __future__ import annotations

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from ringfence.crypto.errors import CIPHERTEXT_INVALID, SIGNATURE_INVALID, CryptoError

NONCE_SIZE = 12
KEY_SIZE = 32


def digest(data: bytes) -> bytes:
    """SHA-256 of `data`, 32 bytes."""
    return hashlib.sha256(data).digest()


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
    return AESGCM(key).encrypt(nonce, plaintext, associated)


def unseal(key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytes:
    """The plaintext; raises `CryptoError` (`crypto.ciphertext_invalid`) and gives nothing out when it was altered."""
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, associated)
    except InvalidTag:
        raise CryptoError(CIPHERTEXT_INVALID, "The ciphertext does not hold for this key.") from None
