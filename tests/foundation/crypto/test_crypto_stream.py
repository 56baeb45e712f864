"""Sealed streams: a sender that bends the format, sources without an end, and the end of the nonces."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from ringfence.crypto import CryptoError, kem
from ringfence.crypto.envelope import (
    PostQuantum,
    PostQuantumKeys,
    RecipientKey,
    open_envelope,
    open_stream,
    seal_envelope,
)
from ringfence.crypto.errors import STREAM_TOO_LONG
from ringfence.crypto.exporter import schedule_to
from ringfence.crypto.pad import SharedKey
from ringfence.crypto.stream import CHUNK_SIZE, MAX_CHUNKS, GcmChunks, closed

BOB = RecipientKey(*kem("X-Wing").generate())


def by_a_hostile_sender(start: bytes, chunks: list[bytes]) -> bytes:
    """An envelope to Bob whose sender holds all keys and follows none of the rules but the cryptographic ones."""
    start += hashlib.sha256(BOB.public).digest()
    encapsulated, schedule = schedule_to(BOB.public, b"ringfence envelope" + len(start).to_bytes(4, "big") + start)
    header = start + encapsulated
    associated = len(header).to_bytes(4, "big") + header
    sealer = GcmChunks(schedule.export(b"stream prefix", 7), associated, schedule.export(b"stream key", 32))
    envelope = header
    for number, chunk in enumerate(chunks):
        last = number == len(chunks) - 1
        body = sealer.seal(number, last, chunk)
        envelope += bytes([last]) + len(body).to_bytes(4, "big") + body
    return envelope


RIGHT = b"RFENVEL\x01\x01" + (100).to_bytes(4, "big")


@pytest.mark.parametrize(
    ("start", "chunks"),
    [
        (RIGHT, [bytes(99), b"x"]),
        (RIGHT, [bytes(101)]),
        (RIGHT, [bytes(100), b""]),
        (RIGHT, [b"", b"x"]),
        (b"RFENVEL\x01\x02" + RIGHT[9:], [b"x"]),
        (b"RFENVEL\x02\x01" + RIGHT[9:], [b"x"]),
        (RIGHT[:9] + bytes(4), [b""]),
        (RIGHT[:9] + (CHUNK_SIZE + 1).to_bytes(4, "big"), [b"x"]),
    ],
)
def test_a_hostile_sender_cannot_bend_the_format(start: bytes, chunks: list[bytes]) -> None:
    """One plaintext has one framing, and a header says one thing, also where every tag holds."""
    assert open_envelope(PostQuantumKeys((BOB,)), by_a_hostile_sender(RIGHT, [bytes(100), b"x"])) == bytes(100) + b"x"
    with pytest.raises(CryptoError) as caught:
        open_envelope(PostQuantumKeys((BOB,)), by_a_hostile_sender(start, chunks))
    assert str(caught.value) == str(closed())


def test_a_length_that_is_too_long_is_refused_before_it_is_read() -> None:
    header = seal_envelope(PostQuantum(BOB.public), b"text")[: 13 + 32 + 1120]
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        yield header + b"\x01" + (2**31).to_bytes(4, "big")
        for read in range(100):  # noqa: B007 - how far it came is what is asked
            yield bytes(1000)

    with pytest.raises(CryptoError):
        list(open_stream(PostQuantumKeys((BOB,)), endless))
    assert read == 0


def test_the_nonces_of_a_stream_end_before_they_repeat() -> None:
    chunks = GcmChunks(bytes(7), b"", bytes(32))
    chunks.seal(MAX_CHUNKS - 1, True, b"")
    with pytest.raises(CryptoError) as caught:
        chunks.seal(MAX_CHUNKS, True, b"")
    assert caught.value.code is STREAM_TOO_LONG


def test_secrets_are_in_no_repr() -> None:
    public, private = kem("X-Wing").generate()
    assert repr(private) not in repr(RecipientKey(public, private))
    _, schedule = schedule_to(public, b"")
    assert repr(schedule.secret) not in repr(schedule)
    assert repr(bytes(range(32))) not in repr(GcmChunks(b"", b"", bytes(range(32))))
    assert "secret" not in repr(SharedKey("id", b"secret"))
