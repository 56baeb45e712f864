"""What the tests of the agent share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence import audit
from ringfence.crypto import COMPOSITE
from tests.agent.agent_bench import HOST, NOW, Bench, ShortDisk


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    disk = ShortDisk()
    with audit.AuditLog.open(tmp_path, HOST, clock_ns=lambda: NOW * 10**9, verify=COMPOSITE.verify, files=disk) as log:
        yield Bench(log, disk)
