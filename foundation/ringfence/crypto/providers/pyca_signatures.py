"""Signatures of `cryptography`: Ed25519, ML-DSA-65 and their composite, which signs everything of Ringfence's own.

Ed25519 is RFC 8032, ML-DSA-65 is FIPS 204. The composite follows draft-ietf-lamps-pq-composite-sigs, algorithm
MLDSA65-Ed25519-SHA512: both components sign `M' = Prefix || Label || len(ctx) || ctx || SHA-512(M)`, ML-DSA with the
label as its context string, and both must verify. Public keys are `ML-DSA || Ed25519` (1952 + 32 bytes), private keys
the two 32-byte seeds in the same order, signatures `ML-DSA || Ed25519` (3309 + 64 bytes).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from ringfence.crypto.errors import CONTEXT_TOO_LONG, CryptoError
from ringfence.crypto.providers.recent_keys import RecentKeys
from ringfence.crypto.sizes import short, signature_invalid, sized

_ED25519_SIZE: Final = 32
_ED25519_SIGNATURE: Final = 64
_MLDSA65_PUBLIC: Final = 1952
_MLDSA65_SEED: Final = 32
_MLDSA65_SIGNATURE: Final = 3309
_COMPOSITE_PREFIX = b"CompositeAlgorithmSignatures2025"
_COMPOSITE_LABEL = b"COMPSIG-MLDSA65-Ed25519-SHA512"


@dataclass(frozen=True, slots=True)
class Ed25519:
    """Ed25519, RFC 8032. It has no context string, so a context is refused rather than ignored."""

    name: str = "Ed25519"

    def generate(self) -> tuple[bytes, bytes]:
        private = Ed25519PrivateKey.generate()
        return private.public_key().public_bytes_raw(), private.private_bytes_raw()

    def public(self, private: bytes) -> bytes:
        return self.signing_key(private).key.public_key().public_bytes_raw()

    def sign(self, private: bytes, message: bytes, context: bytes = b"") -> bytes:
        return self.signing_key(private).sign(message, context)

    def verify(self, public: bytes, message: bytes, signature: bytes, context: bytes = b"") -> None:
        self.verifying_key(public).verify(message, signature, context)

    def signing_key(self, private: bytes) -> Ed25519SigningKey:
        seed = sized(private, _ED25519_SIZE, "Ed25519 private key")
        return Ed25519SigningKey(Ed25519PrivateKey.from_private_bytes(seed))

    def verifying_key(self, public: bytes) -> Ed25519VerifyingKey:
        return Ed25519VerifyingKey(Ed25519PublicKey.from_public_bytes(sized(public, _ED25519_SIZE, "Ed25519 key")))


@dataclass(frozen=True, slots=True)
class Ed25519SigningKey:
    """An Ed25519 private key."""

    key: Ed25519PrivateKey = field(repr=False)

    def sign(self, message: bytes, context: bytes = b"") -> bytes:
        _no_context(context)
        return self.key.sign(message)


@dataclass(frozen=True, slots=True)
class Ed25519VerifyingKey:
    """An Ed25519 public key."""

    key: Ed25519PublicKey

    def verify(self, message: bytes, signature: bytes, context: bytes = b"") -> None:
        _no_context(context)
        try:
            self.key.verify(signature, message)
        except InvalidSignature:
            raise signature_invalid() from None


@dataclass(frozen=True, slots=True)
class MlDsa65:
    """ML-DSA-65, FIPS 204, hedged; the private key is the 32-byte seed.

    Expanding a seed takes a fifth of the time of signing with it, so `sign` keeps the keys in `recent`. What
    `signing_key` gives is its caller's alone.
    """

    recent: RecentKeys[MlDsaSigningKey] = field(repr=False, compare=False)
    name: str = "ML-DSA-65"

    def generate(self) -> tuple[bytes, bytes]:
        private = MLDSA65PrivateKey.generate()
        return private.public_key().public_bytes_raw(), private.private_bytes_raw()

    def public(self, private: bytes) -> bytes:
        return self.signing_key(private).key.public_key().public_bytes_raw()

    def sign(self, private: bytes, message: bytes, context: bytes = b"") -> bytes:
        return self.recent.get(private, self.signing_key).sign(message, context)

    def verify(self, public: bytes, message: bytes, signature: bytes, context: bytes = b"") -> None:
        self.verifying_key(public).verify(message, signature, context)

    def signing_key(self, private: bytes) -> MlDsaSigningKey:
        seed = sized(private, _MLDSA65_SEED, "ML-DSA-65 private key")
        return MlDsaSigningKey(MLDSA65PrivateKey.from_seed_bytes(seed))

    def verifying_key(self, public: bytes) -> MlDsaVerifyingKey:
        return MlDsaVerifyingKey(
            MLDSA65PublicKey.from_public_bytes(sized(public, _MLDSA65_PUBLIC, "ML-DSA-65 public key"))
        )


@dataclass(frozen=True, slots=True)
class MlDsaSigningKey:
    """An ML-DSA-65 private key, expanded from its seed."""

    key: MLDSA65PrivateKey = field(repr=False)

    def sign(self, message: bytes, context: bytes = b"") -> bytes:
        return self.key.sign(message, short(context))


@dataclass(frozen=True, slots=True)
class MlDsaVerifyingKey:
    """An ML-DSA-65 public key."""

    key: MLDSA65PublicKey

    def verify(self, message: bytes, signature: bytes, context: bytes = b"") -> None:
        try:
            self.key.verify(signature, message, short(context))
        except InvalidSignature:
            raise signature_invalid() from None


@dataclass(frozen=True, slots=True)
class CompositeMlDsa65Ed25519:
    """The composite of ML-DSA-65 and Ed25519: forging it means breaking both."""

    mldsa: MlDsa65
    ed25519: Ed25519
    name: str = "ML-DSA-65-Ed25519"

    def generate(self) -> tuple[bytes, bytes]:
        mldsa_public, mldsa_private = self.mldsa.generate()
        ed25519_public, ed25519_private = self.ed25519.generate()
        return mldsa_public + ed25519_public, mldsa_private + ed25519_private

    def public(self, private: bytes) -> bytes:
        mldsa, ed25519 = self._split(private, _MLDSA65_SEED, "private key")
        return self.mldsa.public(mldsa) + self.ed25519.public(ed25519)

    def sign(self, private: bytes, message: bytes, context: bytes = b"") -> bytes:
        mldsa, ed25519 = self._split(private, _MLDSA65_SEED, "private key")
        mldsa_key = self.mldsa.recent.get(mldsa, self.mldsa.signing_key)
        return CompositeSigningKey(mldsa_key, self.ed25519.signing_key(ed25519)).sign(message, context)

    def verify(self, public: bytes, message: bytes, signature: bytes, context: bytes = b"") -> None:
        self.verifying_key(public).verify(message, signature, context)

    def signing_key(self, private: bytes) -> CompositeSigningKey:
        mldsa, ed25519 = self._split(private, _MLDSA65_SEED, "private key")
        return CompositeSigningKey(self.mldsa.signing_key(mldsa), self.ed25519.signing_key(ed25519))

    def verifying_key(self, public: bytes) -> CompositeVerifyingKey:
        mldsa, ed25519 = self._split(public, _MLDSA65_PUBLIC, "public key")
        return CompositeVerifyingKey(self.mldsa.verifying_key(mldsa), self.ed25519.verifying_key(ed25519))

    def _split(self, key: bytes, mldsa_size: int, what: str) -> tuple[bytes, bytes]:
        sized(key, mldsa_size + _ED25519_SIZE, f"{self.name} {what}")
        return key[:mldsa_size], key[mldsa_size:]


@dataclass(frozen=True, slots=True)
class CompositeSigningKey:
    """Both private keys of a composite key."""

    mldsa: MlDsaSigningKey
    ed25519: Ed25519SigningKey

    def sign(self, message: bytes, context: bytes = b"") -> bytes:
        prepared = _composite_message(message, context)
        return self.mldsa.sign(prepared, _COMPOSITE_LABEL) + self.ed25519.sign(prepared)


@dataclass(frozen=True, slots=True)
class CompositeVerifyingKey:
    """Both public keys of a composite key."""

    mldsa: MlDsaVerifyingKey
    ed25519: Ed25519VerifyingKey

    def verify(self, message: bytes, signature: bytes, context: bytes = b"") -> None:
        if len(signature) != _MLDSA65_SIGNATURE + _ED25519_SIGNATURE:
            raise signature_invalid()
        prepared = _composite_message(message, context)
        self.mldsa.verify(prepared, signature[:_MLDSA65_SIGNATURE], _COMPOSITE_LABEL)
        self.ed25519.verify(prepared, signature[_MLDSA65_SIGNATURE:])


def _composite_message(message: bytes, context: bytes) -> bytes:
    prehash = hashlib.sha512(message).digest()
    return _COMPOSITE_PREFIX + _COMPOSITE_LABEL + bytes([len(short(context))]) + context + prehash


def _no_context(context: bytes) -> None:
    if context:
        raise CryptoError(CONTEXT_TOO_LONG, "Ed25519 takes no context string.", hint="Use the composite algorithm.")
