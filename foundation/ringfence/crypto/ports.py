"""The ports of the cryptography: what an algorithm offers, and what a provider of algorithms does.

Keys, ciphertexts and secrets are bytes in each standard's own encoding. Every operation has two forms: one over plain
bytes, and one through a prepared key, for a key that is used more than once: it is parsed and checked a single time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ringfence.crypto.combiner import AdditionalShareKem
from ringfence.crypto.offers import Offer


class EncapsulationKey(Protocol):
    """A parsed public key of a KEM."""

    def encapsulate(self) -> tuple[bytes, bytes]:
        """A ciphertext and the 32-byte secret it carries."""
        ...


class DecapsulationKey(Protocol):
    """A parsed private key of a KEM."""

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The 32-byte secret of `ciphertext`, see `Kem.decapsulate`."""
        ...


class Kem(Protocol):
    """A key encapsulation mechanism. Errors: `crypto.key_invalid`, `crypto.ciphertext_invalid`."""

    @property
    def name(self) -> str: ...

    def generate(self) -> tuple[bytes, bytes]:
        """A fresh key pair, `(public, private)`."""
        ...

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        """A ciphertext for `public` and the 32-byte secret it carries."""
        ...

    def decapsulate(self, private: bytes, ciphertext: bytes) -> bytes:
        """The 32-byte secret; for a forged ciphertext a secret nobody else has (implicit rejection)."""
        ...

    def encapsulation_key(self, public: bytes) -> EncapsulationKey:
        """`public`, parsed for repeated use."""
        ...

    def decapsulation_key(self, private: bytes) -> DecapsulationKey:
        """`private`, parsed for repeated use."""
        ...


class SigningKey(Protocol):
    """A parsed private key of a signature algorithm."""

    def sign(self, message: bytes, context: bytes = b"") -> bytes:
        """The signature over `message`, see `Signature.sign`."""
        ...


class VerifyingKey(Protocol):
    """A parsed public key of a signature algorithm."""

    def verify(self, message: bytes, signature: bytes, context: bytes = b"") -> None:
        """Raises `CryptoError` (`crypto.signature_invalid`) unless the signature holds."""
        ...


class Signature(Protocol):
    """A signature algorithm. Errors: `crypto.key_invalid`, `crypto.signature_invalid`, `crypto.context_too_long`."""

    @property
    def name(self) -> str: ...

    def generate(self) -> tuple[bytes, bytes]:
        """A fresh key pair, `(public, private)`."""
        ...

    def public(self, private: bytes) -> bytes:
        """The public key of `private`."""
        ...

    def sign(self, private: bytes, message: bytes, context: bytes = b"") -> bytes:
        """The signature over `message`, domain separated by `context` (at most 255 bytes).

        The algorithm may keep `private` expanded; whoever must know when it is dropped uses `signing_key`.
        """
        ...

    def verify(self, public: bytes, message: bytes, signature: bytes, context: bytes = b"") -> None:
        """Raises `CryptoError` (`crypto.signature_invalid`) unless the signature holds."""
        ...

    def signing_key(self, private: bytes) -> SigningKey:
        """`private`, parsed for repeated use."""
        ...

    def verifying_key(self, public: bytes) -> VerifyingKey:
        """`public`, parsed for repeated use."""
        ...


class Provider(Protocol):
    """Where algorithms come from. A provider is always listed; whether it can be used is asked when it matters."""

    @property
    def name(self) -> str: ...

    @property
    def offers(self) -> Sequence[Offer]:
        """What it provides where it can be used."""
        ...

    def absence(self, name: str) -> str:
        """Why it cannot give the algorithm `name` here, as a clause; empty where it can."""
        ...

    def kem(self, name: str) -> Kem | AdditionalShareKem:
        """The KEM that it offers under `name`."""
        ...

    def signature(self, name: str) -> Signature:
        """The signature algorithm that it offers under `name`."""
        ...
