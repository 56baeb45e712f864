"""AEADs by name: AES-256-GCM (SP 800-38D) and ChaCha20-Poly1305 (RFC 8439), over bytes or into a caller's buffer.

Keys have 32 bytes, nonces 12, tags 16. A nonce must never be used twice with a key. For pages that are sealed over and
over, hold a `Cipher` and use `seal_into` and `open_into`: nothing is allocated, and nothing of a message stays in the
buffer when its tag does not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from ringfence.crypto.errors import ALGORITHM_UNKNOWN, BUFFER_INVALID, CIPHERTEXT_INVALID, NONCE_INVALID, CryptoError
from ringfence.crypto.offers import Family, Offer, Standing
from ringfence.crypto.sizes import sized

KEY_SIZE: Final = 32
NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16

Readable: TypeAlias = bytes | bytearray | memoryview
Writable: TypeAlias = bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Cipher:
    """An AEAD under one key."""

    primitive: AESGCM | ChaCha20Poly1305 = field(repr=False)

    def seal(self, nonce: Readable, plaintext: Readable, associated: Readable) -> bytes:
        """The ciphertext and its tag; raises `crypto.nonce_invalid`."""
        return self.primitive.encrypt(_nonce(nonce), plaintext, associated)

    def open(self, nonce: Readable, ciphertext: Readable, associated: Readable) -> bytes:
        """The plaintext; raises `crypto.ciphertext_invalid` and gives nothing out when anything was altered."""
        try:
            return self.primitive.decrypt(_nonce(nonce), ciphertext, associated)
        except InvalidTag:
            raise _ciphertext_invalid() from None

    def seal_into(self, nonce: Readable, plaintext: Readable, associated: Readable, out: Writable) -> int:
        """`seal` into `out`, which has exactly 16 bytes more than `plaintext`, else `crypto.buffer_invalid`."""
        try:
            return self.primitive.encrypt_into(_nonce(nonce), plaintext, associated, out)
        except ValueError:
            raise _buffer_invalid(out, len(plaintext) + TAG_SIZE) from None

    def open_into(self, nonce: Readable, ciphertext: Readable, associated: Readable, out: Writable) -> int:
        """`open` into `out`, which has exactly 16 bytes less than `ciphertext`; it is all zeros after a failure."""
        try:
            return self.primitive.decrypt_into(_nonce(nonce), ciphertext, associated, out)
        except InvalidTag:
            # The provider has written what it decrypted before it knew that the tag is wrong.
            memoryview(out).cast("B")[:] = bytes(len(out))
            raise _ciphertext_invalid() from None
        except ValueError:
            raise _buffer_invalid(out, len(ciphertext) - TAG_SIZE) from None


@dataclass(frozen=True, slots=True)
class Aead:
    """An AEAD with 32-byte keys."""

    name: str
    primitive: type[AESGCM | ChaCha20Poly1305] = field(repr=False)

    def cipher(self, key: bytes) -> Cipher:
        """The AEAD under `key`; raises `crypto.key_invalid`."""
        return Cipher(self.primitive(sized(key, KEY_SIZE, f"{self.name} key")))


_AEADS: Final[Sequence[Aead]] = (Aead("AES-256-GCM", AESGCM), Aead("ChaCha20-Poly1305", ChaCha20Poly1305))
OFFERS: Final = (
    Offer("AES-256-GCM", Family.AEAD, "SP 800-38D", Standing.STANDARD),
    Offer("ChaCha20-Poly1305", Family.AEAD, "RFC 8439", Standing.STANDARD),
)


def aead(name: str) -> Aead:
    """The AEAD called `name`; raises `crypto.algorithm_unknown`."""
    for algorithm in _AEADS:
        if algorithm.name == name:
            return algorithm
    known = ", ".join(algorithm.name for algorithm in _AEADS)
    raise CryptoError(ALGORITHM_UNKNOWN, f"There is no AEAD {name!r}.", hint=f"Known: {known}.")


def _nonce(nonce: Readable) -> Readable:
    if len(nonce) != NONCE_SIZE:
        raise CryptoError(NONCE_INVALID, f"The nonce has {len(nonce)} bytes, not {NONCE_SIZE}.")
    return nonce


def _ciphertext_invalid() -> CryptoError:
    return CryptoError(CIPHERTEXT_INVALID, "The ciphertext does not hold for this key.")


def _buffer_invalid(out: Writable, size: int) -> CryptoError:
    return CryptoError(BUFFER_INVALID, f"The buffer has {len(out)} bytes, not {size}.")
