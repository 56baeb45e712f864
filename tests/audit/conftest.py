"""Fakes that the audit tests share: a signer, a clock, and files that fail on demand."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ringfence.audit import AuditError, AuditLog, Checkpoint, Keys, Operator, OsFiles, Report, Settings, verify_log
from ringfence.audit.checkpoint import Signed, decode_checkpoints
from ringfence.audit.folder import read_layout, read_notes
from ringfence.crypto import COMPOSITE, key_id, signature
from ringfence.errors import Code, Kind, RingfenceError


@dataclass(frozen=True)
class Ed25519Signer:
    """A real signer with a small key; the log does not care which algorithm it is."""

    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    key_id: str = "rf1test"

    @property
    def public(self) -> bytes:
        return self.private.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return self.private.sign(message)


def verify_ed25519(public: bytes, message: bytes, signature: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature as error:
        raise RingfenceError(Code("test.signature", Kind.DENIED), "no") from error


@dataclass(frozen=True)
class CompositeSigner:
    """Signs as Ringfence's processes do."""

    public: bytes
    private: bytes

    @property
    def key_id(self) -> str:
        return key_id(self.public)

    def sign(self, message: bytes) -> bytes:
        return COMPOSITE.sign(self.private, message)


@dataclass(frozen=True)
class SlhDsaSigner(CompositeSigner):
    """The second key."""

    def sign(self, message: bytes) -> bytes:
        return signature("SLH-DSA-SHA2-128f").sign(self.private, message)


@pytest.fixture(scope="session")
def composite() -> CompositeSigner:
    return CompositeSigner(*COMPOSITE.generate())


class FaultyFiles(OsFiles):
    """Real files whose operations fail, or wait, when told; syncs are counted and not passed on, for speed."""

    def __init__(self) -> None:
        self.room: int | None = None
        self.failing: set[str] = set()
        self.syncs: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.syncing = threading.Event()
        self.kinds: dict[int, str] = {}
        self.spared: str = "nothing"

    def open(self, path: Path) -> int:
        if "open" in self.failing and path.name.startswith("records"):
            raise OSError(errno.EMFILE, "Too many open files")
        # As the real one, without making the name durable, for speed.
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self.kinds[descriptor] = path.name.partition("-")[0]
        return descriptor

    def create(self, path: Path, content: bytes) -> None:
        if "create" in self.failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_bytes(content)
        path.chmod(0o600)

    def remove(self, path: Path) -> None:
        if "remove" in self.failing:
            raise OSError(errno.EIO, "Input/output error")
        path.unlink(missing_ok=True)

    def append(self, descriptor: int, data: bytes) -> None:
        if self.kinds.get(descriptor) == self.spared:
            super().append(descriptor, data)
            return
        if self.room is not None and len(data) > self.room:
            super().append(descriptor, data[: self.room])
            raise OSError(errno.ENOSPC, "No space left on device")
        super().append(descriptor, data)

    def fdatasync(self, descriptor: int) -> None:
        if self.kinds.get(descriptor) == "checkpoints":
            if "fdatasync of checkpoints" in self.failing:
                raise OSError(errno.EIO, "Input/output error")
            return
        self.syncing.set()
        assert self.gate.wait(10)
        if "fdatasync" in self.failing:
            raise OSError(errno.EIO, "Input/output error")
        self.syncs.append(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        if "truncate" in self.failing:
            raise OSError(errno.EIO, "Input/output error")
        super().truncate(descriptor, size)


@pytest.fixture(scope="session")
def signer() -> Ed25519Signer:
    return Ed25519Signer()


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


class Opener(Protocol):
    def __call__(self, folder: Path, settings: Settings | None = None) -> AuditLog: ...


QUICK = Settings(checkpoint_every_s=0.0)
"""Signs as often as it can, so that tests wait for no cadence."""


@pytest.fixture
def open_log(signer: Ed25519Signer, files: FaultyFiles) -> Iterator[Opener]:
    """Opens logs with the shared signer and the faulty files, at times 1000, 1001, ... ns; closes what a test left."""
    opened: list[AuditLog] = []
    clock = itertools.count(1000)

    def opener(folder: Path, settings: Settings | None = None) -> AuditLog:
        log = AuditLog.open(
            folder,
            signer,
            clock_ns=lambda: next(clock),
            verify=verify_ed25519,
            files=files,
            settings=settings or QUICK,
        )
        opened.append(log)
        return log

    yield opener
    files.gate.set()
    files.failing.clear()
    files.room = None
    for log in opened:
        with contextlib.suppress(AuditError):
            log.close()


def started(number: int) -> Operator:
    """A small record that carries a number."""
    return Operator(event="started", component="agent", version=str(number))


def write_until_denied(log: AuditLog) -> None:
    """Goes on until the log raises."""
    while True:
        log.wait(log.append(started(0)))


def records_file(folder: Path, first: int = 1) -> Path:
    return folder / f"records-{first:020d}.jsonl"


def checkpoints_file(folder: Path, first: int = 1) -> Path:
    return folder / f"checkpoints-{first:020d}.note"


def points_of(folder: Path) -> list[Checkpoint]:
    """The checkpoints over the records of the first segment."""
    path = checkpoints_file(folder)
    return [signed.checkpoint for signed in decode_checkpoints(read_notes(path))] if path.exists() else []


def verify_folder(folder: Path, public: bytes, expect: Signed | None = None) -> Report:
    """Checks a whole folder as `ringfence audit verify` does."""
    layout = read_layout(folder)
    return verify_log(layout.pieces(), layout.notes(layout.note_sizes()), Keys(public, verify_ed25519), expect=expect)
