"""Checkpoints: who signs what when, and that nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ringfence.audit import AuditError, AuditLog, Keys, Settings
from ringfence.audit.checkpoint import decode_checkpoints
from ringfence.audit.folder import read_notes
from ringfence.errors import Code, Kind, RingfenceError
from tests.audit.conftest import (
    QUICK,
    Ed25519Signer,
    FaultyFiles,
    Opener,
    checkpoints_file,
    points_of,
    started,
    verify_ed25519,
)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@dataclass(frozen=True)
class SlowSigner(Ed25519Signer):
    """Signs only when told."""

    signing: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    def sign(self, message: bytes) -> bytes:
        self.signing.set()
        assert self.go.wait(10)
        return super().sign(message)


def test_no_caller_waits_for_a_signature_and_one_covers_all_that_came_meanwhile(tmp_path: Path) -> None:
    slow = SlowSigner()
    log = AuditLog.open(
        tmp_path, slow, clock_ns=time.time_ns, verify=verify_ed25519, files=FaultyFiles(), settings=QUICK
    )
    log.wait(log.append(started(0)))
    assert slow.signing.wait(10)
    for number in range(1, 20):
        log.wait(log.append(started(number)))
    assert points_of(tmp_path) == []
    slow.go.set()
    eventually(lambda: len(points_of(tmp_path)) == 2)
    log.close()
    assert [point.size for point in points_of(tmp_path)] == [1, 20]


def test_checkpoints_keep_to_their_cadence_and_the_last_record_is_covered(tmp_path: Path, open_log: Opener) -> None:
    log = open_log(tmp_path, Settings(checkpoint_every_s=0.3))
    begun = time.monotonic()
    for number in range(200):
        log.wait(log.append(started(number)))
    eventually(lambda: 200 in [point.size for point in points_of(tmp_path)])
    assert 2 <= len(points_of(tmp_path)) <= 2 + (time.monotonic() - begun) / 0.3
    log.wait(log.append(started(200)))
    log.close()
    assert points_of(tmp_path)[-1].size == 201


def test_closing_while_a_signature_is_under_way_signs_it_once(tmp_path: Path) -> None:
    slow = SlowSigner()
    log = AuditLog.open(
        tmp_path, slow, clock_ns=time.time_ns, verify=verify_ed25519, files=FaultyFiles(), settings=QUICK
    )
    log.wait(log.append(started(0)))
    assert slow.signing.wait(10)
    closing = threading.Thread(target=log.close)
    closing.start()
    time.sleep(0.05)
    slow.go.set()
    closing.join(10)
    assert len(points_of(tmp_path)) == 1


class LostKey(Ed25519Signer):
    """A signer whose key went away."""

    def sign(self, message: bytes) -> bytes:
        raise RingfenceError(Code("test.key_gone", Kind.UNAVAILABLE), f"no key for {len(message)} bytes")


def test_a_log_that_cannot_be_signed_denies(tmp_path: Path) -> None:
    log = AuditLog.open(tmp_path, LostKey(), clock_ns=time.time_ns, verify=verify_ed25519, files=FaultyFiles())
    log.wait(log.append(started(0)))

    def denied() -> bool:
        try:
            log.append(started(1))
        except AuditError as error:
            return "test.key_gone" in error.message
        return False

    eventually(denied)
    with pytest.raises(AuditError, match="without a checkpoint"):
        log.close()


def test_records_left_unsigned_by_a_crash_are_signed_at_the_next_opening(
    tmp_path: Path, open_log: Opener, signer: Ed25519Signer
) -> None:
    with open_log(tmp_path) as log:
        log.append(started(1))
    (signed,) = points_of(tmp_path)
    checkpoints_file(tmp_path).unlink()
    open_log(tmp_path).close()
    (again,) = points_of(tmp_path)
    assert (again.size, again.root, again.chain) == (1, signed.root, signed.chain)
    assert signer.key_id in again.origin


@dataclass(frozen=True)
class CountingSigner(Ed25519Signer):
    """Counts what it signs."""

    signed: list[bytes] = field(default_factory=list)

    def sign(self, message: bytes) -> bytes:
        self.signed.append(message)
        return super().sign(message)


def test_the_second_key_signs_on_its_own_slower_cadence_and_the_last_checkpoint(tmp_path: Path) -> None:
    first, second = CountingSigner(), CountingSigner()
    log = AuditLog.open(
        tmp_path,
        first,
        clock_ns=time.time_ns,
        verify=verify_ed25519,
        files=FaultyFiles(),
        second=second,
        settings=Settings(checkpoint_every_s=0.0, second_every_s=3600),
    )
    for number in range(5):
        log.wait(log.append(started(number)))
        eventually(lambda: number + 1 in [point.size for point in points_of(tmp_path)])  # noqa: B023
    log.wait(log.append(started(5)))
    log.close()
    assert len(second.signed) in (1, 2)
    assert len(first.signed) > 4
    keys = Keys(first.public, verify_ed25519, second.public, verify_ed25519)
    found = [signed.check(keys) for signed in decode_checkpoints(read_notes(checkpoints_file(tmp_path)))]
    assert found[0] is True
    assert found.count(True) == len(second.signed)
    assert (tmp_path / "second.pub").read_text() == second.public.hex() + "\n"
    with pytest.raises(AuditError) as caught:
        AuditLog.open(
            tmp_path,
            first,
            clock_ns=time.time_ns,
            verify=verify_ed25519,
            files=FaultyFiles(),
            second=Ed25519Signer(),
        )
    assert caught.value.code.name == "audit.wrong_key"
