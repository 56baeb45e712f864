"""One-time pads: chunks under keys that two sites share through quantum key distribution, each key used once.

A chunk is XORed with a key of its own length and authenticated by Poly1305 (RFC 8439 section 2.5) under 32 further
bytes of that key, never reused: a Wegman-Carter authenticator, because a pad alone can be altered at will. Secrecy and
integrity then rest on no computational assumption, as far as the keys themselves do. A body is

    length of the key id (1 byte) || key id || ciphertext || tag (16 bytes)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.poly1305 import Poly1305

from ringfence.crypto.errors import KEY_UNAVAILABLE, CryptoError
from ringfence.crypto.stream import CHUNK_SIZE, TAG_SIZE, closed

MAC_KEY_SIZE: Final = 32
MAX_KEY_ID: Final = 64
_KEY_ID = re.compile(rf"[A-Za-z0-9-]{{1,{MAX_KEY_ID}}}")


@dataclass(frozen=True, slots=True)
class SharedKey:
    """A key that the two sites of a link share, with the id under which the other site asks for it."""

    key_id: str
    secret: bytes = field(repr=False)


class KeySource(Protocol):
    """One end of a link that delivers shared keys, in the shape of ETSI GS QKD 014 V1.1.1 (section 5).

    Sizes are in bytes where the standard's JSON has bits. A source gives each key out once at either end and forgets
    it. Faults of the source are `CryptoError` (`crypto.key_unavailable`).
    """

    @property
    def max_key_size(self) -> int:
        """The longest key that one call gives (`max_key_size` of "Get status")."""
        ...

    def get_key(self, number: int, size: int) -> Sequence[SharedKey]:
        """`number` fresh keys of `size` bytes, for the site that seals ("Get key")."""
        ...

    def get_key_with_ids(self, key_ids: Sequence[str]) -> Sequence[SharedKey]:
        """The keys that the other end got, for the site that opens ("Get key with key IDs")."""
        ...


class KeyLedger(Protocol):
    """What remembers, durably, which keys this site has used, for sealing or for opening."""

    def spend(self, key_id: str) -> None:
        """Marks the key as used and returns once that is durable; `crypto.key_spent` where it was used before."""
        ...


class PadSealer:
    """Seals the chunks of one stream, each with a fresh key that is spent in the ledger before it meets a plaintext."""

    def __init__(self, source: KeySource, ledger: KeyLedger, associated: bytes) -> None:
        self._source = source
        self._ledger = ledger
        self._associated = associated
        self._stream = b""

    def seal(self, number: int, last: bool, plaintext: bytes) -> bytes:
        size = len(plaintext) + MAC_KEY_SIZE
        key = _only(self._source.get_key(1, size))
        if len(key.secret) != size or not _KEY_ID.fullmatch(key.key_id):
            raise _unavailable(f"The key source gave no key of {size} bytes with a usable id.")
        self._ledger.spend(key.key_id)
        name = key.key_id.encode()
        self._stream = self._stream or name
        pad, mac_key = key.secret[: len(plaintext)], key.secret[len(plaintext) :]
        ciphertext = _xor(pad, plaintext)
        message = _message(self._associated, self._stream, name, number, last, ciphertext)
        return bytes([len(name)]) + name + ciphertext + Poly1305.generate_tag(mac_key, message)


class PadOpener:
    """Opens the chunks of one stream; a key is spent before its tag is compared: a forgery gets one try at it."""

    def __init__(self, source: KeySource, ledger: KeyLedger, associated: bytes) -> None:
        self._source = source
        self._ledger = ledger
        self._associated = associated
        self._stream = b""

    @property
    def overhead(self) -> int:
        return 1 + MAX_KEY_ID + TAG_SIZE

    def open(self, number: int, last: bool, body: bytes) -> bytes:
        key_id, ciphertext, tag = _split(body)
        key = _only(self._source.get_key_with_ids([key_id]))
        if key.key_id != key_id:
            raise _unavailable("The key source gave another key than the one it was asked for.")
        self._ledger.spend(key_id)
        if len(key.secret) != len(ciphertext) + MAC_KEY_SIZE:
            raise closed()
        name = key_id.encode()
        self._stream = self._stream or name
        pad, mac_key = key.secret[: len(ciphertext)], key.secret[len(ciphertext) :]
        try:
            Poly1305.verify_tag(mac_key, _message(self._associated, self._stream, name, number, last, ciphertext), tag)
        except InvalidSignature:
            raise closed() from None
        return _xor(pad, ciphertext)


def largest_chunk(source: KeySource) -> int:
    """How many bytes one key of `source` seals, at most a full chunk; `crypto.key_unavailable` where none."""
    size = min(CHUNK_SIZE, source.max_key_size - MAC_KEY_SIZE)
    if size < 1:
        raise _unavailable(f"Keys of {source.max_key_size} bytes are too short to seal anything.")
    return size


def _split(body: bytes) -> tuple[str, bytes, bytes]:
    name = body[1 : 1 + body[0]] if body else b""
    key_id = name.decode("ascii", "replace")
    if not _KEY_ID.fullmatch(key_id) or len(body) < 1 + body[0] + TAG_SIZE:
        raise closed()
    return key_id, body[1 + body[0] : -TAG_SIZE], body[-TAG_SIZE:]


def _message(associated: bytes, stream: bytes, name: bytes, number: int, last: bool, ciphertext: bytes) -> bytes:
    """What the tag covers. `stream` is the id of the first chunk's key: chunks of two streams cannot be mixed."""
    place = number.to_bytes(8, "big") + bytes([last])
    return b"".join(len(part).to_bytes(8, "big") + part for part in (associated, stream, name, place, ciphertext))


def _only(keys: Sequence[SharedKey]) -> SharedKey:
    if len(keys) != 1:
        raise _unavailable(f"The key source gave {len(keys)} keys in place of one.")
    return keys[0]


def _xor(pad: bytes, data: bytes) -> bytes:
    return (int.from_bytes(pad, "big") ^ int.from_bytes(data, "big")).to_bytes(len(data), "big")


def _unavailable(what: str) -> CryptoError:
    return CryptoError(KEY_UNAVAILABLE, what, hint="Look at the link's key management entity.")
