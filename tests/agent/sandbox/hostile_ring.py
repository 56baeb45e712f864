"""What a worker that a guest took over may do to its ring: every attack returns what the broker answered."""

from __future__ import annotations

import ctypes
import os
import random
import struct
from collections.abc import Callable, Mapping

from ringfence.agent import ring

Facts = Mapping[str, int]
ATTEMPTS = 60


def lay(facts: Facts, slots: bytes, at: int = 0) -> None:
    """Write into the request file's mapping."""
    ctypes.memmove(facts["request at"] + at % ring.SLOTS * ring.SLOT_BYTES, slots, len(slots))


def cross(facts: Facts, position: int) -> bytes:
    """Announce a position; the broker's answer as status, length and payload."""
    return tell(facts, struct.pack("<Q", position))


def send(facts: Facts, slots: bytes) -> bytes:
    """Slots from the ring's start, and their announcement; the broker's answer."""
    lay(facts, slots)
    return cross(facts, len(slots) // ring.SLOT_BYTES)


def tell(facts: Facts, message: bytes) -> bytes:
    """Send a message; the broker's answer as text."""
    os.write(facts["channel"], message)
    return heard(facts)


def heard(facts: Facts) -> bytes:
    """The next answer: `accepted`, or the code of the refusal, or `gone`."""
    answer = os.read(facts["channel"], 64)
    if not answer:
        return b"gone"
    _, status, length = struct.unpack("<QII", answer)
    payload = ctypes.string_at(facts["reply at"], length)
    return payload[1 : 1 + payload[0]] if status else b"accepted"


def _forged(facts: Facts) -> bytes:
    """Slots of random bytes, and near misses of real commands with one byte changed."""
    source = random.Random(4)  # noqa: S311 - data of a test
    real: list[ring.Command] = [
        ring.Gate(3, 0, 0.5),
        ring.Launch("fill_i64", 1, 1, (0, 0, 0)),
        ring.Write(4096, bytes(40)),
        ring.Sync(0),
    ]
    words = set()
    for attempt in range(ATTEMPTS):
        slots = bytearray(ring.encode(real[attempt % len(real)]) if attempt else source.randbytes(32 * 64))
        for _ in range(3):
            slots[source.randrange(len(slots))] = source.randrange(256)
        lay(facts, bytes(slots))
        words.add(cross(facts, (attempt + 1) * ring.SLOTS))
    return b",".join(sorted(words))


def _behind_its_back(facts: Facts) -> bytes:
    """Rewrite a batch while the broker takes it."""
    sync, nonsense = ring.encode(ring.Sync(0)), b"\xff" * ring.SLOT_BYTES
    words = set()
    for position in range(1, ATTEMPTS):
        lay(facts, sync, position - 1)
        os.write(facts["channel"], struct.pack("<Q", position))
        lay(facts, nonsense, position - 1)
        words.add(heard(facts))
    return b"answered" if words <= {b"accepted", b"sandbox.broker_protocol"} else b",".join(words)


def _unread(facts: Facts) -> bytes:
    """Announce positions for ever and read no answer."""
    while True:
        os.write(facts["channel"], struct.pack("<Q", 0))


def _work(facts: Facts) -> bytes:
    """Two positions that are in order."""
    lay(facts, ring.encode(ring.Gate(3, 0, 0.0)) + ring.encode(ring.Sync(0)))
    return cross(facts, 1) + b"," + cross(facts, 2)


def _twice(facts: Facts) -> bytes:
    lay(facts, ring.encode(ring.Gate(3, 0, 0.0)))
    return cross(facts, 1) + b"," + cross(facts, 1)


def _backwards(facts: Facts) -> bytes:
    lay(facts, ring.encode(ring.Gate(3, 0, 0.0)) * 4)
    return cross(facts, 4) + b"," + cross(facts, 3)


ATTACKS: dict[str, Callable[[Facts], bytes]] = {
    "work": _work,
    "forged byte by byte": _forged,
    "rewritten behind its back": _behind_its_back,
    "a head that is announced twice": _twice,
    "a head that goes backwards": _backwards,
    "a head beyond the ring": lambda facts: cross(facts, ring.SLOTS + 1),
    "a head beyond all numbers": lambda facts: cross(facts, 2**64 - 1),
    "a message cut short": lambda facts: tell(facts, b"\x01"),
    "a message too long": lambda facts: tell(facts, bytes(9)),
    "a message far too long": lambda facts: tell(facts, bytes(60_000)),
    "a gap of nothing": lambda facts: send(facts, bytes(ring.REQUEST_BYTES)),
    "a payload beyond the batch": lambda facts: send(facts, ring.encode_write(4096, 2**32 - 1)),
    "answers unread": _unread,
}
