"""The anchor: a log that was cut back to an older state is refused, and a crash is not taken for that."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from ringfence.audit import Anchor, AuditError, AuditLog, Settings
from ringfence.audit.anchor import check_counter
from ringfence.errors import Code, Kind, RingfenceError
from tests.audit.conftest import Ed25519Signer, FaultyFiles, started, verify_ed25519, verify_folder, write_until_denied


@dataclass
class MemoryCounter:
    """A counter that ends with the test."""

    value: int = 0

    def read(self) -> int:
        return self.value

    def increment(self) -> int:
        self.value += 1
        return self.value


@dataclass
class FileCounter:
    """A counter in a file, as on a medium that the log's disk knows nothing of."""

    path: Path

    def read(self) -> int:
        return int(self.path.read_text()) if self.path.exists() else 0

    def increment(self) -> int:
        self.path.write_text(str(self.read() + 1))
        return self.read()


class LostCounter(MemoryCounter):
    """A counter that went away."""

    def increment(self) -> int:
        raise RingfenceError(Code("test.counter_gone", Kind.UNAVAILABLE), "no counter")


@dataclass
class CutShort:
    """The machine dies each time just before `anchor` counts."""

    anchor: Anchor

    def read(self) -> int:
        return self.anchor.read()

    def increment(self) -> int:
        return self.anchor.read()


def opened(folder: Path, signer: Ed25519Signer, anchor: Anchor | None, every_s: float = 3600.0) -> AuditLog:
    clock = itertools.count(1000)
    return AuditLog.open(
        folder,
        signer,
        clock_ns=lambda: next(clock),
        verify=verify_ed25519,
        files=FaultyFiles(),
        anchor=anchor,
        settings=Settings(checkpoint_every_s=0.0, anchor_every_s=every_s),
    )


def run(folder: Path, signer: Ed25519Signer, anchor: Anchor | None, records: int = 3) -> int:
    """Writes some records; says what counter the newest checkpoint names."""
    with opened(folder, signer, anchor) as log:
        for number in range(records):
            log.append(started(number))
    last = verify_folder(folder, signer.public).last
    assert last is not None
    return last.counter


@pytest.mark.parametrize(
    ("logged", "counted", "finish"), [(0, 0, False), (5, 5, False), (6, 5, True), (4, 5, None), (7, 5, None)]
)
def test_the_rule(logged: int, counted: int, finish: bool | None) -> None:
    if finish is None:
        with pytest.raises(AuditError) as caught:
            check_counter(logged, counted)
        assert caught.value.code.name == "audit.rolled_back"
    else:
        assert check_counter(logged, counted) is finish


class AnchorContract:
    """What every anchor must do for a log; a subclass brings the fixtures `anchor` and `signer`, which belong together.

    `another_anchor` is a fresh counter of its own, for the same log.
    """

    def test_it_counts_from_zero_by_one(self, anchor: Anchor, another_anchor: Anchor) -> None:
        assert [anchor.read(), anchor.increment(), anchor.increment(), anchor.read()] == [0, 1, 2, 2]
        assert another_anchor.read() == 0

    def test_every_run_advances_the_counter_and_names_it(
        self, tmp_path: Path, signer: Ed25519Signer, anchor: Anchor
    ) -> None:
        seen = [anchor.read()]
        for _ in range(2):
            seen.append(run(tmp_path / "log", signer, anchor))
            assert anchor.read() == seen[-1]
        assert seen[0] < seen[1] < seen[2]

    def test_a_log_that_was_cut_back_or_exchanged_for_an_older_one_is_refused(
        self, tmp_path: Path, signer: Ed25519Signer, anchor: Anchor
    ) -> None:
        folder = tmp_path / "log"
        run(folder, signer, anchor)
        shutil.copytree(folder, tmp_path / "old")
        run(folder, signer, anchor)
        opened(tmp_path / "old", signer, None).close()
        for other in (tmp_path / "old", tmp_path / "new"):
            with pytest.raises(AuditError) as caught:
                opened(other, signer, anchor)
            assert caught.value.code.name == "audit.rolled_back"
        run(folder, signer, anchor)

    def test_a_log_may_take_up_a_fresh_counter_and_no_other(
        self, tmp_path: Path, signer: Ed25519Signer, anchor: Anchor, another_anchor: Anchor
    ) -> None:
        assert run(tmp_path / "log", signer, None) == 0
        for _ in range(2):
            run(tmp_path / "log", signer, anchor)
        assert anchor.read() > 1
        with pytest.raises(AuditError, match="not the counter of this log"):
            opened(tmp_path / "log", signer, another_anchor)

    def test_a_crash_between_checkpoint_and_increment_is_made_up_for(
        self, tmp_path: Path, signer: Ed25519Signer, anchor: Anchor
    ) -> None:
        folder = tmp_path / "log"
        log = opened(folder, signer, CutShort(anchor))
        log.wait(log.append(started(1)))
        with pytest.raises(AuditError, match="not this log's alone"):
            write_until_denied(log)
        with contextlib.suppress(AuditError):
            log.close()
        before = anchor.read()
        opened(folder, signer, anchor).close()
        last = verify_folder(folder, signer.public).last
        assert last is not None
        assert before < anchor.read() == last.counter


class TestCountersOfTheTests(AnchorContract):
    @pytest.fixture(params=["memory", "file"])
    def anchor(self, request: pytest.FixtureRequest, tmp_path: Path) -> Anchor:
        return MemoryCounter() if request.param == "memory" else FileCounter(tmp_path / "counter")

    @pytest.fixture
    def another_anchor(self) -> Anchor:
        return MemoryCounter()


def test_an_anchor_out_of_reach_denies(tmp_path: Path, signer: Ed25519Signer) -> None:
    log = opened(tmp_path / "log", signer, LostCounter())
    with pytest.raises(AuditError, match=r"test\.counter_gone"):
        write_until_denied(log)
