"""Sealed streams: chunks that cannot be cut short, reordered, repeated or extended, in bounded memory. Sans-IO.

The construction is STREAM (Hoang, Reyhanitabar, Rogaway, Vizar, CRYPTO 2015): the nonce of a chunk is a prefix, its
number and whether it is the last one, under a key that seals one stream only. On the wire a chunk is a frame:

    kind (1 byte: 0 more follow, 1 the last) || length (4 bytes, big endian) || body

Every chunk but the last is full, and only an empty stream has an empty chunk, so a plaintext has one framing.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from ringfence.crypto.errors import CIPHERTEXT_INVALID, STREAM_TOO_LONG, CryptoError
from ringfence.crypto.symmetric import NONCE_SIZE, seal, unseal

CHUNK_SIZE: Final = 64 * 1024
TAG_SIZE: Final = 16
_COUNTER = 4
PREFIX_SIZE: Final = NONCE_SIZE - _COUNTER - 1
MAX_CHUNKS: Final = 1 << (8 * _COUNTER)
_HEAD = 5


class Kind(enum.IntEnum):
    """What a frame holds."""

    MORE = 0
    LAST = 1
    SIGNATURE = 2


class ChunkSealer(Protocol):
    """Seals the chunks of one stream, each number once."""

    def seal(self, number: int, last: bool, plaintext: bytes) -> bytes: ...


class ChunkOpener(Protocol):
    """Opens the chunks of one stream. Every failure that an attacker can cause raises `closed()`."""

    @property
    def overhead(self) -> int:
        """By how many bytes a sealed chunk is at most longer than its plaintext."""
        ...

    def open(self, number: int, last: bool, body: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class GcmChunks:
    """AES-256-GCM under a key of this stream alone; `associated` is authenticated with every chunk."""

    prefix: bytes
    associated: bytes
    _key: bytes = field(repr=False)

    @property
    def overhead(self) -> int:
        return TAG_SIZE

    def seal(self, number: int, last: bool, plaintext: bytes) -> bytes:
        return seal(self._key, self._nonce(number, last), plaintext, self.associated)

    def open(self, number: int, last: bool, body: bytes) -> bytes:
        try:
            return unseal(self._key, self._nonce(number, last), body, self.associated)
        except CryptoError:
            raise closed() from None

    def _nonce(self, number: int, last: bool) -> bytes:
        if number >= MAX_CHUNKS:
            raise CryptoError(STREAM_TOO_LONG, f"A stream holds at most {MAX_CHUNKS} chunks.", hint="Split the input.")
        return self.prefix + number.to_bytes(_COUNTER, "big") + bytes([last])


class Reader:
    """Takes exact lengths out of pieces of any size; holds no more than it was asked for and one piece."""

    def __init__(self, pieces: Iterable[bytes], watch: Callable[[bytes], object] | None = None) -> None:
        self._pieces = iter(pieces)
        self._held = bytearray()
        self._watch = watch

    def take(self, length: int) -> bytes:
        """The next `length` bytes; a source that ends before raises `closed()`."""
        while len(self._held) < length:
            piece = next(self._pieces, None)
            if piece is None:
                raise closed()
            self._held += piece
        taken = bytes(memoryview(self._held)[:length])
        del self._held[:length]
        if self._watch is not None:
            self._watch(taken)
        return taken

    def stop_watching(self) -> None:
        """What is taken from here on is not shown to `watch`."""
        self._watch = None

    def end(self) -> None:
        """Raises `closed()` unless the source is at its end."""
        if self._held or any(self._pieces):
            raise closed()


def seal_chunks(pieces: Iterable[bytes], sealer: ChunkSealer, size: int = CHUNK_SIZE) -> Iterator[bytes]:
    """The frames of the plaintext in `pieces`, whatever their lengths, in chunks of `size` bytes."""
    for number, (chunk, last) in enumerate(_chunks(pieces, size)):
        yield frame(Kind.LAST if last else Kind.MORE, sealer.seal(number, last, chunk))


def open_chunks(reader: Reader, opener: ChunkOpener, size: int, at_end: Callable[[], None]) -> Iterator[bytes]:
    """The plaintext chunks of `size` bytes, each after it was authenticated.

    `at_end` reads what follows the last chunk, which is given out only after it has returned. Until the iterator ends
    without an error, what it gave is a prefix of the plaintext and no more.
    """
    for number in itertools.count():
        kind, body = take_frame(reader, size + opener.overhead)
        if kind is Kind.SIGNATURE:
            raise closed()
        last = kind is Kind.LAST
        plaintext = opener.open(number, last, body)
        if len(plaintext) > size or (len(plaintext) < size and not last) or not (plaintext or number == 0):
            raise closed()
        if last:
            at_end()
            if plaintext:
                yield plaintext
            return
        yield plaintext


def frame(kind: Kind, body: bytes) -> bytes:
    """A frame as it goes over the wire."""
    return bytes([kind]) + len(body).to_bytes(4, "big") + body


def take_frame(reader: Reader, limit: int) -> tuple[Kind, bytes]:
    """The next frame; one that is longer than `limit` is refused before it is read."""
    head = reader.take(_HEAD)
    length = int.from_bytes(head[1:], "big")
    if head[0] not in Kind.__members__.values() or length > limit:
        raise closed()
    return Kind(head[0]), reader.take(length)


def closed() -> CryptoError:
    """The one error of everything that does not open, whatever the reason."""
    return CryptoError(
        CIPHERTEXT_INVALID,
        "The envelope does not open.",
        hint="It was altered or cut, or made for another key, level, author or purpose: ask for it again.",
    )


def _chunks(pieces: Iterable[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    held = bytearray()
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            # A full chunk waits until more comes, because it may be the last one.
            if len(held) == size:
                yield bytes(held), False
                held.clear()
            room = size - len(held)
            held += rest[:room]
            rest = rest[room:]
    yield bytes(held), True
