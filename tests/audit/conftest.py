"""Fakes that the audit tests share: a signer, a clock, and files that fail on demand."""

from __future__ import annotations

import errno
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ringfence.audit import AuditLog, Operator, OsFiles
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


class FaultyFiles(OsFiles):
    """Real files whose operations fail, or wait, when told; syncs are counted and not passed on, for speed."""

    def __init__(self) -> None:
        self.room: int | None = None
        self.failing: set[str] = set()
        self.syncs: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.syncing = threading.Event()
        self.descriptors: dict[str, int] = {}
        self.spared: str = ""

    def open(self, path: Path) -> int:
        descriptor = super().open(path)
        self.descriptors[path.name] = descriptor
        return descriptor

    def append(self, descriptor: int, data: bytes) -> None:
        if descriptor == self.descriptors.get(self.spared):
            super().append(descriptor, data)
            return
        if self.room is not None and len(data) > self.room:
            super().append(descriptor, data[: self.room])
            raise OSError(errno.ENOSPC, "No space left on device")
        super().append(descriptor, data)

    def fdatasync(self, descriptor: int) -> None:
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


Opener = Callable[[Path], AuditLog]


@pytest.fixture
def open_log(signer: Ed25519Signer, files: FaultyFiles) -> Iterator[Opener]:
    """Opens logs with the shared signer and the faulty files, at times 1000, 1001, ... ns; closes what a test left."""
    opened: list[AuditLog] = []
    clock = itertools.count(1000)

    def opener(folder: Path) -> AuditLog:
        log = AuditLog.open(folder, signer, clock_ns=lambda: next(clock), verify=verify_ed25519, files=files)
        opened.append(log)
        return log

    yield opener
    files.gate.set()
    files.failing.clear()
    files.room = None
    for log in opened:
        log.close()


def started(number: int) -> Operator:
    """A small record that carries a number."""
    return Operator(event="started", component="agent", version=str(number))
