"""Length checks that every algorithm makes before a provider sees the bytes."""

from __future__ import annotations

from typing import Final

from ringfence.crypto.errors import CIPHERTEXT_INVALID, CONTEXT_TOO_LONG, KEY_INVALID, SIGNATURE_INVALID, CryptoError

MAX_CONTEXT: Final = 255
MLKEM_PUBLIC: Final = 1184
MLKEM_PRIVATE: Final = 64
MLKEM_CIPHERTEXT: Final = 1088


def sized(key: bytes, size: int, what: str) -> bytes:
    """`key`, or `crypto.key_invalid` unless it has `size` bytes; `what` names it, as in `ML-KEM-768 public key`."""
    if len(key) != size:
        raise CryptoError(KEY_INVALID, f"The {what} has {len(key)} bytes, not {size}.")
    return key


def sized_ciphertext(ciphertext: bytes, size: int) -> bytes:
    """`ciphertext`, or `crypto.ciphertext_invalid` unless it has `size` bytes."""
    if len(ciphertext) != size:
        raise CryptoError(CIPHERTEXT_INVALID, f"The KEM ciphertext has {len(ciphertext)} bytes, not {size}.")
    return ciphertext


def short(context: bytes) -> bytes:
    """`context`, or `crypto.context_too_long` past the 255 bytes that FIPS 204 and 205 allow."""
    if len(context) > MAX_CONTEXT:
        raise CryptoError(CONTEXT_TOO_LONG, f"The context has {len(context)} bytes, more than {MAX_CONTEXT}.")
    return context


def signature_invalid() -> CryptoError:
    """The one answer to every signature that does not hold."""
    return CryptoError(SIGNATURE_INVALID, "The signature does not hold for this message and key.")
