"""HPKE (RFC 9180, base mode) with the KEM MLKEM768-X25519 of draft-ietf-hpke-pq: one message to one public key.

The keys are those of `kem("MLKEM768-X25519")`: 1216 bytes public, a 32-byte seed private. What is sealed is
`enc || ciphertext`, 1136 bytes longer than the message. Base mode does not say who sealed it: sign it, or authenticate
the sender otherwise. There is no associated data: what belongs to the message goes into `info`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey, Suite

from ringfence.crypto.errors import ALGORITHM_UNKNOWN, CIPHERTEXT_INVALID, KEY_INVALID, CryptoError
from ringfence.crypto.offers import Family, Offer, Standing
from ringfence.crypto.providers.pyca_kems import xwing_expand, xwing_split


@dataclass(frozen=True, slots=True)
class Hpke:
    """One suite: the KEM with HKDF-SHA256 and an AEAD."""

    name: str
    suite: Suite = field(repr=False)

    def seal(self, public: bytes, message: bytes, info: bytes = b"") -> bytes:
        """`message` sealed to `public`, bound to `info`; raises `crypto.key_invalid`."""
        return self.sealing_key(public).seal(message, info)

    def open(self, private: bytes, sealed: bytes, info: bytes = b"") -> bytes:
        """The message; raises `crypto.ciphertext_invalid` and gives nothing out unless all of it holds."""
        return self.opening_key(private).open(sealed, info)

    def sealing_key(self, public: bytes) -> SealingKey:
        """`public`, parsed for repeated use."""
        return SealingKey(self.suite, MLKEM768X25519PublicKey(*xwing_split(public)))

    def opening_key(self, private: bytes) -> OpeningKey:
        """`private`, parsed for repeated use."""
        return OpeningKey(self.suite, MLKEM768X25519PrivateKey(*xwing_expand(private)))


@dataclass(frozen=True, slots=True)
class SealingKey:
    """A parsed public key."""

    suite: Suite = field(repr=False)
    key: MLKEM768X25519PublicKey = field(repr=False)

    def seal(self, message: bytes, info: bytes = b"") -> bytes:
        """See `Hpke.seal`."""
        try:
            return self.suite.encrypt(message, self.key, info)
        except ValueError:
            raise CryptoError(KEY_INVALID, "The X25519 half of the key is a point of small order.") from None


@dataclass(frozen=True, slots=True)
class OpeningKey:
    """A parsed private key."""

    suite: Suite = field(repr=False)
    key: MLKEM768X25519PrivateKey = field(repr=False)

    def open(self, sealed: bytes, info: bytes = b"") -> bytes:
        """See `Hpke.open`."""
        try:
            return self.suite.decrypt(sealed, self.key, info)
        except InvalidTag:
            raise CryptoError(CIPHERTEXT_INVALID, "What was sealed does not open with this key and info.") from None


_SUITES: Final[Sequence[Hpke]] = (
    Hpke("HPKE-MLKEM768-X25519-AES-256-GCM", Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)),
    Hpke("HPKE-MLKEM768-X25519-ChaCha20-Poly1305", Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)),
)
OFFERS: Final = tuple(
    Offer(suite.name, Family.HPKE, "RFC 9180, draft-ietf-hpke-pq (0x647a)", Standing.DRAFT) for suite in _SUITES
)


def hpke(name: str = _SUITES[0].name) -> Hpke:
    """The HPKE suite called `name`; raises `crypto.algorithm_unknown`."""
    for suite in _SUITES:
        if suite.name == name:
            return suite
    known = ", ".join(suite.name for suite in _SUITES)
    raise CryptoError(ALGORITHM_UNKNOWN, f"There is no HPKE suite {name!r}.", hint=f"Known: {known}.")
