"""Approvals as files in a folder, counted for a principal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from ringfence.errors import RingfenceError
from ringfence.plugin.identity import approvals
from ringfence.plugin.identity.statement_folder import StatementFolder
from ringfence.trust import TrustList

SUFFIX: Final = ".approval"


class ApprovalFolder:
    """The statements in `folder`, by people whose pins in `trust` are in `group`."""

    def __init__(self, folder: Path, trust: Callable[[], TrustList], *, group: str) -> None:
        self._trust = trust
        self._group = group
        self._folder = StatementFolder(
            folder,
            SUFFIX,
            lambda data, now: approvals.verify(data, trust(), now=now),
            max_bytes=approvals.MAX_FILE,
        )

    def approvals(self, principal: str, now: int) -> int:
        """How many other people approve of `principal` now. Never raises: without a trust list it is none."""
        try:
            trust = self._trust()
        except RingfenceError:
            return 0
        return approvals.count(self._folder.statements(now), trust, principal=principal, group=self._group, now=now)
