"""Envelopes under attack at every level: what was altered, cut, mixed or misused gives nothing out."""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.crypto import CryptoError, kem, signature
from ringfence.crypto.envelope import (
    Author,
    Level,
    Opening,
    PostQuantum,
    PostQuantumKeys,
    QuantumNative,
    QuantumResistant,
    QuantumResistantKeys,
    RecipientKey,
    Sealing,
    open_envelope,
    open_stream,
    seal_envelope,
    seal_stream,
)
from ringfence.crypto.errors import CIPHERTEXT_INVALID, KEY_INVALID, KEY_SPENT, KEY_UNAVAILABLE
from ringfence.crypto.pad import SharedKey
from ringfence.crypto.stream import CHUNK_SIZE, GcmChunks, closed
from ringfence.keystore.link import MemoryLink

START = 13
SLH = signature("SLH-DSA-SHA2-128f")


class Forgetful(MemoryLink):
    """A faulty link that gives the same key out again and again."""

    def __init__(self) -> None:
        super().__init__(secrets.token_bytes)
        self.given: dict[str, SharedKey] = {}

    def get_key_with_ids(self, key_ids: Sequence[str]) -> Sequence[SharedKey]:
        for key_id in set(key_ids) - self.given.keys():
            (self.given[key_id],) = super().get_key_with_ids([key_id])
        return [self.given[key_id] for key_id in key_ids]


@dataclass
class Ledger:
    spent: set[str] = field(default_factory=set)

    def spend(self, key_id: str) -> None:
        if key_id in self.spent:
            raise CryptoError(KEY_SPENT, "The key was used before.")
        self.spent.add(key_id)


@dataclass(frozen=True)
class Setting:
    """One level with the two sides' keys; `fresh` gives one that knows nothing of earlier envelopes."""

    level: Level
    sealing: Sealing
    opening: Opening


def key_pair() -> RecipientKey:
    return RecipientKey(*kem("X-Wing").generate())


def author() -> Author:
    return Author(SLH, *SLH.generate())


BOB, ALICE = key_pair(), author()


def setting(level: Level, link: MemoryLink | None = None) -> Setting:
    match level:
        case Level.POST_QUANTUM:
            return Setting(level, PostQuantum(BOB.public), PostQuantumKeys((BOB,)))
        case Level.QUANTUM_RESISTANT:
            opening = QuantumResistantKeys((BOB,), SLH, (ALICE.public,))
            return Setting(level, QuantumResistant(BOB.public, ALICE), opening)
        case Level.QUANTUM_NATIVE:
            shared = link or MemoryLink(secrets.token_bytes)
            return Setting(level, QuantumNative(shared, Ledger()), QuantumNative(shared, Ledger()))


def refused(opening: Opening, data: bytes, *, info: bytes = b"") -> None:
    """Everything that does not open says the same, word for word."""
    with pytest.raises(CryptoError) as caught:
        open_envelope(opening, data, info=info)
    assert caught.value.code is CIPHERTEXT_INVALID
    assert str(caught.value) == str(closed())
    assert caught.value.__cause__ is None


every_level = pytest.mark.parametrize("level", Level)
with_gcm = pytest.mark.parametrize("level", [Level.POST_QUANTUM, Level.QUANTUM_RESISTANT])


@every_level
@pytest.mark.parametrize("size", [0, 1, 100, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 3 * CHUNK_SIZE])
def test_what_is_sealed_opens(level: Level, size: int) -> None:
    here = setting(level)
    plaintext = bytes(range(256)) * (size // 256 + 1)
    plaintext = plaintext[:size]
    sealed = seal_envelope(here.sealing, plaintext, info=b"a purpose")
    assert sealed[8] == level
    assert plaintext[:16] not in sealed or size < 16
    assert open_envelope(here.opening, sealed, info=b"a purpose") == plaintext


@every_level
@given(pieces=st.lists(st.binary(max_size=40_000), max_size=6), cut=st.integers(1, 70_000))
@settings(max_examples=15, deadline=None)
def test_the_pieces_of_either_side_do_not_matter(level: Level, pieces: list[bytes], cut: int) -> None:
    here = setting(level)
    sealed = b"".join(seal_stream(here.sealing, pieces))
    again = [sealed[start : start + cut] for start in range(0, len(sealed), cut)]
    assert b"".join(open_stream(here.opening, lambda: again)) == b"".join(pieces)


@every_level
@pytest.mark.parametrize("size", [0, 5, CHUNK_SIZE + 5])
@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@settings(max_examples=40, deadline=None)
def test_no_byte_can_change(level: Level, size: int, at: float, flip: int) -> None:
    here = setting(level)
    altered = bytearray(seal_envelope(here.sealing, bytes(size)))
    altered[int(at * len(altered))] ^= flip
    with pytest.raises(CryptoError) as caught:
        open_envelope(here.opening, bytes(altered))
    # A pad's key id is public; where it was altered the source may say that there is no such key.
    unavailable = level is Level.QUANTUM_NATIVE and caught.value.code is KEY_UNAVAILABLE
    assert unavailable or str(caught.value) == str(closed())


@every_level
def test_no_start_of_an_envelope_opens(level: Level) -> None:
    here = setting(level, Forgetful())
    sealed = seal_envelope(here.sealing, b"0123456789")
    for length in {*range(0, len(sealed), max(1, len(sealed) // 200)), *range(len(sealed) - 40, len(sealed))}:
        refused(setting_again(here), sealed[:length])


def setting_again(here: Setting) -> Opening:
    """The opening side with an empty ledger, so that each try meets the envelope and not the spent key."""
    match here.opening:
        case QuantumNative(source, _):
            return QuantumNative(source, Ledger())
        case other:
            return other


def frames(sealed: bytes, level: Level) -> tuple[bytes, list[bytes]]:
    """The header and the frames of an envelope, cut by hand from the documented format."""
    at = START + {Level.POST_QUANTUM: 32 + 1120, Level.QUANTUM_RESISTANT: 64 + 1120, Level.QUANTUM_NATIVE: 0}[level]
    header, found = sealed[:at], []
    while at < len(sealed):
        _, length = struct.unpack_from(">BI", sealed, at)
        found.append(sealed[at : at + 5 + length])
        at += 5 + length
    return header, found


TRICKS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "the last chunk is missing": lambda f: f[:2],
    "the first chunk is missing": lambda f: f[1:],
    "a middle chunk is missing": lambda f: [f[0], *f[2:]],
    "two chunks are swapped": lambda f: [f[1], f[0], *f[2:]],
    "a chunk comes twice": lambda f: [f[0], *f],
    "the last chunk comes twice": lambda f: [*f[:3], f[2], *f[3:]],
    "a chunk follows the last one": lambda f: [*f[:3], f[0], *f[3:]],
    "an earlier chunk is called the last": lambda f: [f[0], b"\x01" + f[1][1:], *f[3:]],
    "the last chunk says that more follow": lambda f: [*f[:2], b"\x00" + f[2][1:], *f[3:]],
    "nothing is left": lambda _: [],
    "a byte follows": lambda f: [*f, b"\x00"],
    "an empty last chunk follows": lambda f: [*f[:2], b"\x00" + f[2][1:], b"\x01\x00\x00\x00\x00", *f[3:]],
    "an unknown kind": lambda f: [b"\x07" + f[0][1:], *f[1:]],
    "a signature where a chunk belongs": lambda f: [b"\x02" + f[0][1:], *f[1:]],
    "a length beyond the chunk size": lambda f: [f[0][:1] + b"\xff\xff\xff\xff" + f[0][5:], *f[1:]],
}


@every_level
@pytest.mark.parametrize("trick", TRICKS)
def test_chunks_cannot_be_moved(level: Level, trick: str) -> None:
    here = setting(level, Forgetful())
    plaintext = bytes(2 * CHUNK_SIZE) + b"end"
    header, whole = frames(seal_envelope(here.sealing, plaintext), level)
    assert len(whole) == 3 + (level is Level.QUANTUM_RESISTANT)
    altered = header + b"".join(TRICKS[trick](whole))
    opening = setting_again(here)
    given_out: list[bytes] = []
    with pytest.raises(CryptoError) as caught:
        given_out.extend(open_stream(opening, lambda: [altered]))
    spent = level is Level.QUANTUM_NATIVE and caught.value.code is KEY_SPENT  # a repeated chunk repeats its key
    assert spent or str(caught.value) == str(closed())
    # What was given out before is a true beginning, never the end and never another order.
    assert plaintext.startswith(b"".join(given_out))
    assert len(b"".join(given_out)) <= 2 * CHUNK_SIZE
    if level is Level.QUANTUM_RESISTANT:
        assert given_out == []


@every_level
def test_chunks_of_two_envelopes_do_not_mix(level: Level) -> None:
    here = setting(level)
    one, two = (seal_envelope(here.sealing, letter * (CHUNK_SIZE + 1)) for letter in (b"a", b"b"))
    header, first = frames(one, level)
    _, second = frames(two, level)
    refused(here.opening, header + first[0] + b"".join(second[1:]))


@every_level
def test_another_purpose_does_not_open(level: Level) -> None:
    here = setting(level)
    for sealed_for, info in ((b"a", b"b"), (b"", b"b"), (b"a", b"")):
        sealed = seal_envelope(here.sealing, b"text", info=sealed_for)
        refused(here.opening, sealed, info=info)


@every_level
@pytest.mark.parametrize("other", Level)
def test_one_level_is_never_taken_for_another(level: Level, other: Level) -> None:
    if level is other:
        return
    sealed = seal_envelope(setting(level).sealing, b"text")
    refused(setting(other).opening, sealed)
    # Nor with the byte that names the level changed.
    refused(setting(other).opening, sealed[:8] + bytes([other]) + sealed[9:])


def test_the_signature_cannot_be_stripped_to_a_lower_level() -> None:
    header, whole = frames(seal_envelope(setting(Level.QUANTUM_RESISTANT).sealing, b"text"), Level.QUANTUM_RESISTANT)
    lower = header[:8] + bytes([Level.POST_QUANTUM]) + header[9 : START + 32] + header[START + 64 :] + whole[0]
    refused(setting(Level.POST_QUANTUM).opening, lower)


@with_gcm
def test_another_recipient_cannot_open_it(level: Level) -> None:
    here, mallory = setting(level), key_pair()
    sealed = seal_envelope(here.sealing, b"text")
    named = sealed[:START] + bytes(32) + sealed[START + 32 :]
    thief = RecipientKey(BOB.public, kem("X-Wing").generate()[1])  # names itself bob, and has another key
    for keys in ((mallory,), (thief,), ()):
        opening = here.opening
        wrong: Opening = (
            PostQuantumKeys(keys)
            if isinstance(opening, PostQuantumKeys)
            else QuantumResistantKeys(keys, SLH, (ALICE.public,))
        )
        refused(wrong, sealed)
        refused(wrong, named)


def test_the_old_key_still_opens_during_a_rotation() -> None:
    new = key_pair()
    sealed = seal_envelope(PostQuantum(BOB.public), b"text")
    assert open_envelope(PostQuantumKeys((new, BOB)), sealed) == b"text"


def test_only_a_pinned_author_is_believed() -> None:
    mallory = author()
    here = setting(Level.QUANTUM_RESISTANT)
    refused(here.opening, seal_envelope(QuantumResistant(BOB.public, mallory), b"text"))


def test_another_author_cannot_sign_what_is_not_theirs() -> None:
    """Mallory is pinned too, takes Alice's envelope, and puts her own name and signature on it."""
    mallory = author()
    header, whole = frames(seal_envelope(QuantumResistant(BOB.public, ALICE), b"text"), Level.QUANTUM_RESISTANT)
    body = header[: START + 32] + hashlib.sha256(mallory.public).digest() + header[START + 64 :] + whole[0]
    signed = mallory.sign(hashlib.sha512(bytes(8) + body).digest())
    stolen = body + b"\x02" + len(signed).to_bytes(4, "big") + signed
    both = QuantumResistantKeys((BOB,), SLH, (ALICE.public, mallory.public))
    refused(both, stolen)


def test_whoever_holds_the_recipients_key_cannot_write_in_the_authors_name() -> None:
    header, whole = frames(seal_envelope(QuantumResistant(BOB.public, ALICE), b"text"), Level.QUANTUM_RESISTANT)
    start, encapsulated = header[:-1120], header[-1120:]
    info = b"ringfence envelope" + len(start).to_bytes(4, "big") + start
    schedule = BOB.schedule(encapsulated, info)
    associated = len(header).to_bytes(4, "big") + header
    chunks = GcmChunks(schedule.export(b"stream prefix", 7), associated, schedule.export(b"stream key", 32))
    assert chunks.open(0, True, whole[0][5:]) == b"text"
    forged = chunks.seal(0, True, b"lies")
    envelope = header + b"\x01" + len(forged).to_bytes(4, "big") + forged + whole[1]
    refused(setting(Level.QUANTUM_RESISTANT).opening, envelope)


def test_a_source_that_changes_after_the_signature_was_checked_is_noticed() -> None:
    here = setting(Level.QUANTUM_RESISTANT)
    one, two = (seal_envelope(here.sealing, bytes(CHUNK_SIZE) + letter) for letter in (b"a", b"b"))
    sources = iter([[one], [two]])
    given_out: list[bytes] = []
    with pytest.raises(CryptoError) as caught:
        given_out.extend(open_stream(here.opening, lambda: next(sources)))
    assert caught.value.code is CIPHERTEXT_INVALID
    assert b"b" not in b"".join(given_out)


@pytest.mark.parametrize("name", ["Ed25519", "ML-DSA-65", "ML-DSA-65-Ed25519"])
def test_the_signed_level_takes_no_other_kind_of_signature(name: str) -> None:
    other = signature(name)
    with pytest.raises(CryptoError, match="does not sign quantum_resistant"):
        QuantumResistant(BOB.public, Author(other, *other.generate()))
    with pytest.raises(CryptoError, match="does not sign quantum_resistant"):
        QuantumResistantKeys((BOB,), other, ())


def test_a_public_key_that_is_none_is_refused() -> None:
    with pytest.raises(CryptoError) as caught:
        seal_envelope(PostQuantum(bytes(10)), b"text")
    assert caught.value.code is KEY_INVALID


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31)])
def test_a_point_of_small_order_says_no_more_than_the_rest(point: bytes) -> None:
    sealed = seal_envelope(PostQuantum(BOB.public), b"text")
    end = START + 32 + 1120
    refused(PostQuantumKeys((BOB,)), sealed[: end - 32] + point + sealed[end:])


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes_do_not_open(data: bytes) -> None:
    for level in Level:
        opening = setting(level).opening
        refused(opening, data)
        start = b"RFENVEL\x01" + bytes([level]) + (100).to_bytes(4, "big")
        with pytest.raises(CryptoError):
            open_envelope(opening, start + data)


def test_a_chunk_size_out_of_range_is_refused_before_memory_is_taken() -> None:
    for size in (0, CHUNK_SIZE + 1, 0xFFFFFFFF):
        data = b"RFENVEL\x01\x03" + size.to_bytes(4, "big") + b"\x01" + (2**31).to_bytes(4, "big")
        refused(setting(Level.QUANTUM_NATIVE).opening, data)


@every_level
def test_a_stream_is_sealed_and_opened_piece_by_piece(level: Level) -> None:
    """Nothing is read ahead of what is given out by more than two chunks, so memory does not grow with the input."""
    here = setting(level)
    read = 0

    def pieces() -> Iterator[bytes]:
        nonlocal read
        for _ in range(40):
            read += 1
            yield bytes(CHUNK_SIZE)

    sealed = []
    for number, piece in enumerate(seal_stream(here.sealing, pieces())):
        assert read <= number + 1
        sealed.append(piece)
    taken = 0

    def again() -> Iterator[bytes]:
        nonlocal taken
        taken = 0
        for piece in sealed:
            taken += 1
            yield piece

    for number, _ in enumerate(open_stream(here.opening, again)):
        assert taken <= number + 3
