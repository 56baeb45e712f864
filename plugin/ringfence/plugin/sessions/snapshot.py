"""Sealed snapshots of the sessions: bytes out of a store, and sessions out of bytes. Sans-IO.

A snapshot is a header, then a sealed stream (`ringfence.crypto.stream`: AES-256-GCM in chunks that cannot be cut,
reordered or mixed):

    length of the header (2 bytes, big endian) || header (msgpack) || frames

The stream's key is drawn from the snapshot key and the header's salt by HKDF-SHA256 (RFC 5869), and the header is
authenticated with every chunk, so a snapshot opens for its gateway, its generation and its version alone. Inside, each
batch of sessions is 4 bytes of length and a msgpack array.

The keys of sessions are in it, as nobody could go on otherwise: it is secret, and no more than the snapshot key is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Final

import msgspec

from ringfence.crypto import CryptoError
from ringfence.crypto.stream import CHUNK_SIZE, PREFIX_SIZE, GcmChunks, Kind, Reader, frame, open_chunks
from ringfence.crypto.symmetric import KEY_SIZE, hkdf_expand, hkdf_extract
from ringfence.plugin.errors import GateError
from ringfence.plugin.sessions.errors import SNAPSHOT_REFUSED
from ringfence.plugin.sessions.port import Session
from ringfence.plugin.sessions.store import MemorySessions

SALT_BYTES: Final = 32
BATCH: Final = 256
_DOMAIN: Final = b"ringfence session snapshot 1"
_MAX_HEADER: Final = 1024
_MAX_BATCH: Final = 16 << 20

Salt = Annotated[bytes, msgspec.Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What a snapshot says of itself in the clear, and is authenticated."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    gateway: Annotated[str, msgspec.Meta(max_length=256)]
    generation: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    salt: Salt


class _Kept(Session, frozen=True, gc=False, array_like=True):
    """A session as a snapshot writes it."""


_BATCH: Final = msgspec.msgpack.Decoder(list[tuple[_Kept, int]])


def seal_snapshot(store: MemorySessions, header: Header, key: bytes) -> Iterator[bytes]:
    """The snapshot's bytes, piece by piece, some of them empty: each step packs `BATCH` places of the store at most.

    The store may be used between two steps: what was opened meanwhile may be missing, and what ended meanwhile may be
    there, which is why the log is asked about whatever ended since the first step.
    """
    encoded = msgspec.msgpack.encode(header)
    yield len(encoded).to_bytes(2, "big") + encoded
    sealer, held, number = _chunks(encoded, header, key), bytearray(), 0
    for batch in _batches(store):
        held += batch
        full = bytearray()
        # A full chunk waits until more comes, because it may be the last one.
        while len(held) > CHUNK_SIZE:
            full += frame(Kind.MORE, sealer.seal(number, False, bytes(held[:CHUNK_SIZE])))
            del held[:CHUNK_SIZE]
            number += 1
        yield bytes(full)
    yield frame(Kind.LAST, sealer.seal(number, True, bytes(held)))


def open_snapshot(
    pieces: Iterable[bytes], *, gateway: str, generation: int, key: bytes
) -> Iterator[tuple[Session, int]]:
    """The sessions of a snapshot, each with when it ends unless it is used.

    Raises `session.snapshot_refused` where it is another gateway's or generation's, or was altered. Until the iterator
    ends without an error, nothing that it gave may be relied upon.
    """
    reader = Reader(pieces)
    try:
        encoded = reader.take(min(_MAX_HEADER, int.from_bytes(reader.take(2), "big")))
        header = msgspec.msgpack.decode(encoded, type=Header)
        if (header.gateway, header.generation) != (gateway, generation):
            raise refused(f"it is generation {header.generation} of the gateway {header.gateway}")
        plain = Reader(open_chunks(reader, _chunks(encoded, header, key), CHUNK_SIZE, reader.end))
        while length := int.from_bytes(plain.take(4), "big"):
            if length > _MAX_BATCH:
                raise refused("a batch is too long")
            for kept, due in _BATCH.decode(plain.take(length)):
                yield Session(*msgspec.structs.astuple(kept)), due
        plain.end()
    except (CryptoError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refused("it does not open") from error


def refused(why: str) -> GateError:
    """The error of a snapshot that must not be used."""
    return GateError(
        SNAPSHOT_REFUSED,
        f"The snapshot of the sessions is refused: {why}.",
        hint="Sessions have to be opened anew. If nobody moved files or keys, look for who did.",
    )


def _batches(store: MemorySessions) -> Iterator[bytes]:
    start = 0
    while start >= 0:
        kept, start = store.dump(start, BATCH)
        encoded = msgspec.msgpack.encode([(msgspec.structs.astuple(session), due) for session, due in kept])
        yield len(encoded).to_bytes(4, "big") + encoded
    yield bytes(4)


def _chunks(encoded: bytes, header: Header, key: bytes) -> GcmChunks:
    own = hkdf_expand(hkdf_extract(header.salt, key), _DOMAIN, KEY_SIZE)
    return GcmChunks(bytes(PREFIX_SIZE), _DOMAIN + encoded, own)
