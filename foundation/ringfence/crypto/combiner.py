"""The combiner: one session secret from X-Wing, additional shares, the transcript and what both sides have verified.

It is HKDF-SHA256 (RFC 5869) over the concatenation of fixed-length secrets, X-Wing's first, as SP 800-56C revision 2
section 2 has it (`Z' = Z || T`), with every public key and ciphertext under the salt, as a KEM combiner needs to stay
secure against chosen ciphertexts (Giacon, Heuer, Poettering, PKC 2018). docs/cryptography.md gives the argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from ringfence.crypto.errors import KEY_INVALID, CryptoError
from ringfence.crypto.symmetric import KEY_SIZE, hkdf_expand, hkdf_extract

SECRET_SIZE: Final = 32
_BINDING_LABEL = b"ringfence session 1"


@dataclass(frozen=True, slots=True)
class AdditionalShare:
    """A secret that may add to another one and never stands alone; only the combiner reads it.

    KEMs whose standing does not carry a session by itself (BIKE) give this instead of bytes, so that a type checker
    and the missing accessor both refuse it as a key. The secret has exactly 32 bytes, else `crypto.key_invalid`.
    """

    algorithm: str
    _secret: bytes = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        _sized(self._secret)


class AdditionalShareKem(Protocol):
    """A KEM whose secret may only add to a session: used with a key made for one handshake and dropped after it."""

    @property
    def name(self) -> str: ...

    def generate(self) -> tuple[bytes, bytes]:
        """A fresh key pair, `(public, private)`."""
        ...

    def encapsulate(self, public: bytes) -> tuple[bytes, AdditionalShare]:
        """A ciphertext for `public` and the share it carries."""
        ...

    def decapsulate(self, private: bytes, ciphertext: bytes) -> AdditionalShare:
        """The share; for a forged ciphertext one that nobody else has (implicit rejection)."""
        ...


@dataclass(frozen=True, slots=True)
class Bound:
    """What the keys depend on beside the transcript: digests as text, empty where the handshake carries none.

    Each side digests what it holds itself: the attestation result that it checked, the policy bundle that it applies
    or was told of in the sealed parameters. Sides that hold different things get different keys.
    """

    attestation: str = ""
    policies: str = ""


NOTHING_BOUND: Final = Bound()


def combine(salt: bytes, secret: bytes, shares: Iterable[AdditionalShare] = ()) -> bytes:
    """The 32-byte early secret of X-Wing's `secret` and the shares, in the order in which they were negotiated.

    `salt` is the transcript's digest: it fixes every public key and ciphertext, and so which shares there are. Raises
    `crypto.key_invalid` unless `secret` has 32 bytes.
    """
    # The shares have one length and their number is under the salt: no two lists give the same input.
    additional = b"".join(share._secret for share in shares)  # noqa: SLF001 - the one reader there is
    return hkdf_extract(salt, _sized(secret) + additional)


def bind(key: bytes, *, initiator: str, responder: str, bound: Bound) -> bytes:
    """A 32-byte secret that depends on both identities (key ids) and on what the two sides have verified."""
    fields = (initiator, responder, bound.attestation, bound.policies)
    return hkdf_expand(key, _BINDING_LABEL + b"".join(_framed(field.encode()) for field in fields), KEY_SIZE)


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _sized(secret: bytes) -> bytes:
    if len(secret) != SECRET_SIZE:
        raise CryptoError(KEY_INVALID, f"A shared secret has {len(secret)} bytes, not {SECRET_SIZE}.")
    return secret
