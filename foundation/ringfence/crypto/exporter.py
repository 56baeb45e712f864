"""HPKE's key schedule over X-Wing in base mode (RFC 9180 section 5.1): keys by purpose where one message is too few.

The suite is MLKEM768-X25519 (0x647a, which is X-Wing; draft-ietf-hpke-pq), HKDF-SHA256 and AES-256-GCM. The library's
own HPKE seals one message and exports nothing, so streams take their key from here. The tests open what the library
sealed with the keys of this schedule.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ringfence.crypto.kems import kem
from ringfence.crypto.symmetric import KEY_SIZE, hkdf_expand, hkdf_extract

ENCAPSULATED_SIZE: Final = 1120
_KEM, _KDF, _AEAD = 0x647A, 0x0001, 0x0002
_BASE_MODE = b"\x00"
_SUITE = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (_KEM, _KDF, _AEAD))
_XWING = kem("X-Wing")


@dataclass(frozen=True, slots=True)
class Schedule:
    """One side of an HPKE context; both sides hold the same one where key, ciphertext and `info` are the same."""

    context: bytes
    secret: bytes = field(repr=False)

    def expand(self, label: bytes, length: int) -> bytes:
        """`LabeledExpand(secret, label, key_schedule_context, length)`, from which HPKE takes all it derives."""
        return _labeled_expand(self.secret, label, self.context, length)

    def export(self, purpose: bytes, length: int) -> bytes:
        """A secret of `length` bytes for one purpose (RFC 9180 section 5.3)."""
        return _labeled_expand(self.expand(b"exp", KEY_SIZE), b"sec", purpose, length)


def schedule_to(public: bytes, info: bytes) -> tuple[bytes, Schedule]:
    """The encapsulated key (1120 bytes) for the X-Wing key `public`, and the sender's schedule."""
    encapsulated, secret = _XWING.encapsulate(public)
    return encapsulated, _schedule(secret, info)


def schedule_from(private: bytes, encapsulated: bytes, info: bytes) -> Schedule:
    """The recipient's schedule; a forged `encapsulated` gives another one, or `crypto.ciphertext_invalid`."""
    return _schedule(_XWING.decapsulate(private, encapsulated), info)


def _schedule(shared: bytes, info: bytes) -> Schedule:
    no_psk = _labeled_extract(b"", b"psk_id_hash", b"")
    context = _BASE_MODE + no_psk + _labeled_extract(b"", b"info_hash", info)
    return Schedule(context, _labeled_extract(shared, b"secret", b""))


def _labeled_extract(salt: bytes, label: bytes, secret: bytes) -> bytes:
    return hkdf_extract(salt, b"HPKE-v1" + _SUITE + label + secret)


def _labeled_expand(key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return hkdf_expand(key, length.to_bytes(2, "big") + b"HPKE-v1" + _SUITE + label + info, length)
