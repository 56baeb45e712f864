"""Key encapsulation: ML-KEM-768 (FIPS 203), DHKEM over X25519 (RFC 9180), and their hybrid X-Wing.

X-Wing (draft-connolly-cfrg-xwing-kem) holds while either component does: its secret is
`SHA3-256(ss_M || ss_X || ct_X || pk_X || label)`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from ringfence.crypto.errors import ALGORITHM_UNKNOWN, CIPHERTEXT_INVALID, KEY_INVALID, CryptoError
from ringfence.crypto.symmetric import hkdf_expand, hkdf_extract
from ringfence.errors import Code

_MLKEM_PUBLIC = 1184
_MLKEM_PRIVATE = 64
_MLKEM_CIPHERTEXT = 1088
_X25519 = 32
_XWING_SEED = 32
_XWING_LABEL = b"\\.//^\\"


class Kem(Protocol):
    """A key encapsulation mechanism over plain bytes in its standard's own encoding."""

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


@dataclass(frozen=True, slots=True)
class MlKem768:
    """ML-KEM-768, FIPS 203; the private key is the 64-byte seed `d || z`."""

    name: str = "ML-KEM-768"

    def generate(self) -> tuple[bytes, bytes]:
        private = MLKEM768PrivateKey.generate()
        return private.public_key().public_bytes_raw(), private.private_bytes_raw()

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        _sized(public, _MLKEM_PUBLIC)
        try:
            key = MLKEM768PublicKey.from_public_bytes(public)
        except ValueError:
            raise CryptoError(KEY_INVALID, "The ML-KEM-768 public key is not canonical.") from None
        secret, ciphertext = key.encapsulate()
        return ciphertext, secret

    def decapsulate(self, private: bytes, ciphertext: bytes) -> bytes:
        _ciphertext(ciphertext, _MLKEM_CIPHERTEXT)
        return MLKEM768PrivateKey.from_seed_bytes(_sized(private, _MLKEM_PRIVATE)).decapsulate(ciphertext)


@dataclass(frozen=True, slots=True)
class DhKemX25519:
    """DHKEM(X25519, HKDF-SHA256), RFC 9180 section 4.1."""

    name: str = "X25519"

    def generate(self) -> tuple[bytes, bytes]:
        private = X25519PrivateKey.generate()
        return private.public_key().public_bytes_raw(), private.private_bytes_raw()

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        ephemeral = X25519PrivateKey.generate()
        encapsulated = ephemeral.public_key().public_bytes_raw()
        return encapsulated, self._secret(_exchange(ephemeral, public, KEY_INVALID), encapsulated, public)

    def decapsulate(self, private: bytes, ciphertext: bytes) -> bytes:
        key = X25519PrivateKey.from_private_bytes(_sized(private, _X25519))
        shared = _exchange(key, _ciphertext(ciphertext, _X25519), CIPHERTEXT_INVALID)
        return self._secret(shared, ciphertext, key.public_key().public_bytes_raw())

    def _secret(self, shared: bytes, encapsulated: bytes, public: bytes) -> bytes:
        suite = b"HPKE-v1" + b"KEM" + (0x0020).to_bytes(2, "big")
        extracted = hkdf_extract(b"", suite + b"eae_prk" + shared)
        info = (32).to_bytes(2, "big") + suite + b"shared_secret" + encapsulated + public
        return hkdf_expand(extracted, info, 32)


@dataclass(frozen=True, slots=True)
class XWing:
    """X-Wing: X25519 and ML-KEM-768; the private key is a 32-byte seed, the public key `pk_M || pk_X` (1216 bytes)."""

    name: str = "X-Wing"
    mlkem: MlKem768 = MlKem768()

    def generate(self) -> tuple[bytes, bytes]:
        seed = X25519PrivateKey.generate().private_bytes_raw()
        return self.public(seed), seed

    def public(self, private: bytes) -> bytes:
        """The public key of a seed."""
        mlkem_seed, x25519 = _xwing_expand(private)
        mlkem_public = MLKEM768PrivateKey.from_seed_bytes(mlkem_seed).public_key().public_bytes_raw()
        return mlkem_public + x25519.public_key().public_bytes_raw()

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        _sized(public, _MLKEM_PUBLIC + _X25519)
        mlkem_ciphertext, mlkem_secret = self.mlkem.encapsulate(public[:_MLKEM_PUBLIC])
        ephemeral = X25519PrivateKey.generate()
        x25519_public = public[_MLKEM_PUBLIC:]
        x25519_ciphertext = ephemeral.public_key().public_bytes_raw()
        shared = _exchange(ephemeral, x25519_public, KEY_INVALID)
        secret = _xwing_combine(mlkem_secret, shared, x25519_ciphertext, x25519_public)
        return mlkem_ciphertext + x25519_ciphertext, secret

    def decapsulate(self, private: bytes, ciphertext: bytes) -> bytes:
        _ciphertext(ciphertext, _MLKEM_CIPHERTEXT + _X25519)
        mlkem_seed, x25519 = _xwing_expand(private)
        mlkem_secret = self.mlkem.decapsulate(mlkem_seed, ciphertext[:_MLKEM_CIPHERTEXT])
        x25519_ciphertext = ciphertext[_MLKEM_CIPHERTEXT:]
        shared = _exchange(x25519, x25519_ciphertext, CIPHERTEXT_INVALID)
        public = x25519.public_key().public_bytes_raw()
        return _xwing_combine(mlkem_secret, shared, x25519_ciphertext, public)


_KEMS: tuple[Kem, ...] = (MlKem768(), DhKemX25519(), XWing())


def kem(name: str) -> Kem:
    """The KEM called `name`; raises `crypto.algorithm_unknown`."""
    for algorithm in _KEMS:
        if algorithm.name == name:
            return algorithm
    known = ", ".join(algorithm.name for algorithm in _KEMS)
    raise CryptoError(ALGORITHM_UNKNOWN, f"There is no KEM {name!r}.", hint=f"Known: {known}.")


def _xwing_expand(seed: bytes) -> tuple[bytes, X25519PrivateKey]:
    expanded = hashlib.shake_256(_sized(seed, _XWING_SEED)).digest(96)
    return expanded[:64], X25519PrivateKey.from_private_bytes(expanded[64:])


def _xwing_combine(mlkem_secret: bytes, x25519_secret: bytes, ciphertext: bytes, public: bytes) -> bytes:
    return hashlib.sha3_256(mlkem_secret + x25519_secret + ciphertext + public + _XWING_LABEL).digest()


def _exchange(private: X25519PrivateKey, public: bytes, blame: Code) -> bytes:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(_sized(public, _X25519)))
    except ValueError:
        # A point of small order gives an all-zero secret that anybody knows (RFC 7748 section 6.1).
        raise CryptoError(blame, "The X25519 value is a point of small order.") from None


def _sized(key: bytes, size: int) -> bytes:
    if len(key) != size:
        raise CryptoError(KEY_INVALID, f"The KEM key has {len(key)} bytes, not {size}.")
    return key


def _ciphertext(ciphertext: bytes, size: int) -> bytes:
    if len(ciphertext) != size:
        raise CryptoError(CIPHERTEXT_INVALID, f"The KEM ciphertext has {len(ciphertext)} bytes, not {size}.")
    return ciphertext
