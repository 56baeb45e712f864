"""Device brokers that a worker is taken to have taken over: what they answer, how they end, what they say they did.

Each gets its end of the ring's socket, the address of the reply file, and the file of its account.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections.abc import Callable

from ringfence.agent import ring

COUNTERS = {"commands": 9, "launches": 4, "gates": 3, "measurements": 2, "peak_gpu_bytes": 1}
Broker = Callable[[int, int, int], object]


def _answering(make: Callable[[int], tuple[bytes, bytes]], report: bytes) -> Broker:
    """One that answers every crossing with what `make` makes of its position: an answer, and what is in its file."""

    def serve(channel: int, reply_at: int, report_file: int) -> None:
        while crossing := os.read(channel, ring.CROSSING_BYTES):
            answer, payload = make(struct.unpack("<Q", crossing)[0])
            ctypes.memmove(reply_at, payload, len(payload))
            os.write(channel, answer)
        os.write(report_file, report)

    return serve


def _well(position: int) -> tuple[bytes, bytes]:
    return struct.pack("<QII", position, 0, 8), struct.pack("<Q", 4096)


def _account(**counters: int) -> bytes:
    return b"rf-count" + struct.pack("<5Q", *(value % 2**64 for value in (COUNTERS | counters).values()))


def _saying(report: bytes) -> Broker:
    return _answering(_well, report)


def _lying(status: int, length: int, payload: bytes = b"") -> Broker:
    return _answering(lambda position: (struct.pack("<QII", position, status, length), payload), _account())


def _deaf(channel: int, _reply_at: int, _report: int) -> None:
    while os.read(channel, 64):
        pass


def _undying(channel: int, reply_at: int, report: int) -> None:
    _saying(_account())(channel, reply_at, report)
    time.sleep(600)


def _flood(channel: int, _reply_at: int, report: int) -> None:
    while os.read(channel, 64):
        os.write(channel, struct.pack("<QII", 1, 0, 8))
    while True:
        os.write(report, b"1" * 4096)


# A pool of 0 bytes is no job's.
BROKERS: dict[str, Broker] = {
    "nobody": lambda *_: None,
    "honest": _saying(_account()),
    "dies": lambda channel, *_: os.read(channel, 64) and os._exit(1),
    "dies at once": lambda *_: os._exit(0),
    "never answers": _deaf,
    "never ends": _undying,
    "reports for ever": _flood,
    "reports nothing": _saying(b""),
    "reports nonsense": _saying(b"\xff{"),
    "more launches than commands": _saying(_account(launches=5)),
    "fewer launches than none": _saying(_account(launches=-1)),
    "more commands than can be counted": _saying(_account(commands=2**63)),
    "less memory than none": _saying(_account(peak_gpu_bytes=-1)),
    "more memory than its pool": _saying(_account(peak_gpu_bytes=2**63 - 1)),
    "out of turn": _answering(lambda position: (struct.pack("<QII", position + 1, 0, 8), bytes(8)), _account()),
    "an unknown status": _lying(2, 8),
    "beyond its file": _lying(0, 2**32 - 1),
    "too long": _lying(0, 9),
    "too short": _lying(0, 0),
    "cut short": _answering(lambda position: (struct.pack("<Q", position), b""), _account()),
    "a refusal without a code": _lying(1, 0),
    "a refusal that is no text": _lying(1, 3, b"\1\xff\xff"),
    "a refusal of somebody else's": _lying(1, 16, b"\x0cgrant.forged..."),
}
