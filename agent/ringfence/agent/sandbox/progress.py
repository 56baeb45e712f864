"""The progress page: what a worker tells the agent while its guest runs, in memory that both map.

Sans-IO. The worker and its shim write it, so a guest that broke out may have written anything: hints for a monitor,
never a reason to believe. Little-endian u64 words: 0 checkpoints, 8 the last checkpoint's number, 16 slots appended to
the command ring, 24 the guest's memory in bytes.
"""

from __future__ import annotations

import struct
from typing import Final

PAGE_BYTES: Final = 65536
CHECKPOINTS, LAST_CHECKPOINT, COMMANDS, MEMORY = range(0, 32, 8)

_WORD: Final = struct.Struct("<Q")


def note(page: memoryview, word: int, value: int) -> None:
    """Write one word of a page."""
    _WORD.pack_into(page, word, value)


def said(page: bytes | memoryview, word: int) -> int:
    """One word of a page: any number of 64 bits."""
    return int(_WORD.unpack_from(page, word)[0])
