"""A daemon's log as its `[audit]` table says: segments, retention, both signatures, and nothing that waits for them."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringfence.audit import AuditError, AuditLog, Operator, Settings
from ringfence.audit.checkpoint import decode_checkpoints
from ringfence.audit.folder import read_layout
from ringfence.cli import main
from ringfence.config.audit_section import AuditSettings, SecretFile
from ringfence.crypto import COMPOSITE
from ringfence.errors import RingfenceError
from ringfence.keystore import KeyStore
from ringfence.keystore.daemon_log import open_daemon_log
from ringfence.keystore.signing import SigningProcess, load_second_key
from ringfence.trust import KeyPair, generate

HOUR_NS = 3600 * 1_000_000_000


@pytest.fixture
def signer(tmp_path: Path) -> KeyPair:
    return generate(tmp_path, "agent")


@pytest.fixture
def second(tmp_path: Path) -> SecretFile:
    """A second key, made as an operator makes it."""
    store = tmp_path / "keys"
    store.mkdir(mode=0o700)
    assert main(["keys", "generate", "audit", "--store", str(store), "--algorithm", "SLH-DSA-SHA2-128f"]) == 0
    assert main(["keys", "export", "audit", "--store", str(store), "--out", str(tmp_path / "second.pem")]) == 0
    return SecretFile(store / "audit.1.key")


def verified(tmp_path: Path, capsys: pytest.CaptureFixture[str], *, second: bool = True) -> dict[str, Any]:
    """What `ringfence audit verify` says of the log, with the keys that its owner published."""
    capsys.readouterr()
    words = ["--second-key", str(tmp_path / "second.pem")] if second else []
    folder = str(tmp_path / "state" / "audit" / "agent")
    status = main(["audit", "verify", folder, "--key", str(tmp_path / "agent.pub"), *words, "--json"])
    (log,) = json.loads(capsys.readouterr().out)["logs"]
    assert status == (0 if log["ok"] else 1)
    found: dict[str, Any] = log
    return found


def covered(folder: Path) -> int:
    """The last record under a checkpoint."""
    layout = read_layout(folder)
    return max((one.checkpoint.size for one in decode_checkpoints(layout.notes(layout.note_sizes()))), default=0)


def signing_children() -> set[int]:
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == os.getpid() and b"signing_child" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
        except (OSError, IndexError):
            continue
    return found


def eventually(holds: Callable[[], object]) -> None:
    give_up = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def record(number: int) -> Operator:
    return Operator(event="trust", component="agent", version=str(number))


def test_a_log_is_begun_and_ended_and_signed_by_both_keys(
    tmp_path: Path, signer: KeyPair, second: SecretFile, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    settings = AuditSettings(second_key=second)
    for _ in range(2):
        with open_daemon_log(
            tmp_path / "state", "agent", signer, settings, clock_ns=time.time_ns, further=[record(1)]
        ) as log:
            log.append(record(2))
            assert len(signing_children()) == 1
        assert signing_children() == set()
        assert set(os.listdir("/proc/self/fd")) == before
    report = verified(tmp_path, capsys)
    assert report["ok"] is True
    assert report["records"] == 8
    assert report["uncovered"] == 0
    assert report["checkpoints_second_key"] >= 2
    assert main(["audit", "show", str(tmp_path / "state" / "audit" / "agent"), "--json"]) == 0
    shown = [line["data"]["event"] for line in json.loads(capsys.readouterr().out)["records"]]
    assert shown == ["started", "trust", "trust", "stopped"] * 2


def test_a_second_key_that_never_signed_does_not_verify(
    tmp_path: Path, signer: KeyPair, second: SecretFile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert second.path is not None
    with open_daemon_log(tmp_path / "state", "agent", signer, AuditSettings(), clock_ns=time.time_ns):
        assert signing_children() == set()
    assert verified(tmp_path, capsys, second=False)["ok"] is True
    assert verified(tmp_path, capsys)["error"]["code"] == "audit.unsigned"
    # Begun later it signs from then on.
    with open_daemon_log(tmp_path / "state", "agent", signer, AuditSettings(second_key=second), clock_ns=time.time_ns):
        pass
    assert verified(tmp_path, capsys)["ok"] is True


def test_segments_end_and_old_ones_go_while_young_ones_stay(
    tmp_path: Path, signer: KeyPair, second: SecretFile, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = AuditSettings(segment_bytes=65_536, keep_bytes=1, second_key=second)
    now = 1_800_000_000_000_000_000
    clock = itertools.count(now - 2 * HOUR_NS, 1000)

    def fill() -> None:
        with open_daemon_log(tmp_path / "state", "agent", signer, settings, clock_ns=lambda: next(clock)) as log:
            for number in range(1200):
                ticket = log.append(record(number))
                if number % 100 == 99:
                    log.wait(ticket)

    fill()
    folder = tmp_path / "state" / "audit" / "agent"
    layout = read_layout(folder)
    assert len(layout.records) > 2
    assert layout.compacted == ()
    clock = itertools.count(now, 1000)
    fill()
    after = read_layout(folder)
    assert after.compacted == layout.records[:-1]
    assert after.records[0] == layout.records[-1]
    report = verified(tmp_path, capsys)
    assert report["ok"] is True
    assert report["first_record"] == layout.records[-1]


def test_what_is_older_than_it_may_be_goes(tmp_path: Path, signer: KeyPair, capsys: pytest.CaptureFixture[str]) -> None:
    settings = AuditSettings(segment_age_s=60, keep_age_s=86_400)
    now = 1_800_000_000_000_000_000
    for ago in (30, 28, 2, 0):
        times = itertools.count(now - ago * HOUR_NS, 90 * 1_000_000_000)
        with open_daemon_log(
            tmp_path / "state",
            "agent",
            signer,
            settings,
            clock_ns=lambda times=times: next(times),  # type: ignore[misc]
        ) as log:
            for number in range(4):
                log.wait(log.append(record(number)))
    kept = []
    with open_daemon_log(tmp_path / "state", "agent", signer, settings, clock_ns=lambda: now) as log:
        kept = [entry.time_ns for entry in log.records()]
    assert min(kept) > now - 29 * HOUR_NS
    assert any(time_ns < now for time_ns in kept)
    assert verified(tmp_path, capsys, second=False)["first_record"] > 5


@pytest.fixture
def slow(tmp_path: Path, second: SecretFile) -> SigningProcess:
    """The second signer."""
    material = load_second_key(AuditSettings(second_key=second))
    assert material is not None
    assert not (tmp_path / "state").exists()
    return SigningProcess(material)


async def test_records_are_durable_and_the_loop_goes_on_while_the_second_key_signs(
    tmp_path: Path, signer: KeyPair, slow: SigningProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "state" / "audit" / "agent"
    every = Settings(checkpoint_every_s=0.0, second_every_s=0.0)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    with slow:
        (child,) = signing_children()
        log = AuditLog.open(folder, signer, clock_ns=time.time_ns, verify=COMPOSITE.verify, second=slow, settings=every)
        os.kill(child, signal.SIGSTOP)
        ticking = asyncio.create_task(tick())
        await log.durable(log.append(record(0)))
        # Some at a time: a slow disk has to take them before the signer is given up.
        for start in range(1, 200, 10):
            tickets = [log.append(record(number)) for number in range(start, min(start + 10, 200))]
            await asyncio.gather(*map(log.durable, tickets))
        assert covered(folder) == 0
        assert ticks > 200
        ticking.cancel()
        os.kill(child, signal.SIGCONT)
        await asyncio.to_thread(log.close)
    assert covered(folder) == 200
    report = verified(tmp_path, capsys)
    assert report["ok"] is True
    assert report["checkpoints_second_key"] == report["checkpoints"] == 2


def test_a_real_signature_lets_other_threads_run(slow: SigningProcess) -> None:
    # In this process none of them would get a turn while SLH-DSA signs: it keeps the interpreter's lock.
    turns = 0
    done = threading.Event()

    def count() -> None:
        nonlocal turns
        while not done.is_set():
            time.sleep(0)
            turns += 1

    with slow:
        thread = threading.Thread(target=count)
        thread.start()
        before = turns
        for number in range(3):
            slow.sign(b"%d" % number)
        gained = turns - before
        done.set()
        thread.join()
    assert gained > 30


def test_a_signer_killed_in_the_middle_takes_the_log_out_of_service_and_loses_nothing(
    tmp_path: Path, signer: KeyPair, second: SecretFile, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = AuditSettings(checkpoint_every_s=0.01, second_key=second, second_every_s=1)
    folder = tmp_path / "state" / "audit" / "agent"
    acknowledged = 0

    def daemon() -> None:
        nonlocal acknowledged
        with open_daemon_log(tmp_path / "state", "agent", signer, settings, clock_ns=time.time_ns) as log:
            eventually(lambda: covered(folder) == 1)
            (child,) = signing_children()
            os.kill(child, signal.SIGSTOP)
            # By then the second key's time has come again, and its signature is waited for.
            timer = threading.Timer(1.2, os.kill, (child, signal.SIGKILL))
            timer.start()
            acknowledged, denied = write_until_denied(log)
            timer.join()
            assert denied.code.name == "audit.unavailable"
            assert "keystore.signer_lost" in denied.message

    with pytest.raises(AuditError, match=r"without a checkpoint.*keystore\.signer_lost"):
        daemon()
    assert acknowledged > 0
    assert signing_children() == set()
    with open_daemon_log(tmp_path / "state", "agent", signer, settings, clock_ns=time.time_ns) as log:
        kept = [entry.record for entry in log.records()]
    assert kept[1 : acknowledged + 1] == [record(number) for number in range(acknowledged)]
    assert verified(tmp_path, capsys)["ok"] is True


def write_until_denied(log: AuditLog) -> tuple[int, AuditError]:
    """How many records were acknowledged before the log denied, and how it did."""
    for number in range(1000):
        try:
            log.wait(log.append(record(number)))
        except AuditError as error:
            return number, error
        time.sleep(0.01)
    raise AssertionError("it never denied")


def test_what_cannot_be_opened_leaves_no_process_and_no_log(
    tmp_path: Path, signer: KeyPair, second: SecretFile, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(settings: AuditSettings) -> str:
        with (
            pytest.raises(RingfenceError) as caught,
            open_daemon_log(tmp_path / "state", "agent", signer, settings, clock_ns=time.time_ns),
        ):
            raise AssertionError("it was opened")
        assert signing_children() == set()
        return caught.value.code.name

    good = AuditSettings(second_key=second)
    for settings, code in (
        (AuditSettings(second_key=SecretFile(tmp_path / "nowhere")), "trust.missing_file"),
        (AuditSettings(second_key=SecretFile(tmp_path / "agent.key")), "keystore.malformed"),
        (AuditSettings(second_key=SecretFile(tmp_path / "agent.pub")), "keystore.malformed"),
    ):
        assert refused(settings) == code
    os.chmod(second, 0o644)
    assert refused(good) == "trust.unsafe_file"
    os.chmod(second, 0o600)
    assert not (tmp_path / "state").exists()

    with open_daemon_log(tmp_path / "state", "agent", signer, AuditSettings(), clock_ns=time.time_ns):
        assert refused(good) == "audit.locked"
    other = KeyStore(tmp_path / "keys").generate("other", "SLH-DSA-SHA2-128f", now=0)
    with open_daemon_log(tmp_path / "state", "agent", signer, good, clock_ns=time.time_ns):
        pass
    assert refused(AuditSettings(second_key=SecretFile(tmp_path / "keys" / other.file_name))) == "audit.wrong_key"
    assert verified(tmp_path, capsys)["ok"] is True
