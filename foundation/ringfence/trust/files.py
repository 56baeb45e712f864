"""Reading and writing trust and key files: bounded, durable, never half written."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence.trust.errors import MISSING_FILE, UNSAFE_FILE, TrustError

MAX_BYTES = 16 << 20  # some six thousand pins


def read(path: Path, check: Callable[[os.stat_result, Path], None]) -> bytes:
    """The content of the regular file at `path`, after `check` has accepted its status.

    Raises `TrustError`: trust.missing_file, trust.unsafe_file for anything but a regular file of at most 16 MiB.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
                raise TrustError(
                    UNSAFE_FILE, f"{path} is not a regular file of at most {MAX_BYTES} bytes.", field=str(path)
                )
            check(status, path)
            return file.read(MAX_BYTES)
    except FileNotFoundError as error:
        raise TrustError(MISSING_FILE, f"{path} does not exist.", field=str(path), hint="Check the path.") from error
    except OSError as error:
        raise TrustError(
            UNSAFE_FILE,
            f"{path} cannot be read: {error.strerror}.",
            field=str(path),
            hint="Check the path and its mode.",
        ) from error


def _open_at_once(path: str, flags: int) -> int:
    """A FIFO in the file's place must not make the caller wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that does not exist yet, durably; raises `FileExistsError` where it does."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the umask says
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def replace(path: Path, data: bytes) -> None:
    """Put `data` (mode 0600) in the place of `path`: after a crash either the old content is there or the new."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def erase(path: Path) -> None:
    """Overwrite a file with zeros and remove it; nothing where there is none.

    Best effort: a file system that copies on write, a flash disk, a snapshot or a backup may hold what was there.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    with open(descriptor, "wb") as file:
        file.write(bytes(os.fstat(descriptor).st_size))
        file.flush()
        os.fsync(descriptor)
    path.unlink()
    sync_folder(path.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: of two commands that change the same list, the second sees what the first wrote.

    Raises `TrustError` trust.missing_file where the folder cannot be opened.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise TrustError(
            MISSING_FILE,
            f"the folder {folder} cannot be opened: {error.strerror}.",
            field=str(folder),
            hint="Check the path, or make the folder first.",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
