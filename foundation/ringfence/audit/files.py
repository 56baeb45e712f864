"""The few file operations that the log's durability rests on, behind a port so that tests can make them fail."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from ringfence.audit.records import MAX_LINE
from ringfence.audit.verifier import Block

_BLOCK = 256 * 1024
FORGET_BYTES = 4 * 1024 * 1024
"""How much of a segment may be in the page cache behind its writer or a reader.

A log is written once, and read seldom and from one end to the other. Left alone it would push what jobs need out of
the host's memory; and where a hypervisor has to back free memory first, each new page costs over ten microseconds, a
third of all else that is done for the records on it.
"""


class FilePort(Protocol):
    """Append-only files by descriptor. Every method but `forget` raises OSError when the system does."""

    def open(self, path: Path) -> int:
        """Opens for appending, creating a file that only its owner may use; its name is durable on return."""
        ...

    def append(self, descriptor: int, data: bytes) -> None:
        """Writes all of `data` at the end, or raises having written any part of it."""
        ...

    def fdatasync(self, descriptor: int) -> None:
        """Returns once the file's content is on stable storage."""
        ...

    def forget(self, descriptor: int, size: int) -> None:
        """Lets go of the page cache that the first `size` bytes take, all of them synced. A hint: it never raises."""
        ...

    def truncate(self, descriptor: int, size: int) -> None:
        """Cuts the file to `size` bytes."""
        ...

    def close(self, descriptor: int) -> None: ...

    def create(self, path: Path, content: bytes) -> None:
        """Writes a file that only its owner may use, so that it is there whole or not at all; durable on return."""
        ...

    def remove(self, path: Path) -> None:
        """Removes a file, durably; one that is not there is no error."""
        ...


class OsFiles:
    """The operating system's files."""

    def open(self, path: Path) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            sync_folder(path.parent)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def append(self, descriptor: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    def fdatasync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def forget(self, descriptor: int, size: int) -> None:
        _forget(descriptor, size)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def create(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(path.name + ".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self.append(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        sync_folder(path.parent)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)


def read_blocks(path: Path, *, skip: int = 0, until: int | None = None) -> Iterator[Block]:
    """The lines of a file's first `until` bytes (None: of all) behind the first `skip`, in blocks of bounded size.

    What follows the last newline, or is longer than any line may be, is given as a block's second half.
    """
    with path.open("rb") as file:
        left = (sys.maxsize if until is None else until) - file.seek(skip)
        rest = b""
        cached = 0
        while chunk := file.read(min(_BLOCK, left)):
            left -= len(chunk)
            cached += len(chunk)
            if cached >= FORGET_BYTES:
                _forget(file.fileno(), file.tell())
                cached = 0
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > MAX_LINE:
                yield lines, rest
                rest = b""
            elif lines:
                yield lines, b""
        if rest:
            yield [], rest


def _forget(descriptor: int, size: int) -> None:
    # The kernel keeps what is not written yet, and the page that `size` is in, which the next write goes on with.
    with contextlib.suppress(OSError):
        os.posix_fadvise(descriptor, 0, size, os.POSIX_FADV_DONTNEED)


def create_folder(folder: Path) -> None:
    """Creates a folder and its missing parents for their owner alone, durably."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
