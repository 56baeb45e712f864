"""BIKE's key generation, encapsulation and decapsulation with implicit rejection, over plain bytes.

Source: BIKE specification v5.1 (2022-10-10): `H` is SHAKE256 with the Fisher-Yates sample of its algorithm 3, `K` and
`L` are the first 32 bytes of SHA3-384. Experimental: NIST did not choose it, and this code is not constant-time.
The rest of Ringfence gets it through `providers/bike.py`, whose secrets can only enter the combiner.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, field
from typing import Self

from ringfence.crypto.bike.decoder import decode
from ringfence.crypto.bike.parameters import SECRET_SIZE, SEED_SIZE, Parameters
from ringfence.crypto.bike.ring import invert, multiply, polynomial
from ringfence.crypto.errors import CIPHERTEXT_INVALID, KEY_INVALID, CryptoError


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key: the supports of `h0` and `h1`, the public key, and the rejection secret sigma.

    The specification gives `(h0, h1, sigma)` without an encoding. These bytes are the reference code's, so that keys go
    over to liboqs and back: both supports in the order of sampling (32-bit little-endian), `h0`, `h1`, the public key,
    sigma. What is in there twice has to agree.
    """

    level: Parameters
    public: bytes
    first: tuple[int, ...] = field(repr=False)
    second: tuple[int, ...] = field(repr=False)
    sigma: bytes = field(repr=False)

    def encode(self) -> bytes:
        indices = struct.pack(f"<{2 * self.level.d}I", *self.first, *self.second)
        dense = b"".join(_bytes(self.level, polynomial(block)) for block in (self.first, self.second))
        return indices + dense + self.public + self.sigma

    @classmethod
    def decode(cls, level: Parameters, encoded: bytes) -> Self:
        """Raises `crypto.key_invalid` for what no key generation writes."""
        if len(encoded) != level.private_size:
            raise _key_invalid(level, f"has {len(encoded)} bytes, not {level.private_size}")
        split = 8 * level.d
        indices = struct.unpack_from(f"<{2 * level.d}I", encoded)
        first, second = indices[: level.d], indices[level.d :]
        for block in (first, second):
            if len(set(block)) != level.d or max(block) >= level.r:
                raise _key_invalid(level, "does not hold two sets of positions")
        ends = [split + level.block * count for count in range(4)]
        key = cls(level, encoded[ends[2] : ends[3]], first, second, encoded[ends[3] :])
        if not hmac.compare_digest(key.encode(), encoded):
            raise _key_invalid(level, "contradicts itself")
        return key


def generate(level: Parameters, seed: bytes, sigma: bytes) -> PrivateKey:
    """The key pair of two 32-byte random values."""
    stream = _Stream(seed)
    first, second = stream.sample(level.d, level.r), stream.sample(level.d, level.r)
    public = multiply(second, invert(polynomial(first), level.r), level.r)
    return PrivateKey(level, _bytes(level, public), first, second, sigma)


def encapsulate(level: Parameters, public: bytes, message: bytes) -> tuple[bytes, bytes]:
    """The ciphertext and the 32-byte secret of a 32-byte random `message`; raises `crypto.key_invalid`."""
    key = public_polynomial(level, public)
    near, far = _error(level, message)
    head = _bytes(level, polynomial(near) ^ multiply(far, key, level.r))
    ciphertext = head + _exclusive_or(message, _hidden(level, polynomial(near), polynomial(far)))
    return ciphertext, _secret(message, ciphertext)


def decapsulate(key: PrivateKey, ciphertext: bytes) -> bytes:
    """The 32-byte secret; one made from sigma when `ciphertext` was not made by `encapsulate` for this key.

    Raises `crypto.ciphertext_invalid` for a ciphertext of another form, which says nothing about the key.
    """
    level = key.level
    head = ciphertext_polynomial(level, ciphertext)
    near, far = decode(level, (key.first, key.second), multiply(key.first, head, level.r))
    message = _exclusive_or(ciphertext[level.block :], _hidden(level, near, far))
    expected = b"".join(_bytes(level, polynomial(part)) for part in _error(level, message))
    accepted = hmac.compare_digest(expected, _bytes(level, near) + _bytes(level, far))
    return _secret(message if accepted else key.sigma, ciphertext)


def public_polynomial(level: Parameters, public: bytes) -> int:
    """The public key as a polynomial; raises `crypto.key_invalid` unless it has the length and no bit beyond it."""
    if len(public) != level.public_size:
        raise _key_invalid(level, f"has {len(public)} bytes, not {level.public_size}")
    value = int.from_bytes(public, "little")
    if value > level.mask:
        raise _key_invalid(level, "has bits beyond its length")
    return value


def ciphertext_polynomial(level: Parameters, ciphertext: bytes) -> int:
    """The syndrome in a ciphertext; raises `crypto.ciphertext_invalid` likewise."""
    if len(ciphertext) != level.ciphertext_size:
        raise CryptoError(
            CIPHERTEXT_INVALID, f"The {level.name} ciphertext has {len(ciphertext)} bytes, not {level.ciphertext_size}."
        )
    value = int.from_bytes(ciphertext[: level.block], "little")
    if value > level.mask:
        raise CryptoError(CIPHERTEXT_INVALID, f"The {level.name} ciphertext has bits beyond its length.")
    return value


class _Stream:
    """SHAKE256 of a seed, drawn in 32-bit little-endian words."""

    __slots__ = ("_drawn", "_xof")

    def __init__(self, seed: bytes) -> None:
        self._xof = hashlib.shake_256(seed)
        self._drawn = 0

    def sample(self, count: int, bound: int) -> tuple[int, ...]:
        """`count` different indices below `bound`, by the Fisher-Yates shuffle that the specification fixes."""
        end = self._drawn + count
        words = struct.unpack(f"<{end}I", self._xof.digest(4 * end))[self._drawn :]
        self._drawn = end
        chosen = [0] * count
        taken: set[int] = set()
        for position, word in zip(reversed(range(count)), words, strict=True):
            index = position + (word * (bound - position) >> 32)
            chosen[position] = position if index in taken else index
            taken.add(chosen[position])
        return tuple(chosen)


def _error(level: Parameters, message: bytes) -> tuple[list[int], list[int]]:
    """`H`: the positions of the error in either half."""
    positions = _Stream(message).sample(level.t, 2 * level.r)
    near = [position for position in positions if position < level.r]
    return near, [position - level.r for position in positions if position >= level.r]


def _hidden(level: Parameters, near: int, far: int) -> bytes:
    """`L`."""
    return hashlib.sha3_384(_bytes(level, near) + _bytes(level, far)).digest()[:SECRET_SIZE]


def _secret(message: bytes, ciphertext: bytes) -> bytes:
    """`K`."""
    return hashlib.sha3_384(message + ciphertext).digest()[:SECRET_SIZE]


def _bytes(level: Parameters, value: int) -> bytes:
    return value.to_bytes(level.block, "little")


def _exclusive_or(first: bytes, second: bytes) -> bytes:
    return (int.from_bytes(first, "little") ^ int.from_bytes(second, "little")).to_bytes(SEED_SIZE, "little")


def _key_invalid(level: Parameters, why: str) -> CryptoError:
    return CryptoError(KEY_INVALID, f"The {level.name} key {why}.")
