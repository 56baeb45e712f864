"""What writer and readers leave in the page cache: little, and never anything that is not on the disk yet."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from pathlib import Path

import pytest

from ringfence.audit import AuditError, AuditLog, Decision, OsFiles, Settings
from ringfence.audit.files import FORGET_BYTES, read_blocks
from tests.audit.conftest import Ed25519Signer, FaultyFiles, records_file, started, verify_ed25519, verify_folder

LARGE = Decision(decision_id="d", pipeline="request", verdict="deny", resource="r" * 4096)
ENOUGH = FORGET_BYTES // 4096 + 1
"""So many large records that there is something to let go of."""


class WatchedFiles(FaultyFiles):
    """Says of every sync, and of everything that was let go of, up to which size of which segment it reached."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str, int]] = []
        self.names: dict[int, str] = {}
        self.syncs_up_to = 2**63

    def open(self, path: Path) -> int:
        descriptor = super().open(path)
        self.names[descriptor] = path.name
        return descriptor

    def fdatasync(self, descriptor: int) -> None:
        super().fdatasync(descriptor)
        size = os.fstat(descriptor).st_size
        if size > self.syncs_up_to:
            raise OSError(errno.EIO, "Input/output error")
        self.seen.append(("synced", self.names[descriptor], size))

    def forget(self, descriptor: int, size: int) -> None:
        self.seen.append(("forgotten", self.names[descriptor], size))
        super().forget(descriptor, size)

    def forgotten(self) -> list[tuple[str, int]]:
        return [(name, size) for what, name, size in self.seen if what == "forgotten"]


@pytest.fixture
def watched() -> WatchedFiles:
    return WatchedFiles()


def open_watched(folder: Path, signer: Ed25519Signer, files: WatchedFiles, settings: Settings) -> AuditLog:
    clock = itertools.count(1000)
    return AuditLog.open(
        folder, signer, clock_ns=lambda: next(clock), verify=verify_ed25519, files=files, settings=settings
    )


def append_large(log: AuditLog, files: WatchedFiles) -> None:
    """Appends enough large records while a commit is under way, so that they share the next one, and waits."""
    files.syncing.clear()
    files.gate.clear()
    first = log.append(started(0))
    assert files.syncing.wait(10)
    tickets = [log.append(LARGE) for _ in range(ENOUGH)]
    files.gate.set()
    log.wait(first)
    log.wait(tickets[-1])


def test_the_writer_lets_go_of_what_is_synced_and_of_nothing_else(
    tmp_path: Path, signer: Ed25519Signer, watched: WatchedFiles
) -> None:
    with open_watched(tmp_path, signer, watched, Settings()) as log:
        append_large(log, watched)
        assert [entry.record for entry in log.records()] == [started(0), *[LARGE] * ENOUGH]
        append_large(log, watched)
    records = [one for one in watched.seen if one[1].startswith("records")]
    forgotten = [at for at, (what, _, _) in enumerate(records) if what == "forgotten"]
    assert len(forgotten) == 2
    for at in forgotten:
        assert records[at - 1] == ("synced", *records[at][1:])
    report = verify_folder(tmp_path, signer.public)
    report.check()
    assert (report.records, report.uncovered) == (2 * ENOUGH + 2, 0)


def test_a_few_records_stay_in_the_cache(tmp_path: Path, signer: Ed25519Signer, watched: WatchedFiles) -> None:
    with open_watched(tmp_path, signer, watched, Settings()) as log:
        for number in range(10):
            log.wait(log.append(started(number)))
    assert watched.forgotten() == []


def test_a_segment_that_ended_is_let_go_of_whole(tmp_path: Path, signer: Ed25519Signer, watched: WatchedFiles) -> None:
    with open_watched(tmp_path, signer, watched, Settings(segment_bytes=600)) as log:
        for number in range(5):
            log.wait(log.append(started(number)))
    *ended, _ = sorted(tmp_path.glob("records-*"))
    assert len(ended) > 1
    assert watched.forgotten() == [(path.name, path.stat().st_size) for path in ended]


def test_nothing_that_failed_to_reach_the_disk_is_let_go_of(
    tmp_path: Path, signer: Ed25519Signer, watched: WatchedFiles
) -> None:
    log = open_watched(tmp_path, signer, watched, Settings())
    watched.room = 4096 * 10
    with pytest.raises(AuditError, match="No space left"):
        append_large(log, watched)
    assert records_file(tmp_path).stat().st_size < 4096
    watched.room = None
    watched.syncs_up_to = 4096
    with pytest.raises(AuditError, match="fdatasync failed"):
        append_large(log, watched)
    # Whether a last checkpoint was signed before is a matter of timing.
    with contextlib.suppress(AuditError):
        log.close()
    assert watched.forgotten() == []


@pytest.mark.parametrize(("skip", "until"), [(0, None), (FORGET_BYTES + 7, None), (0, 2 * FORGET_BYTES + 7)])
def test_reading_misses_nothing_while_it_lets_go(tmp_path: Path, skip: int, until: int | None) -> None:
    path = tmp_path / "large"
    content = b"".join(b"%d:%s\n" % (number, b"x" * 1000) for number in range(3 * FORGET_BYTES // 1000))
    path.write_bytes(content)
    for _ in range(2):
        found = b"".join(
            b"".join(line + b"\n" for line in lines) + rest for lines, rest in read_blocks(path, skip=skip, until=until)
        )
        assert found == content[skip:until]


def test_where_the_hint_cannot_be_given_nothing_happens() -> None:
    reading, writing = os.pipe()
    try:
        OsFiles().forget(writing, 1)
    finally:
        os.close(reading)
        os.close(writing)
