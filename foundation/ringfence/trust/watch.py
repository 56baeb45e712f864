"""The trust list of a running process: read again when its file changes, so that a removed key stops counting."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from ringfence.trust.errors import MISSING_FILE, TrustError
from ringfence.trust.pins import TrustList
from ringfence.trust.store import load


class TrustFile:
    """Calling it gives the list as the file has it now. A file that is gone or unreadable trusts nobody: it raises.

    With `patience_s` what was found holds for so long, by the clock `ticks` in seconds: a look at the file costs more
    than the rest of what is done with the list for each request.
    """

    def __init__(self, path: Path, *, patience_s: float = 0.0, ticks: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._patience_s = patience_s
        self._ticks = ticks
        self._due = 0.0
        self._seen: tuple[int, int, int] | None = None
        self._trust = TrustList()
        self()

    def __call__(self) -> TrustList:
        if self._patience_s:
            now = self._ticks()
            if now < self._due:
                return self._trust
            self._due = 0.0
        trust = self._look()
        if self._patience_s:
            self._due = now + self._patience_s
        return trust

    def _look(self) -> TrustList:
        try:
            status = os.stat(self._path)
        except OSError as error:
            self._seen = None
            raise TrustError(
                MISSING_FILE,
                f"{self._path} cannot be read ({error.strerror}), so no key is trusted.",
                field=str(self._path),
                hint="Put the file back; `ringfence trust add` makes one.",
            ) from error
        # The change time moves with the mode and the owner too, and nobody can set it back.
        seen = (status.st_ino, status.st_ctime_ns, status.st_size)
        if seen != self._seen:
            self._trust = load(self._path)
            self._seen = seen
        return self._trust
