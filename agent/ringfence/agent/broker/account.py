"""What a job has done with its devices, counted by its broker in a file that the agent reads in the end.

The broker counts there with every command, so that the account holds whenever the broker is killed. Sans-IO.

Account file, little-endian u64s: `_MAGIC` once the broker serves, commands, launches, gates, measurements, the bytes
of the pool at its fullest, and the batches that no healthy worker sends.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

_FILE: Final = struct.Struct("<7Q")
_MAGIC: Final = int.from_bytes(b"rf-count", "little")
ACCOUNT_BYTES: Final = _FILE.size
COMMANDS, LAUNCHES, GATES, MEASUREMENTS, PEAK_GPU_BYTES, FORGED_BATCHES = range(1, 7)
"""Where each figure stands in what `begin` gives."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a job did with its devices. Only what was executed counts; `peak_gpu_bytes` is its pool at its fullest.

    `forged_batches` were refused for breaking the ring's rules, which only a worker that was taken over does.
    """

    commands: int = 0
    launches: int = 0
    gates: int = 0
    measurements: int = 0
    peak_gpu_bytes: int = 0
    forged_batches: int = 0


def begin(file: memoryview) -> memoryview:
    """The figures of a mapped account file (`ACCOUNT_BYTES` bytes, zero), to be counted up."""
    # Native order is the file's: both processors that the sandbox has a filter for are little-endian.
    figures = file.cast("B").cast("Q")
    figures[0] = _MAGIC
    return figures


def read(figures: memoryview) -> Usage:
    """What has been counted so far, for the broker itself."""
    return Usage(*figures[1:])


def decode(data: bytes, *, most: int) -> Usage | None:
    """The account that an ended broker left; None where it left none, or one that cannot be true.

    No figure can be more than `most`.
    """
    if len(data) != ACCOUNT_BYTES:
        return None
    magic, *figures = _FILE.unpack(data)
    usage = Usage(*figures)
    possible = magic == _MAGIC and max(figures) <= most
    return usage if possible and usage.launches + usage.gates + usage.measurements <= usage.commands else None
