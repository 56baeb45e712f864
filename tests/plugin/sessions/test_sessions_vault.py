"""Snapshots: a restart keeps the sessions, and an old, foreign or altered snapshot revives none."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ringfence import audit
from ringfence.audit import AuditError, AuditLog, Record
from ringfence.audit.errors import UNAVAILABLE
from ringfence.crypto import COMPOSITE
from ringfence.keystore import KeyStoreError
from ringfence.keystore.errors import UNSEALABLE
from ringfence.plugin.errors import GateError
from ringfence.plugin.sessions.port import Ended, Session
from ringfence.plugin.sessions.revocations import History, Revocation, closed_record
from ringfence.plugin.sessions.snapshot import Header, open_snapshot, seal_snapshot
from ringfence.plugin.sessions.store import MemorySessions
from ringfence.plugin.sessions.vault import Vault, snapshot_key
from ringfence.trust.errors import TrustError
from ringfence.trust.keys import KeyPair

NOW = 1_800_000_000
KEY = bytes(range(32))


def session(name: str, **fields: Any) -> Session:
    made: dict[str, Any] = {
        "name": name,
        "principal": "p",
        "groups": ("g",),
        "host": "h",
        "status": "affirming",
        "attestation_digest": "ab" * 32,
        "bundle_digest": "cd" * 32,
        "opened_at": NOW,
        "expires_at": NOW + 100,
        "idle_s": 50,
        "key": b"a session's key, of 32 bytes ...",
        "factors": (("mtls", 0), ("webauthn", NOW + 30)),
        "thumbprint": "ef" * 32,
    }
    return Session(**made | fields)


class Gateway:
    """A gateway's sessions and log over restarts; the folder is its disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vault = Vault(folder, gateway="rf1gateway", key=KEY)
        self.store = MemorySessions(2000)
        self.records: list[Record] = []

    async def journal(self, record: Record) -> None:
        self.records.append(record)

    def history(self) -> History:
        history = History()
        for record in self.records:
            history.see(record)
        return history

    def save(self) -> None:
        generation = self.history().latest + 1
        asyncio.run(
            self.vault.save(self.store, generation=generation, journal=self.journal, random=secrets.token_bytes)
        )

    def restart(self, now: int = NOW) -> int:
        self.store = MemorySessions(2000)
        return self.vault.restore(self.store, self.history(), now=now)

    def end(self, name: str) -> None:
        ended = self.store.end(name, Ended.REVOKED)
        assert ended is not None
        self.records.append(closed_record(ended, Ended.REVOKED))


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    made = Gateway(tmp_path)
    for name in ("a", "b", "c" * 32):
        made.store.add(session(name), now=NOW)
    return made


def test_a_restart_keeps_the_sessions(gateway: Gateway) -> None:
    gateway.store.touch("b", now=NOW + 40)
    gateway.save()
    assert gateway.restart(NOW + 45) == 3
    assert gateway.store.find("c" * 32, now=NOW + 45) == session("c" * 32)
    # The time that they were idle goes on.
    with pytest.raises(GateError, match=r"session\.idle"):
        gateway.store.find("a", now=NOW + 50)
    assert gateway.store.find("b", now=NOW + 89) == session("b")


def test_what_ended_since_stays_ended(gateway: Gateway) -> None:
    gateway.save()
    gateway.end("a")
    assert gateway.restart() == 2
    gateway.records.append(Revocation("principal", "p", NOW).record())
    assert gateway.restart() == 0


def test_expired_and_idle_sessions_do_not_come_back(gateway: Gateway) -> None:
    gateway.store.touch("b", now=NOW + 20)
    gateway.save()
    assert gateway.restart(NOW + 50) == 1


def test_an_old_snapshot_revives_nothing(gateway: Gateway, tmp_path: Path) -> None:
    gateway.save()
    old = tmp_path / "sessions-1.sealed"
    shutil.copy(old, tmp_path / "copy")
    gateway.end("a")
    gateway.save()
    assert not old.exists()
    shutil.copy(tmp_path / "copy", old)
    assert gateway.restart() == 2
    # Not even in the place of the new one.
    shutil.copy(tmp_path / "copy", tmp_path / "sessions-2.sealed")
    with pytest.raises(GateError, match=r"session\.snapshot_refused"):
        gateway.restart()
    assert len(gateway.store) == 0


def test_a_crash_between_two_snapshots_leaves_the_one_before(gateway: Gateway) -> None:
    gateway.save()

    async def crash(record: Record) -> None:
        if isinstance(record, audit.Operator) and record.digest:
            raise AuditError(UNAVAILABLE, "The disk is gone.")
        gateway.records.append(record)

    with pytest.raises(AuditError):
        asyncio.run(gateway.vault.save(gateway.store, generation=2, journal=crash, random=secrets.token_bytes))
    assert gateway.restart() == 3


def test_a_failing_disk_is_said(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "sessions-1.sealed.new").mkdir()
    with pytest.raises(GateError, match=r"session\.snapshot_failed"):
        gateway.save()


def test_without_a_snapshot_nothing_is_restored(gateway: Gateway, tmp_path: Path) -> None:
    assert gateway.restart() == 0
    gateway.save()
    (tmp_path / "sessions-1.sealed").unlink()
    with pytest.raises(GateError, match=r"session\.snapshot_refused"):
        gateway.restart()


def test_no_key_of_a_session_is_in_the_file(gateway: Gateway, tmp_path: Path) -> None:
    gateway.save()
    path = tmp_path / "sessions-1.sealed"
    assert b"a session's key" not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600


def sealed(store: MemorySessions) -> bytes:
    return b"".join(seal_snapshot(store, Header(1, "g", 7, bytes(32)), KEY))


def opened(data: bytes, **other: Any) -> list[tuple[Session, int]]:
    named: dict[str, Any] = {"gateway": "g", "generation": 7, "key": KEY} | other
    return list(open_snapshot([data], **named))


def test_a_large_snapshot_comes_back_whole() -> None:
    store = MemorySessions(2000)
    for number in range(2000):
        store.add(session(f"{number:032x}"), now=NOW)
    pieces = list(seal_snapshot(store, Header(1, "g", 7, bytes(32)), KEY))
    # No step packs more than its share.
    assert max(map(len, pieces)) < 3 * 65536
    assert [made.name for made, _ in opened(b"".join(pieces))] == [f"{number:032x}" for number in range(2000)]
    assert opened(sealed(MemorySessions(1))) == []


@pytest.mark.parametrize("other", [{"gateway": "h"}, {"generation": 6}, {"key": bytes(32)}])
def test_a_snapshot_opens_for_its_gateway_generation_and_key_alone(gateway: Gateway, other: dict[str, Any]) -> None:
    data = sealed(gateway.store)
    assert len(opened(data)) == 3
    with pytest.raises(GateError, match=r"session\.snapshot_refused"):
        opened(data, **other)


def test_a_snapshot_whose_header_was_rewritten_is_refused(gateway: Gateway) -> None:
    old = msgspec.msgpack.encode(Header(1, "g", 6, bytes(32)))
    new = msgspec.msgpack.encode(Header(1, "g", 7, bytes(32)))
    data = b"".join(seal_snapshot(gateway.store, Header(1, "g", 6, bytes(32)), KEY))
    with pytest.raises(GateError, match=r"session\.snapshot_refused"):
        opened(data.replace(old, new))


def test_another_snapshot_of_the_same_generation_is_refused(gateway: Gateway, tmp_path: Path) -> None:
    gateway.save()
    other = b"".join(seal_snapshot(gateway.store, Header(1, "rf1gateway", 1, bytes(32)), KEY))
    (tmp_path / "sessions-1.sealed").write_bytes(other)
    with pytest.raises(GateError, match=r"session\.snapshot_refused"):
        gateway.restart()


def test_an_altered_or_cut_snapshot_is_refused(gateway: Gateway) -> None:
    data = sealed(gateway.store)
    for at in range(len(data)):
        for bad in (data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]):
            with pytest.raises(GateError, match=r"session\.snapshot_refused"):
                opened(bad)
    with pytest.raises(GateError, match=r"session\.snapshot_refused"):
        opened(data + b"\0")


class FakeSealer:
    """Seals to nothing but a byte."""

    name = "fake"

    def seal(self, secret: bytes, associated: bytes) -> bytes:
        return b"!" + associated + secret

    def unseal(self, sealed: bytes, associated: bytes) -> bytes:
        if not sealed.startswith(b"!" + associated):
            raise KeyStoreError(UNSEALABLE, "It does not open.")
        return sealed[1 + len(associated) :]


def test_the_key_is_made_once_and_kept_sealed(tmp_path: Path) -> None:
    for path, sealer in ((tmp_path / "clear.key", None), (tmp_path / "sealed.key", FakeSealer())):
        key = snapshot_key(path, sealer=sealer, random=secrets.token_bytes)
        assert snapshot_key(path, sealer=sealer, random=secrets.token_bytes) == key
        assert len(key) == 32
    with pytest.raises(KeyStoreError):
        snapshot_key(tmp_path / "clear.key", sealer=FakeSealer(), random=secrets.token_bytes)
    with pytest.raises(GateError, match=r"session\.snapshot_refused"):
        snapshot_key(tmp_path / "sealed.key", sealer=None, random=secrets.token_bytes)
    (tmp_path / "clear.key").chmod(0o640)
    with pytest.raises(TrustError, match=r"trust\.unsafe_file"):
        snapshot_key(tmp_path / "clear.key", sealer=None, random=secrets.token_bytes)


def test_the_real_log_is_the_journal(tmp_path: Path) -> None:
    pair = KeyPair(*COMPOSITE.generate())
    vault = Vault(tmp_path, gateway=pair.key_id, key=KEY)
    store = MemorySessions(10)
    for name in ("a", "b"):
        store.add(session(name), now=NOW)

    async def gateway(log: AuditLog) -> None:
        async def journal(record: Record) -> None:
            await log.durable(log.append(record))

        await vault.save(store, generation=1, journal=journal, random=secrets.token_bytes)
        await journal(Revocation("session", "a", NOW).record())

    with AuditLog.open(tmp_path / "log", pair, clock_ns=time.time_ns, verify=COMPOSITE.verify) as log:
        asyncio.run(gateway(log))
    with AuditLog.open(tmp_path / "log", pair, clock_ns=time.time_ns, verify=COMPOSITE.verify) as log:
        history = History()
        for entry in log.records():
            history.see(entry.record)
    restored = MemorySessions(10)
    assert vault.restore(restored, history, now=NOW) == 1
    assert restored.find("b", now=NOW) == session("b")
