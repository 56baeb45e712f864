"""Sessions across a restart of their gateway: kept in a vault now and then, and taken back when it starts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ringfence.errors import RingfenceError
from ringfence.plugin.errors import GateError
from ringfence.plugin.sessions.revocations import History
from ringfence.plugin.sessions.store import MemorySessions
from ringfence.plugin.sessions.vault import Journal, Random, Vault, snapshot_key

KEY_FILE: Final = "sessions.key"


class Archive:
    """The snapshots of one store in `folder`, counted on from what the log knows.

    `tell` hears one sentence where sessions cannot be kept or taken back: they go on then, or their callers open new
    ones, and nothing that has ended lives again.
    """

    def __init__(
        self,
        folder: Path,
        store: MemorySessions,
        history: History,
        *,
        gateway: str,
        random: Random,
        tell: Callable[[str], None],
    ) -> None:
        """Makes the key of the snapshots where there is none. Raises `TrustError` where its file cannot be used."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = snapshot_key(folder / KEY_FILE, sealer=None, random=random)
        self._vault = Vault(folder, gateway=gateway, key=key)
        self._store = store
        self._history = history
        self._generation = history.latest
        self._random = random
        self._tell = tell

    def revive(self, *, now: int) -> None:
        """Takes back the sessions of the newest snapshot, before the gateway serves."""
        try:
            revived = self._vault.restore(self._store, self._history, now=now)
        except GateError as error:
            self._tell(f"no session of before is taken back: {error}")
        else:
            if revived:
                self._tell(f"{revived} sessions of before are taken back")

    async def tend(self, journal: Journal, every_s: int) -> None:
        """Keeps the sessions every `every_s` seconds, until it is cancelled."""
        while True:
            await asyncio.sleep(every_s)
            await self.save(journal)

    async def save(self, journal: Journal) -> None:
        """Keeps the sessions as they are now."""
        self._generation += 1
        try:
            await self._vault.save(self._store, generation=self._generation, journal=journal, random=self._random)
        except RingfenceError as error:
            self._tell(f"the sessions are not kept for a restart: {error}")
