"""Signatures: Ed25519 (RFC 8032), ML-DSA-65 (FIPS 204) and their composite, which signs everything of Ringfence's own.

The composite follows draft-ietf-lamps-pq-composite-sigs, algorithm MLDSA65-Ed25519-SHA512: both components sign
`M' = Prefix || Label || len(ctx) || ctx || SHA-512(M)`, ML-DSA with the label as its context string, and both must
verify. Public keys are `ML-DSA || Ed25519` (1952 + 32 bytes), private keys the two 32-byte seeds in the same order,
signatures `ML-DSA || Ed25519` (3309 + 64 bytes).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from ringfence.crypto.errors import ALGORITHM_UNKNOWN, CONTEXT_TOO_LONG, KEY_INVALID, SIGNATURE_INVALID, CryptoError

_ED25519_PUBLIC = 32
_ED25519_SEED = 32
_ED25519_SIGNATURE = 64
_MLDSA65_PUBLIC = 1952
_MLDSA65_SEED = 32
_MLDSA65_SIGNATURE = 3309
_COMPOSITE_PREFIX = b"CompositeAlgorithmSignatures2025"
_COMPOSITE_LABEL = b"COMPSIG-MLDSA65-Ed25519-SHA512"
MAX_CONTEXT = 255


class Signature(Protocol):
    """A signature algorithm over plain bytes in its standard's own encoding."""

    @property
    def name(self) -> str: ...

    def generate(self) -> tuple[bytes, bytes]:
        """A fresh key pair, `(public, private)`."""
        ...

    def public(self, private: bytes) -> bytes:
        """The public key of `private`."""
        ...

    def sign(self, private: bytes, message: bytes, context: bytes = b"") -> bytes:
        """The signature over `message`, domain separated by `context` (at most 255 bytes)."""
        ...

    def verify(self, public: bytes, message: bytes, signature: bytes, context: bytes = b"") -> None:
        """Raises `CryptoError` (`crypto.signature_invalid`) unless the signature holds."""
        ...


@dataclass(frozen=True, slots=True)
class Ed25519:
    """Ed25519, RFC 8032. It has no context string, so a context is refused rather than ignored."""

    name: str = "Ed25519"

    def generate(self) -> tuple[bytes, bytes]:
        private = Ed25519PrivateKey.generate()
        return private.public_key().public_bytes_raw(), private.private_bytes_raw()

    def public(self, private: bytes) -> bytes:
        return _ed25519_private(private).public_key().public_bytes_raw()

    def sign(self, private: bytes, message: bytes, context: bytes = b"") -> bytes:
        _no_context(context)
        return _ed25519_private(private).sign(message)

    def verify(self, public: bytes, message: bytes, signature: bytes, context: bytes = b"") -> None:
        _no_context(context)
        key = Ed25519PublicKey.from_public_bytes(_sized(public, _ED25519_PUBLIC, "public key"))
        try:
            key.verify(signature, message)
        except InvalidSignature:
            raise _invalid() from None


@dataclass(frozen=True, slots=True)
class MlDsa65:
    """ML-DSA-65, FIPS 204, hedged; the private key is the 32-byte seed."""

    name: str = "ML-DSA-65"

    def generate(self) -> tuple[bytes, bytes]:
        private = MLDSA65PrivateKey.generate()
        return private.public_key().public_bytes_raw(), private.private_bytes_raw()

    def public(self, private: bytes) -> bytes:
        return _mldsa_private(private).public_key().public_bytes_raw()

    def sign(self, private: bytes, message: bytes, context: bytes = b"") -> bytes:
        return _mldsa_private(private).sign(message, _short(context))

    def verify(self, public: bytes, message: bytes, signature: bytes, context: bytes = b"") -> None:
        key = MLDSA65PublicKey.from_public_bytes(_sized(public, _MLDSA65_PUBLIC, "public key"))
        try:
            key.verify(signature, message, _short(context))
        except InvalidSignature:
            raise _invalid() from None


@dataclass(frozen=True, slots=True)
class CompositeMlDsa65Ed25519:
    """The composite of ML-DSA-65 and Ed25519: forging it means breaking both."""

    name: str = "ML-DSA-65-Ed25519"
    mldsa: MlDsa65 = MlDsa65()
    ed25519: Ed25519 = Ed25519()

    def generate(self) -> tuple[bytes, bytes]:
        mldsa_public, mldsa_private = self.mldsa.generate()
        ed25519_public, ed25519_private = self.ed25519.generate()
        return mldsa_public + ed25519_public, mldsa_private + ed25519_private

    def public(self, private: bytes) -> bytes:
        _sized(private, _MLDSA65_SEED + _ED25519_SEED, "private key")
        return self.mldsa.public(private[:_MLDSA65_SEED]) + self.ed25519.public(private[_MLDSA65_SEED:])

    def sign(self, private: bytes, message: bytes, context: bytes = b"") -> bytes:
        _sized(private, _MLDSA65_SEED + _ED25519_SEED, "private key")
        prepared = _composite_message(message, context)
        return self.mldsa.sign(private[:_MLDSA65_SEED], prepared, _COMPOSITE_LABEL) + self.ed25519.sign(
            private[_MLDSA65_SEED:], prepared
        )

    def verify(self, public: bytes, message: bytes, signature: bytes, context: bytes = b"") -> None:
        _sized(public, _MLDSA65_PUBLIC + _ED25519_PUBLIC, "public key")
        if len(signature) != _MLDSA65_SIGNATURE + _ED25519_SIGNATURE:
            raise _invalid()
        prepared = _composite_message(message, context)
        self.mldsa.verify(public[:_MLDSA65_PUBLIC], prepared, signature[:_MLDSA65_SIGNATURE], _COMPOSITE_LABEL)
        self.ed25519.verify(public[_MLDSA65_PUBLIC:], prepared, signature[_MLDSA65_SIGNATURE:])


_SIGNATURES: tuple[Signature, ...] = (Ed25519(), MlDsa65(), CompositeMlDsa65Ed25519())


def signature(name: str) -> Signature:
    """The signature algorithm called `name`; raises `crypto.algorithm_unknown`."""
    for algorithm in _SIGNATURES:
        if algorithm.name == name:
            return algorithm
    known = ", ".join(algorithm.name for algorithm in _SIGNATURES)
    raise CryptoError(ALGORITHM_UNKNOWN, f"There is no signature algorithm {name!r}.", hint=f"Known: {known}.")


def _composite_message(message: bytes, context: bytes) -> bytes:
    prehash = hashlib.sha512(message).digest()
    return _COMPOSITE_PREFIX + _COMPOSITE_LABEL + bytes([len(_short(context))]) + context + prehash


def _ed25519_private(private: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(_sized(private, _ED25519_SEED, "private key"))


def _mldsa_private(private: bytes) -> MLDSA65PrivateKey:
    return MLDSA65PrivateKey.from_seed_bytes(_sized(private, _MLDSA65_SEED, "private key"))


def _sized(key: bytes, size: int, what: str) -> bytes:
    if len(key) != size:
        raise CryptoError(KEY_INVALID, f"The {what} has {len(key)} bytes, not {size}.")
    return key


def _short(context: bytes) -> bytes:
    if len(context) > MAX_CONTEXT:
        raise CryptoError(CONTEXT_TOO_LONG, f"The context has {len(context)} bytes, more than {MAX_CONTEXT}.")
    return context


def _no_context(context: bytes) -> None:
    if context:
        raise CryptoError(CONTEXT_TOO_LONG, "Ed25519 takes no context string.", hint="Use the composite algorithm.")


def _invalid() -> CryptoError:
    return CryptoError(SIGNATURE_INVALID, "The signature does not hold for this message and key.")
