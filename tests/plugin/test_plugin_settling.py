"""Settling a decision: what cannot be recorded is denied, and nothing else waits for it."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ringfence import audit
from ringfence.audit.commit import MAX_RECORDS
from ringfence.audit.files import OsFiles
from ringfence.crypto import COMPOSITE
from ringfence.plugin.settling import Settlement
from ringfence.plugin.strangers import StrangerLimit
from ringfence.trust import KeyPair

RECORD = audit.Operator(event="started", component="gateway")


class StuckDisk(OsFiles):
    """A disk that answers when it is let go."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()

    def fdatasync(self, descriptor: int) -> None:
        assert self.free.wait(30)
        super().fdatasync(descriptor)


def test_a_full_log_denies_at_once_and_holds_nobody_else_up(tmp_path: Path) -> None:
    disk = StuckDisk()
    signer = KeyPair(*COMPOSITE.generate())
    with audit.AuditLog.open(tmp_path, signer, clock_ns=time.time_ns, verify=COMPOSITE.verify, files=disk) as log:
        settlement = Settlement(log, StrangerLimit(1), ticks_ns=time.monotonic_ns, tell=lambda _record: None)
        disk.free.clear()
        log.append(RECORD)
        with suppress(audit.AuditError):
            for _ in range(2 * MAX_RECORDS + 2):
                log.append(RECORD, timeout_s=0)

        async def longest_pause() -> float:
            loop = asyncio.get_running_loop()
            denied = asyncio.ensure_future(settlement.record(RECORD))
            worst, before = 0.0, loop.time()
            while not denied.done():
                await asyncio.sleep(0)
                worst, before = max(worst, loop.time() - before), loop.time()
            with pytest.raises(audit.AuditError, match=r"audit\.unavailable"):
                await denied
            return worst

        try:
            assert asyncio.run(longest_pause()) < 1
        finally:
            disk.free.set()
