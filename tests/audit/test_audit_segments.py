"""Rotation into segments, and retention that removes old ones without breaking what stays."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.audit import AuditError, AuditLog, Settings
from ringfence.audit.checkpoint import Signed, decode_checkpoints
from ringfence.audit.folder import read_layout, read_notes
from ringfence.audit.proving import prove_consistency, prove_inclusion
from ringfence.audit.retention import Closed, compact, removable, retain
from ringfence.audit.segments import compacted_name
from tests.audit.conftest import (
    Ed25519Signer,
    FaultyFiles,
    Opener,
    checkpoints_file,
    records_file,
    started,
    verify_ed25519,
    verify_folder,
    write_until_denied,
)

SMALL = Settings(checkpoint_every_s=0.0, segment_bytes=1_500)
SECOND = 1_000_000_000


def fill(folder: Path, open_log: Opener, records: int = 40, each: int = 4) -> list[Signed]:
    """A log of several segments and openings; gives every checkpoint that was made on the way."""
    for first in range(0, records, each):
        with open_log(folder, SMALL) as log:
            for number in range(first, min(first + each, records)):
                log.wait(log.append(started(number)))
    layout = read_layout(folder)
    return list(decode_checkpoints(layout.notes(layout.note_sizes())))


def test_a_log_goes_on_through_its_segments(tmp_path: Path, open_log: Opener, signer: Ed25519Signer) -> None:
    fill(tmp_path, open_log)
    layout = read_layout(tmp_path)
    assert len(layout.records) > 4
    assert layout.records[0] == 1
    report = verify_folder(tmp_path, signer.public)
    report.check()
    assert (report.records, report.uncovered, report.first) == (40, 0, 1)
    with open_log(tmp_path, SMALL) as log:
        assert [entry.record for entry in log.records()] == [started(number) for number in range(40)]
        assert [entry.seq for entry in log.records()] == list(range(1, 41))


def test_a_segment_ends_when_it_is_old(tmp_path: Path, signer: Ed25519Signer) -> None:
    times = itertools.count(0, SECOND)
    log = AuditLog.open(
        tmp_path,
        signer,
        clock_ns=lambda: next(times),
        verify=verify_ed25519,
        files=FaultyFiles(),
        settings=Settings(checkpoint_every_s=3600, segment_age_s=10),
    )
    with log:
        for number in range(30):
            log.wait(log.append(started(number)))
    assert len(read_layout(tmp_path).records) == 3
    verify_folder(tmp_path, signer.public).check()


@pytest.mark.parametrize("failing", [{"create"}, {"open"}])
def test_a_segment_that_cannot_begin_leaves_the_present_one_in_use(
    tmp_path: Path, open_log: Opener, files: FaultyFiles, signer: Ed25519Signer, failing: set[str]
) -> None:
    log = open_log(tmp_path, SMALL)
    files.failing.update(failing)
    for number in range(20):
        log.wait(log.append(started(number)))
    assert read_layout(tmp_path).records == (1,)
    files.failing.clear()
    log.wait(log.append(started(20)))
    log.close()
    assert read_layout(tmp_path).records == (1, 21)
    verify_folder(tmp_path, signer.public).check()


def test_a_segment_that_began_and_cannot_be_undone_denies(tmp_path: Path, open_log: Opener, files: FaultyFiles) -> None:
    log = open_log(tmp_path, SMALL)
    files.failing.update({"open", "remove"})
    with pytest.raises(AuditError, match="could not be begun"):
        write_until_denied(log)
    files.failing.clear()


def test_a_removed_renamed_or_replaced_segment_is_noticed(
    tmp_path: Path, open_log: Opener, signer: Ed25519Signer
) -> None:
    whole = tmp_path / "whole"
    fill(whole, open_log)
    first, second, third, *_ = read_layout(whole).records
    other = tmp_path / "other"
    fill(other, open_log, records=20)
    copy = tmp_path / "copy"
    changes: tuple[Callable[[], object], ...] = (
        lambda: records_file(copy, second).unlink(),
        lambda: records_file(copy, third).rename(records_file(copy, third + 1)),
        lambda: shutil.copy(records_file(whole, first), records_file(copy, second)),
        lambda: shutil.copy(records_file(other, third), records_file(copy, third)),
        lambda: checkpoints_file(copy, second).write_bytes(checkpoints_file(whole, third).read_bytes()),
    )
    for number, change in enumerate(changes):
        shutil.copytree(whole, copy)
        change()
        assert verify_folder(copy, signer.public).error is not None, number
        shutil.rmtree(copy)


def test_opening_checks_from_the_last_checkpoint_on_and_reading_all(
    tmp_path: Path, open_log: Opener, signer: Ed25519Signer
) -> None:
    fill(tmp_path, open_log)
    path = records_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"version":"1"', b'"version":"8"'))
    with open_log(tmp_path, SMALL) as log, pytest.raises(AuditError, match="not chained"):
        list(log.records())
    assert verify_folder(tmp_path, signer.public).bad_record in (1, 2)


# Retention.


def test_what_goes_is_covered_by_a_checkpoint_over_a_later_record() -> None:
    closed = [Closed(1, 11, 100, 10 * SECOND), Closed(11, 21, 100, 20 * SECOND), Closed(21, 31, 100, 30 * SECOND)]
    by_size = Settings(keep_bytes=150)
    by_age = Settings(keep_age_s=15)
    assert removable(closed, 350, 40, by_size, 0) == [1, 11]
    assert removable(closed, 350, 20, by_size, 0) == [1]
    assert removable(closed, 350, 10, by_size, 0) == []
    assert removable(closed, 350, 11, by_size, 0) == [1]
    assert removable(closed, 350, 40, by_age, 40 * SECOND) == [1, 11]
    assert removable(closed, 350, 40, by_age, 25 * SECOND) == []
    assert removable(closed, 350, 40, Settings(), 999 * SECOND) == []


def test_what_stays_still_proves_itself_and_every_checkpoint_there_was(
    tmp_path: Path, open_log: Opener, signer: Ed25519Signer
) -> None:
    points = fill(tmp_path, open_log)
    kept = prove_inclusion(tmp_path, 2)
    before = read_layout(tmp_path).records
    gone = retain(tmp_path, 40, Settings(keep_bytes=4_000), 0, FaultyFiles())
    assert gone == list(before[: len(gone)])
    assert len(gone) > 2
    layout = read_layout(tmp_path)
    assert layout.compacted == tuple(gone)
    assert not records_file(tmp_path).exists()
    assert not checkpoints_file(tmp_path).exists()

    report = verify_folder(tmp_path, signer.public)
    report.check()
    assert (report.first, report.records) == (before[len(gone)], 40)
    for signed in points:
        found = verify_folder(tmp_path, signer.public, signed)
        found.check()
        assert found.expected
        prove_consistency(tmp_path, signed)
    for seq in range(1, 41):
        if seq < report.first:
            with pytest.raises(AuditError, match="retention removed it"):
                prove_inclusion(tmp_path, seq)
        else:
            prove_inclusion(tmp_path, seq)
    assert kept.signed.checkpoint.size == 40

    with open_log(tmp_path, SMALL) as log:
        assert [entry.seq for entry in log.records()] == list(range(report.first, 41))
        log.append(started(40))
    verify_folder(tmp_path, signer.public).check()


def test_a_size_that_no_checkpoint_had_cannot_be_proven_once_it_is_removed(
    tmp_path: Path, open_log: Opener, signer: Ed25519Signer
) -> None:
    points = fill(tmp_path, open_log, each=3)
    (third,) = [signed for signed in points if signed.checkpoint.size == 3][-1:]
    for first in read_layout(tmp_path).checkpoints[:1]:
        checkpoints_file(tmp_path, first).unlink()
    retain(tmp_path, 40, Settings(keep_bytes=4_000), 0, FaultyFiles())
    report = verify_folder(tmp_path, signer.public, third)
    assert report.error is not None
    assert report.error.code.name == "audit.unprovable"
    with pytest.raises(AuditError) as caught:
        prove_consistency(tmp_path, third)
    assert caught.value.code.name == "audit.unprovable"


def test_what_is_kept_of_removed_segments_may_go_too(tmp_path: Path, open_log: Opener, signer: Ed25519Signer) -> None:
    points = fill(tmp_path, open_log)
    gone = retain(tmp_path, 40, Settings(keep_bytes=4_000), 0, FaultyFiles())
    for first in gone:
        (tmp_path / compacted_name(first)).unlink()
    verify_folder(tmp_path, signer.public).check()
    verify_folder(tmp_path, signer.public, points[-1]).check()
    assert verify_folder(tmp_path, signer.public, points[0]).error is not None
    prove_inclusion(tmp_path, 40)


def test_a_changed_remainder_is_noticed(tmp_path: Path, open_log: Opener, signer: Ed25519Signer) -> None:
    fill(tmp_path, open_log)
    gone = retain(tmp_path, 40, Settings(keep_bytes=4_000), 0, FaultyFiles())
    path = tmp_path / compacted_name(gone[1])
    lines = path.read_bytes().splitlines(keepends=True)
    for changed in (lines[:-1], [*lines, lines[-1]], [lines[0], *lines[2:]], [*lines[:-1], lines[-1][:-1]]):
        path.write_bytes(b"".join(changed))
        if changed[-1].endswith(b"\n"):
            assert verify_folder(tmp_path, signer.public).error is not None
    swapped = lines[-1].replace(b'"nodes":["', b'"nodes":["00')
    path.write_bytes(b"".join([*lines[:-1], swapped]))
    assert verify_folder(tmp_path, signer.public).error is not None


def test_a_changed_segment_is_evidence_and_stays(tmp_path: Path, open_log: Opener) -> None:
    fill(tmp_path, open_log)
    path = records_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"version":"1"', b'"version":"8"'))
    with pytest.raises(AuditError, match="does not lead to"):
        retain(tmp_path, 40, Settings(keep_bytes=4_000), 0, FaultyFiles())
    assert path.exists()


def test_a_removal_cut_short_leaves_a_log_that_holds_and_is_finished_later(
    tmp_path: Path, open_log: Opener, files: FaultyFiles, signer: Ed25519Signer
) -> None:
    fill(tmp_path, open_log)
    first, after, *_ = read_layout(tmp_path).records
    content = compact(tmp_path, first, after)
    steps: list[Callable[[], object]] = [
        lambda: files.create(tmp_path / compacted_name(first), content),
        lambda: records_file(tmp_path, first).unlink(),
        lambda: checkpoints_file(tmp_path, first).unlink(),
    ]
    for step in steps:
        step()
        verify_folder(tmp_path, signer.public).check()
        open_log(tmp_path, SMALL).close()
    retain(tmp_path, 40, Settings(keep_bytes=4_000), 0, files)
    verify_folder(tmp_path, signer.public).check()


def test_the_log_removes_old_segments_itself(tmp_path: Path, open_log: Opener, signer: Ed25519Signer) -> None:
    settings = Settings(checkpoint_every_s=0.0, segment_bytes=1_500, keep_bytes=4_000)
    with open_log(tmp_path, settings) as log:
        for number in range(60):
            log.wait(log.append(started(number)))
    layout = read_layout(tmp_path)
    assert layout.compacted
    assert sum(records_file(tmp_path, first).stat().st_size for first in layout.records) < 6_000
    report = verify_folder(tmp_path, signer.public)
    report.check()
    assert report.records == 60


def test_what_is_young_stays_whatever_its_size(tmp_path: Path, signer: Ed25519Signer) -> None:
    times = itertools.count(0, SECOND)
    settings = Settings(checkpoint_every_s=0.0, segment_bytes=1_500, keep_bytes=1, keep_at_least_s=30)
    with AuditLog.open(
        tmp_path,
        signer,
        clock_ns=lambda: next(times),
        verify=verify_ed25519,
        files=FaultyFiles(),
        settings=settings,
    ) as log:
        for number in range(60):
            log.wait(log.append(started(number)))
    # Closing the log removes what is old, by the same clock.
    ended = next(times)
    layout = read_layout(tmp_path)
    assert layout.compacted
    report = verify_folder(tmp_path, signer.public)
    report.check()
    with AuditLog.open(
        tmp_path, signer, clock_ns=lambda: ended * SECOND, verify=verify_ed25519, files=FaultyFiles()
    ) as log:
        oldest = next(log.records())
    assert ended - oldest.time_ns > 30 * SECOND
    assert report.first > 1
    assert len(layout.records) > 3


def test_a_disk_that_cannot_remove_keeps_more(
    tmp_path: Path, open_log: Opener, files: FaultyFiles, signer: Ed25519Signer
) -> None:
    settings = Settings(checkpoint_every_s=0.0, segment_bytes=1_500, keep_bytes=4_000)
    log = open_log(tmp_path, settings)
    for number in range(60):
        log.wait(log.append(started(number)))
    files.failing.add("remove")
    log.close()
    verify_folder(tmp_path, signer.public).check()


def test_checkpoints_are_beside_their_records(tmp_path: Path, open_log: Opener) -> None:
    fill(tmp_path, open_log)
    layout = read_layout(tmp_path)
    ends = [after - 1 for after in layout.records[1:]] + [40]
    for first, end in zip(layout.records, ends, strict=True):
        path = checkpoints_file(tmp_path, first)
        sizes = [signed.checkpoint.size for signed in decode_checkpoints(read_notes(path))] if path.exists() else []
        assert all(first <= size <= end for size in sizes)
