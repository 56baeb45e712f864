"""The few file operations that the log's durability rests on, behind a port so that tests can make them fail."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol


class FilePort(Protocol):
    """Append-only files by descriptor. Every method raises OSError when the system does."""

    def open(self, path: Path) -> int:
        """Opens for appending, creating a file that only its owner may use; its name is durable on return."""
        ...

    def append(self, descriptor: int, data: bytes) -> None:
        """Writes all of `data` at the end, or raises having written any part of it."""
        ...

    def fdatasync(self, descriptor: int) -> None:
        """Returns once the file's content is on stable storage."""
        ...

    def truncate(self, descriptor: int, size: int) -> None:
        """Cuts the file to `size` bytes."""
        ...

    def close(self, descriptor: int) -> None: ...


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

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)


def read_lines(path: Path, limit: int, *, until: int | None = None) -> Iterator[bytes]:
    """The lines of a file's first `until` bytes (None: of all) with their newlines.

    One longer than `limit` bytes comes in pieces without a newline. A missing file has no lines.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        left = file.seek(0, os.SEEK_END) if until is None else until
        file.seek(0)
        while line := file.readline(min(limit, left)):
            left -= len(line)
            yield line


def create_folder(folder: Path) -> None:
    """Creates a folder and its missing parents for their owner alone, durably."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Writes a small file, readable by its owner alone, so that it is there whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        OsFiles().append(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
