"""Quantum-safe envelopes at three levels, for data of any size in bounded memory. Sans-IO.

| level | who can open it | keys come from |
|---|---|---|
| `post_quantum` | the holder of an X-Wing key | HPKE MLKEM768-X25519, base mode, then a sealed stream |
| `quantum_resistant` | the same, and the author is proven | the same, all of it signed with SLH-DSA (FIPS 205) |
| `quantum_native` | the other end of a QKD link | one-time pads with one-time authenticators |

    envelope = header || frames of the stream || for quantum_resistant: a signature frame
    header   = "RFENVEL" || version (1 byte, 1) || level (1 byte) || chunk size (4 bytes)
               post_quantum:       SHA-256 of the recipient's key (32) || encapsulated key (1120)
               quantum_resistant:  SHA-256 of the recipient's key (32) || of the author's key (32) || encapsulated key

The whole header and the caller's `info` are associated data of every chunk. The signature covers everything before it
and `info`, and is checked before anything is decrypted. Numbers are big endian. docs/cryptography.md has the argument.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from ringfence.crypto.errors import ALGORITHM_UNKNOWN, CIPHERTEXT_INVALID, SIGNATURE_INVALID, CryptoError
from ringfence.crypto.exporter import ENCAPSULATED_SIZE, Schedule, schedule_from, schedule_to
from ringfence.crypto.pad import KeyLedger, KeySource, PadOpener, PadSealer, largest_chunk
from ringfence.crypto.ports import Signature
from ringfence.crypto.stream import (
    CHUNK_SIZE,
    PREFIX_SIZE,
    GcmChunks,
    Kind,
    Reader,
    closed,
    frame,
    open_chunks,
    seal_chunks,
    take_frame,
)
from ringfence.crypto.symmetric import KEY_SIZE, digest

_MAGIC = b"RFENVEL\x01"
_INFO = b"ringfence envelope"
_SIGNED = b"ringfence envelope 1"
_ID = 32
_MAX_SIGNATURE = 64 * 1024

Source: TypeAlias = Callable[[], Iterable[bytes]]


class Level(enum.IntEnum):
    """How an envelope is sealed; the number is its byte on the wire."""

    POST_QUANTUM = 1
    QUANTUM_RESISTANT = 2
    QUANTUM_NATIVE = 3


@dataclass(frozen=True, slots=True)
class RecipientKey:
    """An X-Wing key pair that opens envelopes."""

    public: bytes
    _private: bytes = field(repr=False, compare=False)

    def schedule(self, encapsulated: bytes, info: bytes) -> Schedule:
        """The key schedule of an envelope that was sealed to this key."""
        return schedule_from(self._private, encapsulated, info)


@dataclass(frozen=True, slots=True)
class Author:
    """A signing key of an SLH-DSA algorithm that vouches for envelopes."""

    algorithm: Signature
    public: bytes
    _private: bytes = field(repr=False, compare=False)

    def sign(self, message: bytes) -> bytes:
        """The signature of an envelope's digest."""
        return self.algorithm.sign(self._private, message, _SIGNED)


@dataclass(frozen=True, slots=True)
class PostQuantum:
    """Seals to the holder of the X-Wing public key `recipient`."""

    recipient: bytes


@dataclass(frozen=True, slots=True)
class PostQuantumKeys:
    """Opens what was sealed to any of `keys`: during a rotation, the old and the new one."""

    keys: tuple[RecipientKey, ...]


@dataclass(frozen=True, slots=True)
class QuantumResistant:
    """Seals to `recipient`, signed by `author`."""

    recipient: bytes
    author: Author

    def __post_init__(self) -> None:
        _hash_based(self.author.algorithm)


@dataclass(frozen=True, slots=True)
class QuantumResistantKeys:
    """Opens what any of the pinned `authors` (public keys of `algorithm`) sealed to any of `keys`."""

    keys: tuple[RecipientKey, ...]
    algorithm: Signature
    authors: tuple[bytes, ...]

    def __post_init__(self) -> None:
        _hash_based(self.algorithm)


@dataclass(frozen=True, slots=True)
class QuantumNative:
    """One end of a QKD link: seals to the other end, and opens what the other end sealed."""

    source: KeySource
    ledger: KeyLedger


Sealing: TypeAlias = PostQuantum | QuantumResistant | QuantumNative
Opening: TypeAlias = PostQuantumKeys | QuantumResistantKeys | QuantumNative


def seal_envelope(level: Sealing, plaintext: bytes, *, info: bytes = b"") -> bytes:
    """`plaintext` sealed at `level`; whoever opens it must give the same `info`, which is not sent along."""
    return b"".join(seal_stream(level, [plaintext], info=info))


def open_envelope(level: Opening, envelope: bytes, *, info: bytes = b"") -> bytes:
    """The plaintext, all of it or nothing.

    Raises `CryptoError`: `crypto.ciphertext_invalid`, the same for every reason that lies in the envelope; for
    one-time pads also `crypto.key_spent` and `crypto.key_unavailable`, which speak of the key that it names.
    """
    return b"".join(open_stream(level, lambda: [envelope], info=info))


def seal_stream(level: Sealing, pieces: Iterable[bytes], *, info: bytes = b"") -> Iterator[bytes]:
    """The envelope of a plaintext that comes in pieces of any size, itself in pieces."""
    match level:
        case PostQuantum(recipient):
            start = _start(Level.POST_QUANTUM, CHUNK_SIZE) + digest(recipient)
            yield from _seal_to(recipient, start, pieces, info)
        case QuantumResistant(recipient, author):
            start = _start(Level.QUANTUM_RESISTANT, CHUNK_SIZE) + digest(recipient) + digest(author.public)
            signed = _signed(info)
            for piece in _seal_to(recipient, start, pieces, info):
                signed.update(piece)
                yield piece
            yield frame(Kind.SIGNATURE, author.sign(signed.digest()))
        case QuantumNative(source, ledger):
            size = largest_chunk(source)
            header = _start(Level.QUANTUM_NATIVE, size)
            yield header
            yield from seal_chunks(pieces, PadSealer(source, ledger, _associated(header, info)), size)


def open_stream(level: Opening, source: Source, *, info: bytes = b"") -> Iterator[bytes]:
    """The plaintext in pieces, each authenticated before it is given out; errors as in `open_envelope`.

    `source` gives the envelope's pieces from the start each time it is called. It is called twice for
    `quantum_resistant`, whose signature is at the end and comes first; a source that gives something else the second
    time is noticed. What was given out before an error is an authentic beginning of a plaintext, never the whole.
    """
    match level:
        case PostQuantumKeys(keys):
            reader = Reader(source())
            size, start = _take_start(reader, Level.POST_QUANTUM)
            recipient = reader.take(_ID)
            chunks = _open_from(keys, recipient, start + recipient, reader, info)
            yield from open_chunks(reader, chunks, size, reader.end)
        case QuantumResistantKeys(keys):
            approved = _verify(level, source(), info)
            again = _signed(info)
            reader = Reader(source(), again.update)
            size, start = _take_start(reader, Level.QUANTUM_RESISTANT)
            recipient, author = reader.take(_ID), reader.take(_ID)
            chunks = _open_from(keys, recipient, start + recipient + author, reader, info)

            def unchanged() -> None:
                if again.digest() != approved:
                    raise closed()

            yield from open_chunks(reader, chunks, size, unchanged)
        case QuantumNative(link, ledger):
            reader = Reader(source())
            size, header = _take_start(reader, Level.QUANTUM_NATIVE)
            opener = PadOpener(link, ledger, _associated(header, info))
            yield from open_chunks(reader, opener, size, reader.end)


def _seal_to(recipient: bytes, start: bytes, pieces: Iterable[bytes], info: bytes) -> Iterator[bytes]:
    encapsulated, schedule = schedule_to(recipient, _INFO + _associated(start, info))
    header = start + encapsulated
    yield header
    yield from seal_chunks(pieces, _gcm(schedule, _associated(header, info)))


def _open_from(
    keys: tuple[RecipientKey, ...], recipient: bytes, start: bytes, reader: Reader, info: bytes
) -> GcmChunks:
    encapsulated = reader.take(ENCAPSULATED_SIZE)
    for key in keys:
        if digest(key.public) == recipient:
            try:
                schedule = key.schedule(encapsulated, _INFO + _associated(start, info))
            except CryptoError as error:
                raise (closed() if error.code is CIPHERTEXT_INVALID else error) from None
            return _gcm(schedule, _associated(start + encapsulated, info))
    raise closed()


def _gcm(schedule: Schedule, associated: bytes) -> GcmChunks:
    return GcmChunks(
        schedule.export(b"stream prefix", PREFIX_SIZE), associated, schedule.export(b"stream key", KEY_SIZE)
    )


def _verify(level: QuantumResistantKeys, pieces: Iterable[bytes], info: bytes) -> bytes:
    """The digest that the author signed, once the signature holds; decrypts nothing."""
    signed = _signed(info)
    reader = Reader(pieces, signed.update)
    size, _ = _take_start(reader, Level.QUANTUM_RESISTANT)
    reader.take(_ID)
    author = reader.take(_ID)
    reader.take(ENCAPSULATED_SIZE)
    public = next((public for public in level.authors if digest(public) == author), None)
    if public is None:
        raise closed()
    kind = Kind.MORE
    while kind is Kind.MORE:
        kind, _ = take_frame(reader, size + _MAX_SIGNATURE)
    if kind is not Kind.LAST:
        raise closed()
    approved = signed.digest()
    reader.stop_watching()
    kind, signature = take_frame(reader, _MAX_SIGNATURE)
    if kind is not Kind.SIGNATURE:
        raise closed()
    reader.end()
    try:
        level.algorithm.verify(public, approved, signature, _SIGNED)
    except CryptoError as error:
        raise (closed() if error.code is SIGNATURE_INVALID else error) from None
    return approved


def _start(level: Level, size: int) -> bytes:
    return _MAGIC + bytes([level]) + size.to_bytes(4, "big")


def _take_start(reader: Reader, level: Level) -> tuple[int, bytes]:
    start = reader.take(len(_MAGIC) + 5)
    size = int.from_bytes(start[-4:], "big")
    if start != _start(level, size) or not 0 < size <= CHUNK_SIZE:
        raise closed()
    return size, start


def _associated(header: bytes, info: bytes) -> bytes:
    return len(header).to_bytes(4, "big") + header + info


def _signed(info: bytes) -> hashlib._Hash:
    return hashlib.sha512(len(info).to_bytes(8, "big") + info)


def _hash_based(algorithm: Signature) -> None:
    # The level promises a signature that rests on a hash function alone.
    if not algorithm.name.startswith("SLH-DSA-"):
        raise CryptoError(
            ALGORITHM_UNKNOWN,
            f"{algorithm.name} does not sign quantum_resistant envelopes.",
            hint="Use SLH-DSA-SHA2-128f.",
        )
