"""The writer: what becomes durable when, who waits for it, and what opening a folder accepts."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ringfence.audit import AuditError, AuditLog, Operator
from ringfence.audit.commit import MAX_RECORDS
from tests.audit.conftest import (
    Ed25519Signer,
    FaultyFiles,
    Opener,
    checkpoints_file,
    points_of,
    records_file,
    started,
    verify_ed25519,
    verify_folder,
)


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
    report = verify_folder(folder, bytes.fromhex((folder / "signer.pub").read_text()))
    report.check()
    assert (report.records, report.uncovered, report.origin) == (3, 0, f"ringfence.audit/agent/{signer.key_id}")


def test_an_opening_without_records_signs_nothing(tmp_path: Path, open_log: Opener) -> None:
    open_log(tmp_path).close()
    assert points_of(tmp_path) == []


def test_a_renamed_folder_keeps_the_name_its_checkpoints_carry(tmp_path: Path, open_log: Opener) -> None:
    for name in ("agent", "moved"):
        with open_log(tmp_path / name) as log:
            log.append(started(1))
        if name == "agent":
            (tmp_path / "agent").rename(tmp_path / "moved")
    points = points_of(tmp_path / "moved")
    assert len(points) == 2
    assert {point.origin for point in points} == {"ringfence.audit/agent/rf1test"}


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
        # The files say so even where the pinned key was taken away.
        assert caught.value.code.name == code
        (tmp_path / "signer.pub").unlink()


def test_a_broken_chain_is_refused_naming_the_record_and_changes_nothing(tmp_path: Path, open_log: Opener) -> None:
    with open_log(tmp_path) as log:
        for number in range(6):
            log.wait(log.append(started(number)))
    checkpoints_file(tmp_path).unlink()
    records = records_file(tmp_path)
    whole = records.read_bytes()
    for changed in (
        whole.replace(b'"version":"3"', b'"version":"9"'),
        whole.replace(b'"version":"3"', b'"version":"\0"'),
    ):
        records.write_bytes(changed)
        with pytest.raises(AuditError, match="Record 4 does not hold") as caught:
            open_log(tmp_path)
        assert caught.value.code.name == "audit.corrupt"
        assert records.read_bytes() == changed
    records.write_bytes(whole)
    open_log(tmp_path)


def test_records_removed_under_the_last_checkpoint_are_missed_at_opening(tmp_path: Path, open_log: Opener) -> None:
    with open_log(tmp_path) as log:
        for number in range(6):
            log.append(started(number))
    records = records_file(tmp_path)
    whole = records.read_bytes()
    for changed in (b"".join(whole.splitlines(keepends=True)[:5]), whole[:-5]):
        records.write_bytes(changed)
        with pytest.raises(AuditError, match="its end was cut off"):
            open_log(tmp_path)
    records.unlink()
    with pytest.raises(AuditError, match="its checkpoints are there, its records are not"):
        open_log(tmp_path)


def test_a_file_that_only_looks_like_one_of_a_log_is_refused(tmp_path: Path, open_log: Opener) -> None:
    with open_log(tmp_path) as log:
        log.append(started(1))
    for name in ("records.jsonl", "records-1.jsonl", "checkpoints-00000000000000000001.jsonl"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(AuditError, match="no file of this log") as caught:
            open_log(tmp_path)
        assert caught.value.code.name == "audit.wrong_layout"
        (tmp_path / name).unlink()
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


def test_a_record_that_cannot_be_encoded_is_refused_at_once(tmp_path: Path, open_log: Opener) -> None:
    log = open_log(tmp_path)
    for record in (Operator(event="started", component="\ud800"), "no record"):
        with pytest.raises(AuditError) as caught:
            log.append(record)  # type: ignore[arg-type]
        assert caught.value.code.name == "audit.bad_record"
    log.wait(log.append(started(1)))


async def test_a_wrongly_filled_record_is_refused_alone_and_leaves_a_trace(
    tmp_path: Path, open_log: Opener, files: FaultyFiles
) -> None:
    log = open_log(tmp_path)
    files.gate.clear()
    files.syncing.clear()
    log.append(started(0))
    assert files.syncing.wait(10)
    good, bad, other = (
        log.append(record) for record in (started(1), Operator(event="started", component="x" * 300), started(2))
    )
    files.gate.set()
    log.wait(good)
    await log.durable(other)
    with pytest.raises(AuditError) as caught:
        log.wait(bad)
    assert caught.value.code.name == "audit.bad_record"
    with pytest.raises(AuditError):
        await log.durable(bad)
    trace = Operator(event="unreadable", component="operator")
    assert [entry.record for entry in log.records()] == [started(0), started(1), trace, started(2)]


def test_a_closed_log_takes_nothing_more(tmp_path: Path, open_log: Opener) -> None:
    log = open_log(tmp_path)
    log.close()
    with pytest.raises(AuditError) as caught:
        log.append(started(1))
    assert caught.value.code.name == "audit.closed"


def test_records_are_read_only_along_their_chain(tmp_path: Path, open_log: Opener) -> None:
    log = open_log(tmp_path)
    for number in range(4):
        log.wait(log.append(started(number)))
    records = records_file(tmp_path)
    whole = records.read_bytes()
    for old, new in ((b'"version":"1"', b'"version":"8"'), (b'"version":"3"', b'"version":"8"')):
        records.write_bytes(whole.replace(old, new))
        with pytest.raises(AuditError) as caught:
            list(log.records())
        assert caught.value.code.name == "audit.corrupt"
    records.write_bytes(whole)
    assert len(list(log.records())) == 4
