"""The independent reader in docs/ against real logs, whole and changed: it agrees with Ringfence's own verifier."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.audit import AuditLog, Keys, Settings, verify_log
from ringfence.audit.folder import read_layout
from ringfence.audit.retention import retain
from ringfence.crypto import COMPOSITE
from tests.audit.conftest import CompositeSigner, FaultyFiles, records_file, started

READER = Path(__file__).resolve().parents[2] / "docs" / "verify_audit_log.py"


def read(folder: Path, *words: Path) -> tuple[int, str]:
    # -O, because a check that vanishes with it is none; -I, so that it finds nothing of ours beside it.
    done = subprocess.run(
        [sys.executable, "-I", "-O", READER, folder, *words], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def write(folder: Path, composite: CompositeSigner, records: range, segment_bytes: int = 2_000) -> None:
    with AuditLog.open(
        folder,
        composite,
        clock_ns=time.time_ns,
        verify=COMPOSITE.verify,
        files=FaultyFiles(),
        settings=Settings(checkpoint_every_s=0.0, segment_bytes=segment_bytes),
    ) as log:
        for number in records:
            log.wait(log.append(started(number)))


@pytest.fixture
def folder(tmp_path: Path, composite: CompositeSigner) -> Path:
    for first in range(0, 30, 10):
        write(tmp_path / "agent", composite, range(first, first + 10))
    return tmp_path / "agent"


def ours(folder: Path, composite: CompositeSigner) -> bool:
    layout = read_layout(folder)
    keys = Keys(composite.public, COMPOSITE.verify)
    return verify_log(layout.pieces(), layout.notes(layout.note_sizes()), keys).error is None


def test_it_is_short_and_needs_nothing_of_ringfence() -> None:
    text = READER.read_text(encoding="utf-8")
    assert text.count("\n") <= 100
    imported = set(re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE))
    assert imported - sys.stdlib_module_names == {"cryptography"}


def test_real_logs_hold(folder: Path, composite: CompositeSigner, tmp_path: Path) -> None:
    assert read(folder) == (0, "30 records hold, 30 are signed\n")
    key = tmp_path / "owner.pub"
    key.write_text(COMPOSITE.generate()[0].hex())
    assert read(folder, key) == (1, "DOES NOT HOLD: a checkpoint is not signed by this key\n")
    write(tmp_path / "empty", composite, range(0))
    assert read(tmp_path / "empty") == (0, "0 records hold, 0 are signed\n")


def test_a_log_holds_after_retention_and_after_a_crash(folder: Path) -> None:
    gone = retain(folder, 30, Settings(keep_bytes=4_000), 0, FaultyFiles())
    assert gone
    assert read(folder) == (0, "30 records hold, 30 are signed\n")
    with max(folder.glob("records-*")).open("ab") as file:
        file.write(b'{"v":2,"seq":31,')
    with max(folder.glob("checkpoints-*")).open("ab") as file:
        file.write(b"ringfence.audit/agent/")
    assert read(folder) == (0, "30 records hold, 30 are signed\n")
    with max(folder.glob("records-*")).open("ab") as file:
        file.write(b"\0" * 40 + b"\n")
    assert read(folder)[1].startswith("30 records hold, 30 are signed; the rest was not acknowledged")


def replaced(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


CHANGES: tuple[Callable[[Path], object], ...] = (
    lambda folder: replaced(records_file(folder), b'"version":"1"', b'"version":"7"'),
    lambda folder: replaced(max(folder.glob("records-*")), b'"version":"29"', b'"version":"28"'),
    lambda folder: replaced(records_file(folder), b'"time_ns":1', b'"time_ns":2'),
    lambda folder: replaced(records_file(folder), b"\n", b"\n\n"),
    lambda folder: max(folder.glob("records-*")).unlink(),
    lambda folder: records_file(folder).unlink(),
    lambda folder: records_file(folder, read_layout(folder).records[1]).unlink(),
    lambda folder: replaced(min(folder.glob("checkpoints-*")), b"time_ns 1", b"time_ns 2"),
    lambda folder: replaced(min(folder.glob("checkpoints-*")), b"counter 0", b"counter 1"),
    lambda folder: replaced(max(folder.glob("records-*")), b'"peaks":["', b'"peaks":["00'),
)


@pytest.mark.parametrize("change", CHANGES)
def test_changed_logs_do_not_hold(folder: Path, composite: CompositeSigner, change: Callable[[Path], object]) -> None:
    change(folder)
    status, said = read(folder)
    assert (status, said.startswith("DOES NOT HOLD: ")) == (1, True), said
    assert not ours(folder, composite)
