"""Files on a disk that loses its power: what was not synced may be there, gone, torn, or there without what was before.

`PowerDisk` works on real files, and remembers of each what a sync has made durable and what was written since. `cut`
writes the files as they may be found after the power came back: of every unsynced write any subset of its 512-byte
sectors is there, one of them perhaps only in part, and the rest reads as zeros or lies behind the end of the file. A
failed sync drops what it was to write for good, as Linux does, although the running process still reads it.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from ringfence.audit import OsFiles

SECTOR = 512


@dataclass
class _File:
    path: Path
    synced: bytes
    writes: list[tuple[int, bytes]] = field(default_factory=list)


class PowerDisk(OsFiles):
    """A file port over real files, with a model beside it of what is on the disk."""

    def __init__(self) -> None:
        self.before_sync: Callable[[str], None] = lambda _name: None
        self.fail_sync_of = ""
        self._files: dict[Path, _File] = {}
        self._open: dict[int, _File] = {}
        self._lock = threading.RLock()

    def open(self, path: Path) -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with self._lock:
            self._open[descriptor] = self._files.setdefault(path, _File(path, path.read_bytes()))
        return descriptor

    def append(self, descriptor: int, data: bytes) -> None:
        with self._lock:
            offset = os.fstat(descriptor).st_size
            super().append(descriptor, data)
            self._open[descriptor].writes.append((offset, data))

    def truncate(self, descriptor: int, size: int) -> None:
        with self._lock:
            super().truncate(descriptor, size)
            file = self._open[descriptor]
            file.writes = [(offset, data[: size - offset]) for offset, data in file.writes if offset < size]
            # Only recovery cuts what was synced, and syncs again before it relies on it.
            file.synced = file.synced[:size]

    def fdatasync(self, descriptor: int) -> None:
        file = self._open[descriptor]
        self.before_sync(file.path.name)
        with self._lock:
            if self.fail_sync_of and file.path.name.startswith(self.fail_sync_of):
                file.writes = []
                raise OSError(errno.EIO, "Input/output error")
            for offset, data in file.writes:
                file.synced = _written(file.synced, offset, data)
            file.writes = []

    def create(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        with self._lock:
            self._files[path] = _File(path, content)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        with self._lock:
            self._files.pop(path, None)

    def close(self, descriptor: int) -> None:
        with self._lock:
            self._open.pop(descriptor)
        super().close(descriptor)

    def cut(self, target: Path, random: Random) -> None:
        """Writes every file into `target` as it may be found after the power was cut now."""
        target.mkdir()
        with self._lock:
            for path, file in self._files.items():
                (target / path.name).write_bytes(_found(file, random))


def _found(file: _File, random: Random) -> bytes:
    content = file.synced
    if not file.writes:
        return content
    end = max(offset + len(data) for offset, data in file.writes)
    for offset, data in file.writes:
        at = offset
        while at < offset + len(data):
            stop = min((at // SECTOR + 1) * SECTOR, offset + len(data))
            if random.random() < 0.5:
                torn = random.randint(at, stop) if random.random() < 0.1 else stop
                content = _written(content, at, data[at - offset : torn - offset])
            at = stop
    if random.random() < 0.5:
        # The new length reached the disk and the content did not.
        content = content.ljust(random.randint(len(content), end), b"\0")
    return content


def _written(content: bytes, offset: int, data: bytes) -> bytes:
    return content[:offset].ljust(offset, b"\0") + data + content[offset + len(data) :]
