"""Power cuts: a log reopens with every acknowledged record, no half record, and nothing out of order."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from ringfence.audit import AuditError, AuditLog, Operator, Settings
from ringfence.audit.recovery import resume
from tests.audit.audit_power_disk import PowerDisk
from tests.audit.conftest import Ed25519Signer, FaultyFiles, started, verify_ed25519, verify_folder


@dataclass
class Scene:
    """A log on a disk that may lose its power, and what was acknowledged so far."""

    folder: Path
    signer: Ed25519Signer
    disk: PowerDisk = field(default_factory=PowerDisk)
    acknowledged: int = 0
    clock: Iterator[int] = field(default_factory=lambda: itertools.count(1000))

    def open(self, folder: Path | None = None, settings: Settings | None = None) -> AuditLog:
        # The log that goes on after a cut is on a disk that fails no more.
        return AuditLog.open(
            folder or self.folder,
            self.signer,
            clock_ns=lambda: next(self.clock),
            verify=verify_ed25519,
            files=FaultyFiles() if folder else self.disk,
            settings=settings or Settings(checkpoint_every_s=0.0),
        )

    def check(self, cut: Path, acknowledged: int) -> tuple[int, bool]:
        """Opens what a cut left; says how many records it had and whether something was dropped."""
        with self.open(cut) as log:
            records = [entry.record for entry in log.records() if isinstance(entry.record, Operator)]
            log.wait(log.append(started(9999)))
        found = [int(record.version) for record in records if record.event == "started"]
        assert found == list(range(len(found)))
        assert len(found) >= acknowledged
        report = verify_folder(cut, self.signer.public)
        report.check()
        assert (report.uncovered, report.torn) == (0, 0)
        shutil.rmtree(cut)
        return len(found), any(record.event == "recovered" for record in records)


@pytest.fixture
def scene(tmp_path: Path, signer: Ed25519Signer) -> Scene:
    return Scene(tmp_path / "log", signer)


@pytest.mark.parametrize("seed", range(6))
def test_power_cut_before_any_sync_loses_no_acknowledged_record(scene: Scene, tmp_path: Path, seed: int) -> None:
    random = Random(seed)  # noqa: S311
    cuts: list[tuple[Path, int]] = []

    def cut(_name: str) -> None:
        for _ in range(3):
            cuts.append((tmp_path / f"cut{len(cuts)}", scene.acknowledged))
            scene.disk.cut(cuts[-1][0], random)

    log = scene.open(settings=Settings(checkpoint_every_s=0.0, segment_bytes=6_000))
    scene.disk.before_sync = cut
    number = 0
    for _ in range(8):
        tickets = []
        for _ in range(random.randint(1, 9)):
            tickets.append(log.append(started(number)))
            number += 1
        for ticket in tickets:
            log.wait(ticket)
            scene.acknowledged += 1
    log.close()
    assert len(cuts) >= 24
    outcomes = [scene.check(folder, acknowledged) for folder, acknowledged in cuts]
    # Both sorts of cut have to occur, or nothing was shown.
    assert {dropped for _, dropped in outcomes} == {True, False}


def test_a_failed_sync_loses_no_acknowledged_record_even_if_the_power_goes_next(scene: Scene, tmp_path: Path) -> None:
    log = scene.open()
    for number in range(5):
        log.wait(log.append(started(number)))
    scene.disk.fail_sync_of = "records"
    with pytest.raises(AuditError):
        log.wait(log.append(started(5)))
    scene.disk.fail_sync_of = ""
    with contextlib.suppress(AuditError):
        log.close()
    with pytest.raises(AuditError, match="waits for an operator"):
        scene.open()
    resume(scene.folder, scene.disk)
    with scene.open() as log:
        # The lost one is not in the page cache either, or what follows it would be chained to nothing on the disk.
        for number in range(5, 8):
            log.wait(log.append(started(number)))
    scene.disk.cut(tmp_path / "cut", Random(1))  # noqa: S311
    assert scene.check(tmp_path / "cut", 8) == (8, False)


def test_a_tail_cut_back_below_a_checkpoint_is_never_taken_for_a_power_cut(scene: Scene, tmp_path: Path) -> None:
    with scene.open() as log:
        for number in range(20):
            log.append(started(number))
    (records,) = scene.folder.glob("records-*")
    whole = records.read_bytes()
    random = Random(7)  # noqa: S311
    for _ in range(20):
        at = random.randint(whole.index(b"\n") + 1, len(whole) - 2)
        for changed in (whole[:at], whole[:at] + b"\0" * (len(whole) - at), whole[:at] + b"\0" + whole[at + 1 :]):
            copy = tmp_path / "copy"
            shutil.copytree(scene.folder, copy)
            (copy / records.name).write_bytes(changed)
            with pytest.raises(AuditError) as caught:
                scene.open(copy)
            assert caught.value.code.name == "audit.corrupt"
            assert (copy / records.name).read_bytes() == changed
            shutil.rmtree(copy)
