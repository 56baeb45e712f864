"""Approvals as files in a folder: what is dropped into it counts within a second, what is removed does no longer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ringfence.config.files import read_bounded
from ringfence.errors import RingfenceError
from ringfence.plugin.identity import approvals
from ringfence.plugin.identity.approvals import Approval
from ringfence.trust import TrustList

MAX_FILES: Final = 256
SUFFIX: Final = ".approval"
_Status = tuple[int, int, int]


class ApprovalFolder:
    """The statements in `folder`, by people whose pins in `trust` are in `group`. Looks at it once a second at most.

    A folder that cannot be read, or holds more than `MAX_FILES` files, has no approvals: nobody gains by an overflow.
    """

    def __init__(self, folder: Path, trust: Callable[[], TrustList], *, group: str) -> None:
        self._folder = folder
        self._trust = trust
        self._group = group
        self._looked_at = -1
        self._held: dict[str, tuple[_Status, Approval | None]] = {}

    def approvals(self, principal: str, now: int) -> int:
        """How many other people approve of `principal` now. Never raises: without a trust list it is none."""
        try:
            trust = self._trust()
            if now != self._looked_at:
                self._look(trust, now)
                self._looked_at = now
        except (RingfenceError, OSError):
            self._held.clear()
            return 0
        statements = (approval for _, approval in self._held.values() if approval is not None)
        return approvals.count(statements, trust, principal=principal, group=self._group, now=now)

    def _look(self, trust: TrustList, now: int) -> None:
        with os.scandir(self._folder) as entries:
            found: dict[str, _Status] = {}
            for entry in entries:
                if entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False):
                    seen = entry.stat(follow_symlinks=False)
                    found[entry.name] = (seen.st_ino, seen.st_ctime_ns, seen.st_size)
                if len(found) > MAX_FILES:
                    found.clear()
                    break
        held: dict[str, tuple[_Status, Approval | None]] = {}
        for name, status in found.items():
            known = self._held.get(name)
            # One that was not accepted is read again: its signer may have been pinned since.
            if known is None or known[0] != status or known[1] is None:
                known = (status, self._read(name, trust, now))
            held[name] = known
        self._held = held

    def _read(self, name: str, trust: TrustList, now: int) -> Approval | None:
        try:
            return approvals.verify(read_bounded(self._folder / name, approvals.MAX_FILE), trust, now=now)
        except RingfenceError:
            return None
