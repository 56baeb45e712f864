"""The writer: what becomes durable when, who waits for it, and what opening a folder accepts."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ringfence.audit import AuditError, AuditLog, Operator, verify_log
from ringfence.audit.commit import MAX_RECORDS
from ringfence.audit.files import read_lines
from ringfence.audit.records import encode_body, encode_line, line_hash
from ringfence.errors import Code, Kind, RingfenceError
from tests.audit.conftest import Ed25519Signer, FaultyFiles, Opener, started, verify_ed25519


def lines_of(path: Path) -> list[bytes]:
    return list(read_lines(path, 1 << 20))


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_what_was_appended_is_read_back_in_order_now_and_after_opening_again(tmp_path: Path, open_log: Opener) -> None:
    log = open_log(tmp_path / "agent")
    for number in range(5):
        log.wait(log.append(started(number)))
    entries = list(log.records())
    assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.record for entry in entries] == [started(number) for number in range(5)]
    log.close()
    log.close()

    log = open_log(tmp_path / "agent")
    assert list(log.records()) == entries
    assert list(log.records(since_ns=entries[3].time_ns)) == entries[3:]
    log.wait(log.append(started(5)))
    assert [entry.seq for entry in log.records()] == [1, 2, 3, 4, 5, 6]


def test_a_closed_log_holds_for_the_offline_verifier_to_its_last_record(
    tmp_path: Path, open_log: Opener, signer: Ed25519Signer
) -> None:
    folder = tmp_path / "agent"
    for run in range(3):
        with open_log(folder) as log:
            for number in range(run):
                log.append(started(number))
    report = verify_log(
        read_lines(folder / "records.jsonl", 65536),
        read_lines(folder / "checkpoints.jsonl", 65536),
        bytes.fromhex((folder / "signer.pub").read_text()),
        verify_ed25519,
    )
    report.check()
    assert (report.records, report.uncovered) == (3, 0)
    assert report.last is not None
    assert (report.last.origin, report.last.key_id) == ("agent", signer.key_id)


def test_an_opening_without_records_signs_nothing(tmp_path: Path, open_log: Opener) -> None:
    open_log(tmp_path).close()
    assert lines_of(tmp_path / "checkpoints.jsonl") == []


def test_a_renamed_folder_keeps_the_name_its_checkpoints_carry(tmp_path: Path, open_log: Opener) -> None:
    for name in ("agent", "moved"):
        with open_log(tmp_path / name) as log:
            log.append(started(1))
        if name == "agent":
            (tmp_path / "agent").rename(tmp_path / "moved")
    assert all(b'"origin":"agent"' in line for line in lines_of(tmp_path / "moved" / "checkpoints.jsonl"))


def test_everything_is_for_its_owner_alone(tmp_path: Path, open_log: Opener) -> None:
    old = os.umask(0)
    try:
        with open_log(tmp_path / "state" / "audit" / "agent") as log:
            log.append(started(1))
    finally:
        os.umask(old)
    for path in [tmp_path / "state", *(tmp_path / "state").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path, open_log: Opener) -> None:
    log = open_log(tmp_path)
    with pytest.raises(AuditError) as caught:
        open_log(tmp_path)
    assert caught.value.code.name == "audit.locked"
    log.close()
    open_log(tmp_path)


def test_a_log_is_opened_only_by_the_key_that_began_it(tmp_path: Path, open_log: Opener) -> None:
    with open_log(tmp_path) as log:
        log.append(started(1))
    for code in ("audit.wrong_key", "audit.forged_checkpoint"):
        with pytest.raises(AuditError) as caught:
            AuditLog.open(tmp_path, Ed25519Signer(), clock_ns=time.time_ns, verify=verify_ed25519)
        assert caught.value.code.name == code
        (tmp_path / "signer.pub").unlink()


def test_a_broken_chain_is_refused_naming_the_record_and_changes_nothing(tmp_path: Path, open_log: Opener) -> None:
    with open_log(tmp_path) as log:
        for number in range(6):
            log.append(started(number))
    (tmp_path / "checkpoints.jsonl").unlink()
    records = tmp_path / "records.jsonl"
    changed = records.read_bytes().replace(b'"version":"3"', b'"version":"9"')
    records.write_bytes(changed)
    with pytest.raises(AuditError, match="Record 4 does not hold") as caught:
        open_log(tmp_path)
    assert caught.value.code.name == "audit.corrupt"
    assert records.read_bytes() == changed
    records.write_bytes(changed.replace(b'"version":"9"', b'"version":"3"'))
    open_log(tmp_path)


def test_records_removed_under_the_last_checkpoint_are_missed_at_opening(tmp_path: Path, open_log: Opener) -> None:
    with open_log(tmp_path) as log:
        for number in range(6):
            log.append(started(number))
    records = tmp_path / "records.jsonl"
    records.write_bytes(b"".join(lines_of(records)[:4]))
    with pytest.raises(AuditError, match="its end was cut off"):
        open_log(tmp_path)


def test_a_folder_that_cannot_be_used_is_one_clear_error(tmp_path: Path, open_log: Opener) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(AuditError) as caught:
        open_log(tmp_path / "file" / "log")
    assert caught.value.code.name == "audit.unavailable"


def test_nobody_is_told_before_the_sync_returned(tmp_path: Path, open_log: Opener, files: FaultyFiles) -> None:
    log = open_log(tmp_path)
    files.gate.clear()
    ticket = log.append(started(1))
    with pytest.raises(AuditError) as caught:
        log.wait(ticket, timeout_s=0.05)
    assert caught.value.code.name == "audit.timeout"
    assert list(log.records()) == []
    files.gate.set()
    log.wait(ticket)
    assert len(list(log.records())) == 1


def test_what_arrives_during_a_commit_shares_the_next_one(tmp_path: Path, open_log: Opener, files: FaultyFiles) -> None:
    log = open_log(tmp_path)
    files.syncs.clear()
    files.syncing.clear()
    files.gate.clear()
    tickets = [log.append(started(0))]
    assert files.syncing.wait(10)
    tickets += [log.append(started(number)) for number in range(1, 500)]
    files.gate.set()
    for ticket in tickets:
        log.wait(ticket)
    assert len(files.syncs) == 2


def test_many_threads_lose_and_repeat_nothing(tmp_path: Path, open_log: Opener) -> None:
    log = open_log(tmp_path)

    def work(worker: int) -> None:
        for number in range(50):
            log.wait(log.append(started(worker * 1000 + number)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    found = [entry.record for entry in log.records()]
    expected = {started(worker * 1000 + number) for worker in range(8) for number in range(50)}
    assert len(found) == 400
    assert set(found) == expected


async def test_a_thousand_tasks_wait_without_a_thread_each(
    tmp_path: Path, open_log: Opener, files: FaultyFiles
) -> None:
    log = open_log(tmp_path)
    before = threading.active_count()
    files.gate.clear()
    tasks = [asyncio.create_task(log.durable(log.append(started(number)))) for number in range(1000)]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in tasks)
    assert threading.active_count() == before
    tasks[7].cancel()
    files.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results.pop(7), asyncio.CancelledError)
    assert results == [None] * 999
    await log.durable(log.append(started(1)))


async def test_an_await_has_its_deadline(tmp_path: Path, open_log: Opener, files: FaultyFiles) -> None:
    log = open_log(tmp_path)
    files.gate.clear()
    with pytest.raises(AuditError) as caught:
        await log.durable(log.append(started(1)), timeout_s=0.05)
    assert caught.value.code.name == "audit.timeout"


def test_a_loop_that_ended_does_not_disturb_the_others(tmp_path: Path, open_log: Opener, files: FaultyFiles) -> None:
    log = open_log(tmp_path)
    files.gate.clear()
    ticket = log.append(started(1))

    async def give_up() -> None:
        with pytest.raises(AuditError):
            await log.durable(ticket, timeout_s=0.02)

    asyncio.run(give_up())
    files.gate.set()
    log.wait(ticket)
    log.wait(log.append(started(2)))


def test_a_full_queue_slows_callers_and_drops_nothing(tmp_path: Path, open_log: Opener, files: FaultyFiles) -> None:
    log = open_log(tmp_path)
    files.syncing.clear()
    files.gate.clear()
    log.append(started(0))
    assert files.syncing.wait(10)
    record = started(1)
    for _ in range(MAX_RECORDS):
        log.append(record)
    with pytest.raises(AuditError, match="queue was full") as caught:
        log.append(record, timeout_s=0.02)
    assert caught.value.code.name == "audit.unavailable"
    late = threading.Thread(target=lambda: log.wait(log.append(started(2))))
    late.start()
    time.sleep(0.02)
    files.gate.set()
    late.join(5)
    assert not late.is_alive()
    assert sum(1 for _ in log.records()) == MAX_RECORDS + 2


def test_a_bad_record_is_refused_and_leaves_the_log_in_service(tmp_path: Path, open_log: Opener) -> None:
    log = open_log(tmp_path)
    with pytest.raises(AuditError) as caught:
        log.append(Operator(event="started", component="x" * 300))
    assert caught.value.code.name == "audit.bad_record"
    log.wait(log.append(started(1)))


def test_a_closed_log_takes_nothing_more(tmp_path: Path, open_log: Opener) -> None:
    log = open_log(tmp_path)
    log.close()
    with pytest.raises(AuditError) as caught:
        log.append(started(1))
    assert caught.value.code.name == "audit.closed"


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
    log = AuditLog.open(tmp_path, slow, clock_ns=time.time_ns, verify=verify_ed25519, files=FaultyFiles())
    log.wait(log.append(started(0)))
    assert slow.signing.wait(10)
    for number in range(1, 20):
        log.wait(log.append(started(number)))
    assert lines_of(tmp_path / "checkpoints.jsonl") == []
    slow.go.set()
    eventually(lambda: len(lines_of(tmp_path / "checkpoints.jsonl")) == 2)
    log.close()
    first, last = lines_of(tmp_path / "checkpoints.jsonl")
    assert b'"seq":1,' in first
    assert b'"seq":20,' in last


def test_closing_while_a_signature_is_under_way_signs_it_once(tmp_path: Path) -> None:
    slow = SlowSigner()
    log = AuditLog.open(tmp_path, slow, clock_ns=time.time_ns, verify=verify_ed25519, files=FaultyFiles())
    log.wait(log.append(started(0)))
    assert slow.signing.wait(10)
    closing = threading.Thread(target=log.close)
    closing.start()
    time.sleep(0.05)
    slow.go.set()
    closing.join(10)
    assert len(lines_of(tmp_path / "checkpoints.jsonl")) == 1


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
    line = encode_line(1, 5, "0" * 64, encode_body(started(1)))
    (tmp_path / "records.jsonl").write_bytes(line)
    open_log(tmp_path).close()
    (last,) = lines_of(tmp_path / "checkpoints.jsonl")
    assert line_hash(line).encode() in last
    assert signer.key_id.encode() in last
