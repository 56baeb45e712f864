"""Crashes and failing disks: every acknowledged record survives, and nothing half-written does."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ringfence.audit import AuditError, AuditLog, Operator
from ringfence.audit.checkpoint import decode_checkpoint
from tests.audit.conftest import Ed25519Signer, FaultyFiles, Opener, started, verify_ed25519

CHILD = Path(__file__).with_name("audit_writing_child.py")


def numbers(log: AuditLog) -> list[int]:
    return [int(entry.record.version) for entry in log.records() if isinstance(entry.record, Operator)]


def close_broken(log: AuditLog) -> None:
    """Closes a log that is out of service; whether a last checkpoint was signed before that is a matter of timing."""
    with contextlib.suppress(AuditError):
        log.close()


def open_log_of_child(folder: Path) -> AuditLog:
    private = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
    signer = Ed25519Signer(private, "rf1child")
    return AuditLog.open(folder, signer, clock_ns=time.time_ns, verify=verify_ed25519)


def versions(log_folder: Path, open_log: Opener) -> list[int]:
    """The numbers in the records of a folder, read by opening it."""
    with open_log(log_folder) as log:
        return numbers(log)


def test_the_last_record_cut_at_every_byte_is_dropped_and_the_log_goes_on(tmp_path: Path, open_log: Opener) -> None:
    whole = tmp_path / "whole"
    with open_log(whole) as log:
        for number in range(3):
            log.wait(log.append(started(number)))
    (whole / "checkpoints.jsonl").unlink()
    records = (whole / "records.jsonl").read_bytes()
    start = records[:-1].rindex(b"\n") + 1
    folder = tmp_path / "cut"
    for cut in range(start, len(records) + 1):
        shutil.copytree(whole, folder)
        (folder / "records.jsonl").write_bytes(records[:cut])
        kept = [0, 1, 2] if cut == len(records) else [0, 1]
        with open_log(folder) as log:
            assert numbers(log) == kept, cut
            log.wait(log.append(started(9)))
        assert versions(folder, open_log) == [*kept, 9], cut
        shutil.rmtree(folder)


def test_a_half_written_checkpoint_is_dropped(tmp_path: Path, open_log: Opener) -> None:
    with open_log(tmp_path) as log:
        log.append(started(1))
    checkpoints = tmp_path / "checkpoints.jsonl"
    whole = checkpoints.read_bytes()
    checkpoints.write_bytes(whole + whole[:50])
    with open_log(tmp_path) as log:
        log.append(started(2))
    first, second = checkpoints.read_bytes().splitlines(keepends=True)
    assert first == whole
    assert decode_checkpoint(second).seq == 2


def test_a_killed_writer_loses_no_acknowledged_record(tmp_path: Path) -> None:
    acknowledged: list[int] = []
    for _ in range(3):
        first = max(acknowledged, default=-1) + 10_000
        child = subprocess.Popen(
            [sys.executable, CHILD, "load", tmp_path, str(first)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert child.stdout is not None
        with child.stdout:
            acknowledged += [int(child.stdout.readline()) for _ in range(20)]
            time.sleep(0.1)
            child.kill()
            # A line cut short by the kill would be a smaller number: only whole lines count.
            acknowledged += [int(line) for line in child.stdout if line.endswith(b"\n")]
        child.wait()
    with open_log_of_child(tmp_path) as log:
        found = numbers(log)
    assert len(found) == len(set(found))
    assert set(acknowledged) <= set(found)
    assert len(acknowledged) > 60


def test_a_full_disk_denies_leaves_nothing_half_written_and_recovers(
    tmp_path: Path, open_log: Opener, files: FaultyFiles
) -> None:
    log = open_log(tmp_path)
    log.wait(log.append(started(0)))
    before = (tmp_path / "records.jsonl").read_bytes()
    files.room = 40
    files.spared = "checkpoints.jsonl"
    for number in (1, 2):
        with pytest.raises(AuditError, match="No space left") as caught:
            log.wait(log.append(started(number)))
        assert caught.value.code.name == "audit.unavailable"
        assert (tmp_path / "records.jsonl").read_bytes() == before
    files.room = None
    log.wait(log.append(started(3)))
    log.close()
    assert versions(tmp_path, open_log) == [0, 3]


async def test_a_failed_write_reaches_those_who_await(tmp_path: Path, open_log: Opener, files: FaultyFiles) -> None:
    log = open_log(tmp_path)
    files.room = 40
    with pytest.raises(AuditError, match="No space left"):
        await log.durable(log.append(started(1)))


def test_a_real_limit_on_the_file_denies_and_recovers(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, CHILD, "limit", tmp_path], capture_output=True, text=True, timeout=60, check=False
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.split() == ["audit.unavailable", "whole", "recovered"]
    with open_log_of_child(tmp_path) as log:
        assert sum(1 for _ in log.records()) > 2


def test_a_write_that_cannot_be_undone_denies_until_the_log_is_opened_again(
    tmp_path: Path, open_log: Opener, files: FaultyFiles
) -> None:
    log = open_log(tmp_path)
    log.wait(log.append(started(0)))
    files.failing.add("truncate")
    files.room = 40
    files.spared = "checkpoints.jsonl"
    ticket = log.append(started(1))
    with pytest.raises(AuditError, match="write failed"):
        log.wait(ticket)
    files.room = None
    files.failing.clear()
    with pytest.raises(AuditError, match="could not be undone"):
        log.append(started(2))
    close_broken(log)
    assert versions(tmp_path, open_log) == [0]


def test_a_failed_sync_denies_until_the_log_is_opened_again(
    tmp_path: Path, open_log: Opener, files: FaultyFiles
) -> None:
    log = open_log(tmp_path)
    log.wait(log.append(started(0)))
    files.failing.add("fdatasync")
    with pytest.raises(AuditError, match="fdatasync failed") as caught:
        log.wait(log.append(started(1)))
    assert caught.value.code.name == "audit.unavailable"
    files.failing.clear()
    for _ in range(2):
        with pytest.raises(AuditError, match="until it is opened again"):
            log.append(started(2))
    close_broken(log)
    assert versions(tmp_path, open_log) == [0]


def test_opening_relies_on_nothing_that_cannot_be_synced(tmp_path: Path, open_log: Opener, files: FaultyFiles) -> None:
    files.failing.add("fdatasync")
    with pytest.raises(AuditError) as caught:
        open_log(tmp_path)
    assert caught.value.code.name == "audit.unavailable"
    files.failing.clear()
    open_log(tmp_path)


def test_a_checkpoint_that_finds_no_space_is_made_up_for(tmp_path: Path, open_log: Opener, files: FaultyFiles) -> None:
    log = open_log(tmp_path)
    files.room = 100
    files.spared = "records.jsonl"
    log.wait(log.append(started(1)))
    log.wait(log.append(started(2)))
    with pytest.raises(AuditError, match="without a checkpoint"):
        log.close()
    assert (tmp_path / "checkpoints.jsonl").read_bytes() == b""
    files.room = None
    open_log(tmp_path).close()
    assert b'"seq":2,' in (tmp_path / "checkpoints.jsonl").read_bytes()
