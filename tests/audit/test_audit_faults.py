"""Crashes and failing disks: every acknowledged record survives, and nothing half-written does."""

from __future__ import annotations

import contextlib
import errno
import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ringfence.audit import AuditError, AuditLog, Operator, Settings
from ringfence.audit.commit import Ticket
from ringfence.audit.recovery import resume
from ringfence.cli import main
from tests.audit.conftest import (
    Ed25519Signer,
    FaultyFiles,
    Opener,
    checkpoints_file,
    records_file,
    started,
    verify_ed25519,
    verify_folder,
)

CHILD = Path(__file__).with_name("audit_writing_child.py")


class InterruptedFiles(FaultyFiles):
    """Lets something happen, which may be a failure, in the midst of the next write or sync of records."""

    def __init__(self) -> None:
        super().__init__()
        self.midst: dict[str, Callable[[], None]] = {}

    def append(self, descriptor: int, data: bytes) -> None:
        if self.kinds[descriptor] == "records" and "append" in self.midst:
            super().append(descriptor, data[:100])
            self.midst.pop("append")()
        super().append(descriptor, data)

    def fdatasync(self, descriptor: int) -> None:
        if self.kinds[descriptor] == "records" and "fdatasync" in self.midst:
            self.midst.pop("fdatasync")()
        super().fdatasync(descriptor)


def numbers(log: AuditLog) -> list[int]:
    records = (entry.record for entry in log.records())
    return [int(one.version) for one in records if isinstance(one, Operator) and one.event == "started"]


def dropped(log: AuditLog) -> int:
    """The bytes that the newest opening says it dropped."""
    records = (entry.record for entry in log.records())
    return [one.dropped_bytes for one in records if isinstance(one, Operator) and one.event == "recovered"][-1]


def events(log: AuditLog) -> list[str]:
    return [entry.record.event for entry in log.records() if isinstance(entry.record, Operator)]


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
    checkpoints_file(whole).unlink()
    records = records_file(whole).read_bytes()
    start = records[:-1].rindex(b"\n") + 1
    folder = tmp_path / "cut"
    for cut in range(start, len(records) + 1):
        shutil.copytree(whole, folder)
        records_file(folder).write_bytes(records[:cut])
        kept = [0, 1, 2] if cut == len(records) else [0, 1]
        with open_log(folder) as log:
            assert numbers(log) == kept, cut
            # What was dropped is put on record; a cut between two records leaves nothing to drop.
            torn = start < cut < len(records)
            assert ("recovered" in events(log)) == torn, cut
            assert not torn or dropped(log) == cut - start
            log.wait(log.append(started(9)))
        assert versions(folder, open_log) == [*kept, 9], cut
        shutil.rmtree(folder)


def test_the_last_checkpoint_cut_at_every_byte_is_dropped(tmp_path: Path, open_log: Opener) -> None:
    whole = tmp_path / "whole"
    for number in range(2):
        with open_log(whole) as log:
            log.append(started(number))
    notes = checkpoints_file(whole).read_bytes()
    first = notes[: notes.index(b"\n\n", notes.index(b"\n\n") + 2) + 2]
    folder = tmp_path / "cut"
    for cut in range(len(first), len(notes) + 1):
        shutil.copytree(whole, folder)
        checkpoints_file(folder).write_bytes(notes[:cut])
        with open_log(folder) as log:
            log.append(started(2))
        assert checkpoints_file(folder).read_bytes().startswith(first)
        report = verify_folder(folder, bytes.fromhex((folder / "signer.pub").read_text()))
        report.check()
        assert (report.records, report.uncovered) == (3, 0), cut
        shutil.rmtree(folder)


def test_a_broken_checkpoint_before_a_whole_one_is_no_crash(tmp_path: Path, open_log: Opener) -> None:
    for number in range(2):
        with open_log(tmp_path) as log:
            log.append(started(number))
    notes = checkpoints_file(tmp_path)
    notes.write_bytes(notes.read_bytes().replace(b"chain ", b"chain\0", 1))
    with pytest.raises(AuditError, match="but others follow"):
        open_log(tmp_path)


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
    before = records_file(tmp_path).read_bytes()
    files.room = 40
    files.spared = "checkpoints"
    for number in (1, 2):
        with pytest.raises(AuditError, match="No space left") as caught:
            log.wait(log.append(started(number)))
        assert caught.value.code.name == "audit.unavailable"
        assert records_file(tmp_path).read_bytes() == before
    files.room = None
    log.wait(log.append(started(3)))
    log.close()
    assert versions(tmp_path, open_log) == [0, 3]


@pytest.mark.parametrize("segment_bytes", [1, 2**20])
def test_what_arrives_while_a_write_fails_is_written_where_that_one_would_have_been(
    tmp_path: Path, signer: Ed25519Signer, segment_bytes: int
) -> None:
    files = InterruptedFiles()
    tickets: list[Ticket] = []

    def fail() -> None:
        tickets.extend(log.append(started(number)) for number in (2, 3))
        raise OSError(errno.ENOSPC, "No space left on device")

    clock = itertools.count(1000)
    settings = Settings(segment_bytes=segment_bytes)
    with AuditLog.open(
        tmp_path, signer, clock_ns=lambda: next(clock), verify=verify_ed25519, files=files, settings=settings
    ) as log:
        log.wait(log.append(started(0)))
        files.midst["append"] = fail
        with pytest.raises(AuditError, match="No space left"):
            log.wait(log.append(started(1)))
        for ticket in tickets:
            log.wait(ticket)
        assert [(entry.seq, entry.base) for entry in log.records()] == [(1, 0), (2, 1), (3, 1)]
        assert numbers(log) == [0, 2, 3]
    report = verify_folder(tmp_path, signer.public)
    report.check()
    assert (report.records, report.uncovered) == (3, 0)


def test_what_arrives_while_a_sync_fails_is_denied_and_not_written(tmp_path: Path, signer: Ed25519Signer) -> None:
    files = InterruptedFiles()
    tickets: list[Ticket] = []

    def fail() -> None:
        tickets.extend(log.append(started(number)) for number in (2, 3))
        raise OSError(errno.EIO, "Input/output error")

    log = AuditLog.open(tmp_path, signer, clock_ns=time.time_ns, verify=verify_ed25519, files=files)
    log.wait(log.append(started(0)))
    acknowledged = records_file(tmp_path).read_bytes()
    files.midst["fdatasync"] = fail
    failed = log.append(started(1))
    with pytest.raises(AuditError, match="until an operator decides"):
        log.wait(failed, timeout_s=5)
    assert len(tickets) == 2
    for ticket in tickets:
        with pytest.raises(AuditError, match="until an operator decides"):
            log.wait(ticket, timeout_s=5)
    close_broken(log)
    assert records_file(tmp_path).read_bytes() == acknowledged


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
    files.spared = "checkpoints"
    ticket = log.append(started(1))
    with pytest.raises(AuditError, match="write failed"):
        log.wait(ticket)
    files.room = None
    files.failing.clear()
    with pytest.raises(AuditError, match="could not be undone"):
        log.append(started(2))
    close_broken(log)
    assert versions(tmp_path, open_log) == [0]


def test_a_failed_sync_denies_until_an_operator_decides(
    tmp_path: Path, open_log: Opener, files: FaultyFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    log = open_log(tmp_path)
    log.wait(log.append(started(0)))
    files.failing.update({"fdatasync", "truncate"})
    with pytest.raises(AuditError, match="fdatasync failed") as caught:
        log.wait(log.append(started(1)))
    assert caught.value.code.name == "audit.unavailable"
    files.failing.clear()
    for _ in range(2):
        with pytest.raises(AuditError, match="until an operator decides"):
            log.append(started(2))
    assert main(["audit", "resume", str(tmp_path)]) == 1
    assert "audit.locked" in capsys.readouterr().err
    close_broken(log)
    for _ in range(2):
        with pytest.raises(AuditError, match="waits for an operator") as refused:
            open_log(tmp_path)
        assert refused.value.code.name == "audit.needs_operator"
    assert b'"version":"1"' in records_file(tmp_path).read_bytes()
    assert main(["audit", "resume", str(tmp_path)]) == 0
    assert "fdatasync failed" in capsys.readouterr().out
    with open_log(tmp_path) as log:
        assert numbers(log) == [0]
        assert events(log) == ["started", "resumed"]
    assert events(open_log(tmp_path)) == ["started", "resumed"]
    assert main(["audit", "resume", str(tmp_path / "nowhere"), "--json"]) == 2


def test_nothing_to_decide_and_a_spoilt_mark_are_said(
    tmp_path: Path, open_log: Opener, capsys: pytest.CaptureFixture[str]
) -> None:
    open_log(tmp_path).close()
    assert main(["audit", "resume", str(tmp_path)]) == 2
    assert "waits for no decision" in capsys.readouterr().err
    (tmp_path / "denied.json").write_bytes(b"{")
    with pytest.raises(AuditError, match="cannot be read"):
        open_log(tmp_path)
    assert main(["audit", "resume", str(tmp_path)]) == 1


def test_a_failed_sync_of_the_checkpoints_denies_too_and_cuts_no_record(
    tmp_path: Path, open_log: Opener, files: FaultyFiles
) -> None:
    log = open_log(tmp_path)
    files.failing.add("fdatasync of checkpoints")
    acknowledged = 0
    with contextlib.suppress(AuditError):
        while True:
            log.wait(log.append(started(acknowledged)))
            acknowledged += 1
    with pytest.raises(AuditError, match="fdatasync of the checkpoints failed"):
        log.append(started(acknowledged))
    files.failing.clear()
    close_broken(log)
    with pytest.raises(AuditError, match="waits for an operator"):
        open_log(tmp_path)
    resume(tmp_path, files)
    found = versions(tmp_path, open_log)
    assert found[:acknowledged] == list(range(acknowledged))


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
    files.spared = "records"
    log.wait(log.append(started(1)))
    log.wait(log.append(started(2)))
    with pytest.raises(AuditError, match="without a checkpoint"):
        log.close()
    assert checkpoints_file(tmp_path).read_bytes() == b""
    files.room = None
    open_log(tmp_path).close()
    report = verify_folder(tmp_path, bytes.fromhex((tmp_path / "signer.pub").read_text()))
    assert (report.records, report.uncovered, report.checkpoints) == (2, 0, 1)
