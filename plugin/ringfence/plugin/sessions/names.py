"""Where each session lies, by its name, in some 30 bytes: no object, so nothing for the collector to visit.

Pure. A name is 16 bytes here. Cells of a name and its place lie side by side in many short runs of bytes, and a look-up
searches one run, which holds some fifteen cells however many sessions there are.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

NAME_BYTES: Final = 16
NOWHERE: Final = -1
_CELL: Final = struct.Struct("<16sI")
_PLACE: Final = struct.Struct("<I")
_CELLS_A_RUN: Final = 16


def packed_name(name: str) -> bytes:
    """The 16 bytes under which a name is kept: those that its 32 digits write, else a digest of it.

    Two spellings of the digits have the same bytes: whoever finds one compares the name itself.
    """
    if len(name) == 2 * NAME_BYTES:
        try:
            raw = bytes.fromhex(name)
        except ValueError:
            raw = b""
        if len(raw) == NAME_BYTES:
            return raw
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=NAME_BYTES).digest()


class NameIndex:
    """Places by name. Which run a name falls into depends on Python's keyed hash, so that no caller can fill one."""

    def __init__(self, capacity: int) -> None:
        runs = 1 << max(0, (capacity // _CELLS_A_RUN).bit_length())
        # A tuple of them is nothing that the garbage collector walks through.
        self._runs = tuple(bytearray() for _ in range(runs))
        self._mask = runs - 1

    def find(self, name: bytes) -> int:
        """The place of `name`, or `NOWHERE`."""
        run = self._runs[hash(name) & self._mask]
        at = run.find(name)
        # A name may also occur across two cells.
        while at % _CELL.size:
            if at < 0:
                return NOWHERE
            at = run.find(name, at + 1)
        place: int = _PLACE.unpack_from(run, at + NAME_BYTES)[0]
        return place

    def add(self, name: bytes, place: int) -> None:
        """Keeps the place of a name that is not there yet."""
        self._runs[hash(name) & self._mask].extend(_CELL.pack(name, place))

    def remove(self, name: bytes) -> None:
        """Forgets a name. Raises `LookupError` where it is not there."""
        run = self._runs[hash(name) & self._mask]
        at = run.find(name)
        while at % _CELL.size:
            if at < 0:
                raise LookupError("there is no such name")
            at = run.find(name, at + 1)
        run[at : at + _CELL.size] = run[-_CELL.size :]
        del run[-_CELL.size :]
