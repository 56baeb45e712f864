"""KEMs of `cryptography`: ML-KEM-768 (FIPS 203), DHKEM over X25519 (RFC 9180), and their hybrid X-Wing.

X-Wing (draft-connolly-cfrg-xwing-kem) holds while either component does: its secret is
`SHA3-256(ss_M || ss_X || ct_X || pk_X || label)`. HPKE's MLKEM768-X25519 (draft-ietf-hpke-pq, KEM id 0x647a) is the
same construction with the same keys, so it is offered under both names.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from ringfence.crypto.errors import CIPHERTEXT_INVALID, KEY_INVALID, CryptoError
from ringfence.crypto.sizes import MLKEM_CIPHERTEXT, MLKEM_PRIVATE, MLKEM_PUBLIC, sized, sized_ciphertext
from ringfence.crypto.symmetric import hkdf_expand, hkdf_extract
from ringfence.errors import Code

_X25519: Final = 32
_XWING_SEED: Final = 32
_XWING_LABEL = b"\\.//^\\"
_DHKEM_SUITE = b"KEM" + (0x0020).to_bytes(2, "big")
_HPKE_VERSION = b"HPKE-v1"


@dataclass(frozen=True, slots=True)
class MlKem768:
    """ML-KEM-768, FIPS 203; the private key is the 64-byte seed `d || z`."""

    name: str = "ML-KEM-768"

    def generate(self) -> tuple[bytes, bytes]:
        private = MLKEM768PrivateKey.generate()
        return private.public_key().public_bytes_raw(), private.private_bytes_raw()

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        return self.encapsulation_key(public).encapsulate()

    def decapsulate(self, private: bytes, ciphertext: bytes) -> bytes:
        return self.decapsulation_key(private).decapsulate(ciphertext)

    def encapsulation_key(self, public: bytes) -> MlKemEncapsulationKey:
        return MlKemEncapsulationKey(mlkem_public(public))

    def decapsulation_key(self, private: bytes) -> MlKemDecapsulationKey:
        seed = sized(private, MLKEM_PRIVATE, "ML-KEM-768 private key")
        return MlKemDecapsulationKey(MLKEM768PrivateKey.from_seed_bytes(seed))


@dataclass(frozen=True, slots=True)
class MlKemEncapsulationKey:
    """A public key that has passed FIPS 203's modulus check."""

    key: MLKEM768PublicKey

    def encapsulate(self) -> tuple[bytes, bytes]:
        secret, ciphertext = self.key.encapsulate()
        return ciphertext, secret


@dataclass(frozen=True, slots=True)
class MlKemDecapsulationKey:
    """A private key, expanded from its seed."""

    key: MLKEM768PrivateKey = field(repr=False)

    def decapsulate(self, ciphertext: bytes) -> bytes:
        return self.key.decapsulate(sized_ciphertext(ciphertext, MLKEM_CIPHERTEXT))


@dataclass(frozen=True, slots=True)
class DhKemX25519:
    """DHKEM(X25519, HKDF-SHA256), RFC 9180 section 4.1."""

    name: str = "X25519"

    def generate(self) -> tuple[bytes, bytes]:
        private = X25519PrivateKey.generate()
        return private.public_key().public_bytes_raw(), private.private_bytes_raw()

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        return self.encapsulation_key(public).encapsulate()

    def decapsulate(self, private: bytes, ciphertext: bytes) -> bytes:
        return self.decapsulation_key(private).decapsulate(ciphertext)

    def encapsulation_key(self, public: bytes) -> DhEncapsulationKey:
        return DhEncapsulationKey(x25519_public(public), public)

    def decapsulation_key(self, private: bytes) -> DhDecapsulationKey:
        key = X25519PrivateKey.from_private_bytes(sized(private, _X25519, "X25519 private key"))
        return DhDecapsulationKey(key.public_key().public_bytes_raw(), key)


@dataclass(frozen=True, slots=True)
class DhEncapsulationKey:
    """An X25519 public key; a point of small order is refused when it is used."""

    key: X25519PublicKey
    public: bytes

    def encapsulate(self) -> tuple[bytes, bytes]:
        ephemeral = X25519PrivateKey.generate()
        encapsulated = ephemeral.public_key().public_bytes_raw()
        return encapsulated, _dhkem_secret(_exchange(ephemeral, self.key, KEY_INVALID), encapsulated, self.public)


@dataclass(frozen=True, slots=True)
class DhDecapsulationKey:
    """An X25519 private key with its public key."""

    public: bytes
    key: X25519PrivateKey = field(repr=False)

    def decapsulate(self, ciphertext: bytes) -> bytes:
        return _dhkem_secret(_exchange_with_ciphertext(self.key, ciphertext), ciphertext, self.public)


@dataclass(frozen=True, slots=True)
class XWing:
    """X-Wing: X25519 and ML-KEM-768; the private key is a 32-byte seed, the public key `pk_M || pk_X` (1216 bytes)."""

    name: str = "X-Wing"

    def generate(self) -> tuple[bytes, bytes]:
        seed = X25519PrivateKey.generate().private_bytes_raw()
        return self.public(seed), seed

    def public(self, private: bytes) -> bytes:
        """The public key of a seed."""
        mlkem, x25519 = xwing_expand(private)
        return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        return self.encapsulation_key(public).encapsulate()

    def decapsulate(self, private: bytes, ciphertext: bytes) -> bytes:
        return self.decapsulation_key(private).decapsulate(ciphertext)

    def encapsulation_key(self, public: bytes) -> XWingEncapsulationKey:
        mlkem, x25519 = xwing_split(public)
        return XWingEncapsulationKey(mlkem, x25519, public[MLKEM_PUBLIC:])

    def decapsulation_key(self, private: bytes) -> XWingDecapsulationKey:
        mlkem, x25519 = xwing_expand(private)
        return XWingDecapsulationKey(x25519.public_key().public_bytes_raw(), mlkem, x25519)


@dataclass(frozen=True, slots=True)
class XWingEncapsulationKey:
    """Both public keys of an X-Wing key."""

    mlkem: MLKEM768PublicKey
    x25519: X25519PublicKey
    x25519_public: bytes

    def encapsulate(self) -> tuple[bytes, bytes]:
        mlkem_secret, mlkem_ciphertext = self.mlkem.encapsulate()
        ephemeral = X25519PrivateKey.generate()
        x25519_ciphertext = ephemeral.public_key().public_bytes_raw()
        shared = _exchange(ephemeral, self.x25519, KEY_INVALID)
        secret = _xwing_combine(mlkem_secret, shared, x25519_ciphertext, self.x25519_public)
        return mlkem_ciphertext + x25519_ciphertext, secret


@dataclass(frozen=True, slots=True)
class XWingDecapsulationKey:
    """Both private keys of an X-Wing seed."""

    x25519_public: bytes
    mlkem: MLKEM768PrivateKey = field(repr=False)
    x25519: X25519PrivateKey = field(repr=False)

    def decapsulate(self, ciphertext: bytes) -> bytes:
        sized_ciphertext(ciphertext, MLKEM_CIPHERTEXT + _X25519)
        mlkem_secret = self.mlkem.decapsulate(ciphertext[:MLKEM_CIPHERTEXT])
        x25519_ciphertext = ciphertext[MLKEM_CIPHERTEXT:]
        shared = _exchange_with_ciphertext(self.x25519, x25519_ciphertext)
        return _xwing_combine(mlkem_secret, shared, x25519_ciphertext, self.x25519_public)


def mlkem_public(public: bytes) -> MLKEM768PublicKey:
    """An ML-KEM-768 public key, or `crypto.key_invalid` where it is not canonical (FIPS 203 section 7.2)."""
    try:
        return MLKEM768PublicKey.from_public_bytes(sized(public, MLKEM_PUBLIC, "ML-KEM-768 public key"))
    except ValueError:
        raise CryptoError(KEY_INVALID, "The ML-KEM-768 public key is not canonical.") from None


def x25519_public(public: bytes) -> X25519PublicKey:
    """An X25519 public key of 32 bytes."""
    return X25519PublicKey.from_public_bytes(sized(public, _X25519, "X25519 public key"))


def xwing_split(public: bytes) -> tuple[MLKEM768PublicKey, X25519PublicKey]:
    """Both components of an X-Wing public key."""
    sized(public, MLKEM_PUBLIC + _X25519, "X-Wing public key")
    return mlkem_public(public[:MLKEM_PUBLIC]), x25519_public(public[MLKEM_PUBLIC:])


def xwing_expand(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    """Both components of an X-Wing seed (draft-connolly-cfrg-xwing-kem section 5.2)."""
    expanded = hashlib.shake_256(sized(seed, _XWING_SEED, "X-Wing seed")).digest(MLKEM_PRIVATE + _X25519)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:MLKEM_PRIVATE])
    return mlkem, X25519PrivateKey.from_private_bytes(expanded[MLKEM_PRIVATE:])


def _xwing_combine(mlkem_secret: bytes, x25519_secret: bytes, ciphertext: bytes, public: bytes) -> bytes:
    return hashlib.sha3_256(mlkem_secret + x25519_secret + ciphertext + public + _XWING_LABEL).digest()


def _dhkem_secret(shared: bytes, encapsulated: bytes, public: bytes) -> bytes:
    extracted = hkdf_extract(b"", _HPKE_VERSION + _DHKEM_SUITE + b"eae_prk" + shared)
    info = (32).to_bytes(2, "big") + _HPKE_VERSION + _DHKEM_SUITE + b"shared_secret" + encapsulated + public
    return hkdf_expand(extracted, info, 32)


def _exchange_with_ciphertext(private: X25519PrivateKey, ciphertext: bytes) -> bytes:
    public = X25519PublicKey.from_public_bytes(sized_ciphertext(ciphertext, _X25519))
    return _exchange(private, public, CIPHERTEXT_INVALID)


def _exchange(private: X25519PrivateKey, public: X25519PublicKey, blame: Code) -> bytes:
    try:
        return private.exchange(public)
    except ValueError:
        # A point of small order gives an all-zero secret that anybody knows (RFC 7748 section 6.1).
        raise CryptoError(blame, "The X25519 value is a point of small order.") from None
