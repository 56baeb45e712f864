"""Signed statements as files in a folder: what is dropped in counts within a second, what is removed no longer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from ringfence.config.files import read_bounded
from ringfence.errors import RingfenceError

MAX_FILES: Final = 256
Statement = TypeVar("Statement")
_Status = tuple[int, int, int]


class StatementFolder(Generic[Statement]):
    """The statements in the files of `folder` that end in `suffix`, as `verify` accepts them (data, now -> statement).

    Looks at the folder once a second at most. A folder that cannot be read, or holds more than `most` files, has none:
    nobody gains by an overflow.
    """

    def __init__(
        self,
        folder: Path,
        suffix: str,
        verify: Callable[[bytes, int], Statement],
        *,
        max_bytes: int,
        most: int = MAX_FILES,
    ) -> None:
        self._folder = folder
        self._suffix = suffix
        self._verify = verify
        self._max_bytes = max_bytes
        self._most = most
        self._looked_at = -1
        self._held: dict[str, tuple[_Status, Statement | None]] = {}

    def statements(self, now: int) -> list[Statement]:
        """Those that held when they were read; when they count is for whoever asks. Never raises."""
        if now != self._looked_at:
            try:
                self._look(now)
            except OSError:
                self._held.clear()
            self._looked_at = now
        return [statement for _, statement in self._held.values() if statement is not None]

    def _look(self, now: int) -> None:
        with os.scandir(self._folder) as entries:
            found: dict[str, _Status] = {}
            for entry in entries:
                if entry.name.endswith(self._suffix) and entry.is_file(follow_symlinks=False):
                    seen = entry.stat(follow_symlinks=False)
                    found[entry.name] = (seen.st_ino, seen.st_ctime_ns, seen.st_size)
                if len(found) > self._most:
                    found.clear()
                    break
        held: dict[str, tuple[_Status, Statement | None]] = {}
        for name, status in found.items():
            known = self._held.get(name)
            # One that was not accepted is read again: its signer may have been pinned since.
            if known is None or known[0] != status or known[1] is None:
                known = (status, self._read(name, now))
            held[name] = known
        self._held = held

    def _read(self, name: str, now: int) -> Statement | None:
        try:
            return self._verify(read_bounded(self._folder / name, self._max_bytes), now)
        except RingfenceError:
            return None
